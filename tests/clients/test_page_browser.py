"""The page in a real Chromium: used by keyboard alone, free of axe's violations, and on its own.

`make test-clients` runs it, and brings what it needs (`browser.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from answer_server import answer_server
from asked_server import Asked
from saved_page import show_page, write_saved

from browser import focused, opened, shoot, tab_to, violations
from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever
from started_server import StartedServer

pytestmark = pytest.mark.clients

QUESTION = "Who built the harbour of Quillmoor, and where was its builder born?"
MARKUP = "<img src=x onerror=\"document.title='forged'\"> <b>bold</b>"
PASSAGES = (
    Passage(
        "quillmoor-3",
        "Quillmoor harbour",
        "Quillmoor 🚂 lies on the western coast. The harbour was built by Ada Fenwick between 1868 "
        "and 1871, of granite that came by ship. Until the railway came, it was the only way in.",
    ),
    Passage(
        "fenwick-1",
        "Ada Fenwick",
        "Ada Fenwick, an engineer, was born in 1839 in the market town of Wexcombe. She built "
        "harbours and bridges, and taught.",
    ),
    Passage("markup", "Wexcombe <i>parish</i>", f"Wexcombe has a market. {MARKUP}"),
    Passage("bread", "Bread", "Bread is baked from flour, water and salt."),
)
SCRIPT = (
    ("Query: Quillmoor harbour builder", "[1] The harbour was built by Ada Fenwick"),
    ("Query: Ada Fenwick birthplace", "[1] Ada Fenwick was born in the town of Wexcombe"),
    ("Query: Wexcombe parish", "[1] It has had a lord mayor since Tuesday"),
    ("3. Wexcombe parish", "Answer: Ada Fenwick"),
    ("2. Ada Fenwick birthplace", "Search: Wexcombe parish"),
    ("1. Quillmoor harbour builder", "Search: Ada Fenwick birthplace"),
    ("harbour of Quillmoor", "Search: Quillmoor harbour builder"),
    ("Mumble", "Mumble."),
)


@pytest.fixture(scope="module")
def quillmoor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedServer]:
    folder = tmp_path_factory.mktemp("quillmoor")
    lines = [json.dumps({"contains": part, "reply": reply}) for part, reply in SCRIPT]
    (folder / "script.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Bm25Retriever.build(PASSAGES, folder / "index", progress=False)
    with answer_server(folder) as running:
        yield running


def answered(page: Any) -> None:
    """Ask the question by keyboard, from wherever the focus is at the beginning."""
    assert focused(page) == "question"
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_text("What it rests on").wait_for()


def test_it_is_used_by_keyboard_alone(chromium, quillmoor, tmp_path):
    with opened(chromium, quillmoor.address) as page:
        answered(page)
        assert page.locator(".said").inner_text().startswith("Ada Fenwick")
        assert page.get_by_role("status").text_content() == "Answer: Ada Fenwick, with 2 sources."
        assert page.locator(".steps .query").all_inner_texts()[0] == "Quillmoor harbour builder"

        tab_to(page, "1")
        page.keyboard.press("Enter")  # opens the citation
        assert page.locator("dialog[open] mark").inner_text() == "Ada Fenwick"
        assert "word for word" in page.locator("#passage-kind").inner_text()
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert focused(page) == "1"  # where it was

        tab_to(page, "2 weak")
        page.keyboard.press("Enter")
        assert page.locator("mark").inner_text().startswith("Ada Fenwick, an engineer")
        tab_to(page, "Close")
        page.keyboard.press("Enter")
        assert page.locator("dialog[open]").count() == 0

        tab_to(page, "Save as a file")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        file = tmp_path / "trace.json"
        download.value.save_as(file)
        text = page.locator(".answer").inner_text()

        page.goto(f"{quillmoor.address}/", wait_until="networkidle")
        tab_to(page, QUESTION)
        page.keyboard.press("Enter")  # reopens the trace from the list
        page.get_by_text("What it rests on").wait_for()
        assert page.locator(".answer").inner_text() == text
        page.reload(wait_until="networkidle")  # its address is a link
        assert page.locator(".answer").inner_text() == text

        page.goto(f"{quillmoor.address}/#", wait_until="networkidle")
        page.locator("#file").set_input_files(file)
        page.get_by_text("What it rests on").wait_for()
        assert page.locator(".answer").inner_text() == text


def test_whoever_answers_is_asked_by_keyboard_and_cites(chromium, asked: Asked):
    with opened(chromium, asked.address) as page:
        page.keyboard.type(asked.question)
        page.keyboard.press("Enter")
        page.get_by_text("What it rests on").wait_for(timeout=120_000)
        assert page.locator(".said").inner_text().startswith(asked.answer)
        tab_to(page, str(asked.number))
        page.keyboard.press("Enter")
        assert asked.answer in page.locator("dialog[open] mark").inner_text()


def test_what_is_doubtful_is_said_in_words(chromium, quillmoor):
    with opened(chromium, quillmoor.address) as page:
        answered(page)
        assert page.locator(".facts li").all_inner_texts() == [
            "The harbour was built by Ada Fenwick 1",
            "Ada Fenwick was born in the town of Wexcombe 2 weak",
            "It has had a lord mayor since Tuesday unsupported",
        ]


def test_markup_in_a_passage_stays_text(chromium, quillmoor):
    with opened(chromium, quillmoor.address) as page:
        answered(page)
        page.get_by_role("button", name="Wexcombe <i>parish</i>").first.click()
        assert MARKUP in page.locator(".text").inner_text()
        assert page.locator("main img, dialog img, dialog b, main i:not(.legend i)").count() == 0
        assert "forged" not in page.title()


def test_a_question_without_an_answer_says_so(chromium, quillmoor):
    with opened(chromium, quillmoor.address) as page:
        page.keyboard.type("Mumble, please")
        page.keyboard.press("Enter")
        page.get_by_text("No answer was reached.").first.wait_for()
        assert "no_action" in page.locator(".answer").inner_text()


def test_a_question_can_be_stopped(chromium, quillmoor):
    with opened(chromium, quillmoor.address) as page:
        page.route("**/ask", lambda route: None)  # never gets an answer
        page.keyboard.type(QUESTION)
        page.keyboard.press("Enter")
        tab_to(page, "Stop")
        page.keyboard.press("Enter")
        page.locator("main").get_by_text("Stopped.").last.wait_for()
        assert page.locator("#question").input_value() == QUESTION
        assert page.get_by_role("button", name="Ask").count() == 1


def test_a_file_that_is_no_trace_is_refused(chromium, quillmoor, tmp_path):
    with opened(chromium, quillmoor.address) as page:
        for text in ("{}", "[", '{"form": 1}', '{"form": 1, "steps": 3}'):
            (tmp_path / "wrong.json").write_text(text, encoding="utf-8")
            page.locator("#file").set_input_files(tmp_path / "wrong.json")
            page.get_by_text("be shown: ").wait_for()
            page.reload(wait_until="networkidle")


def test_saved_trajectories_are_filtered_and_compared(chromium, tmp_path):
    first, second = write_saved(tmp_path)
    with (
        show_page(first, "--against", second) as address,
        opened(chromium, address, bypass_csp=True, viewport={"width": 1280, "height": 800}) as page,
    ):
        names = page.locator("#list .name")
        assert page.locator("#ask").is_hidden() and names.count() == 2
        for outcome, left in (("right", 1), ("none", 0), ("differ", 1), ("", 2)):
            page.locator("#outcome").select_option(outcome)
            assert names.count() == left
        page.locator("#filter").fill("q/1")
        assert names.count() == 1
        names.click()
        answers = page.locator(".beside .said")
        answers.nth(1).wait_for()
        assert [text.split()[0] for text in answers.all_inner_texts()] == ["Ada", "Bert"]
        assert violations(page) == []
        shoot(page, "compared")
        page.locator(".beside .cite").first.click()
        assert page.locator("dialog[open] mark").inner_text() == "Ada Fenwick"


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(chromium, quillmoor, theme, width):
    size = {"width": width, "height": 800}
    with opened(
        chromium, quillmoor.address, color_scheme=theme, viewport=size, bypass_csp=True
    ) as page:
        found = {"empty": violations(page)}
        shoot(page, f"empty-{theme}-{width}")
        answered(page)
        found["answered"] = violations(page)
        shoot(page, f"answered-{theme}-{width}")
        page.locator(".cite.weak").first.click()
        found["passage"] = violations(page)
        shoot(page, f"passage-{theme}-{width}", whole=False)
        page.keyboard.press("Escape")
        page.reload(wait_until="networkidle")
        found["reopened"] = violations(page)
        shoot(page, f"reopened-{theme}-{width}")
        assert found == {state: [] for state in found}
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, "it has to be scrolled sideways"
