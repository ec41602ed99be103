"""A report in a real Chromium, from a disk: by keyboard, free of axe's violations, on its own.

`make test-clients` runs it, and brings what it needs (`browser.py`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from planted import World, good

from browser import focused, opened, shoot, tab_to, violations
from exsearch.jobs.report import report
from exsearch.progress import Bars
from exsearch.runs import append_jsonl, locked
from exsearch.training.stages import METRICS_FILE
from started_server import started
from written_evaluations import MARKUP, write_evaluation, write_run, write_systems

pytestmark = pytest.mark.clients
SILENT = Bars(False)
SERVER_PYTHON = os.environ.get("EXSEARCH_SERVER_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    places = [*write_systems(folder / "runs"), write_run(folder / "mine")]
    report(places, folder / "report.html", bars=SILENT)
    return (folder / "report.html").as_uri()


def test_the_keyboard_leads_from_a_cell_to_a_timeline_and_back(chromium, page_file):
    with opened(chromium, page_file, "") as page:
        page.get_by_label("Questions", exact=True).select_option("")
        page.get_by_label("Questions", exact=True).focus()
        for _ in range(20):  # to the second system, on the first file
            page.keyboard.press("Tab")
            if page.locator(":focus[aria-label*='bad.0, rivers']").count():
                break
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="bad.0, rivers").wait_for()
        assert focused(page) == "bad.0, rivers"
        tab_to(page, "lost by record")
        page.keyboard.press("Enter")
        page.get_by_text("Where it went wrong").wait_for()
        assert page.locator(".lost .tag").first.inner_text() == "record"
        assert page.locator(".steps .query").count() == 2
        left = page.locator(".track span").evaluate_all("all => all.map((bar) => bar.style.width)")
        assert left == ["100%", "62.5%"]  # 4 nats up, then 2.5 down
        tab_to(page, "Next", "Shift+Tab")
        tab_to(page, "gold")
        page.keyboard.press("Enter")
        assert page.locator("dialog[open] .text").inner_text()
        page.keyboard.press("Escape")
        page.go_back()
        page.go_back()
        page.get_by_role("heading", name="Results").wait_for()


def test_what_flipped_is_shown_side_by_side(chromium, page_file):
    with opened(chromium, page_file, "") as page:
        page.get_by_label("Flips of").select_option("good.0")
        page.get_by_label("against", exact=True).select_option("bad.0")
        page.get_by_role("button", name="Show").click()
        page.get_by_text("16 of 16 questions").wait_for()
        page.locator("#kind").select_option("second")
        assert page.locator(".questions li").count() == 0
        page.locator("#kind").select_option("first")
        page.locator(".questions a").first.click()
        page.locator(".beside").wait_for()
        verdicts = page.locator(".beside .verdict .tag").all_inner_texts()
        assert verdicts[0] == "✓ right" and verdicts[1] != "✓ right"


def test_a_figure_of_the_diagnosis_opens_what_it_counts(chromium, page_file):
    with opened(chromium, page_file, "") as page:
        page.get_by_role("row", name="record").first.get_by_role("link").first.click()
        page.get_by_text("8 of 24 questions").wait_for()
        assert page.locator("#cause").input_value() == "record"


def test_markup_stays_text(chromium, page_file):
    with opened(chromium, page_file, "") as page:
        page.locator("tbody td a").first.click()
        page.get_by_text(MARKUP).first.click()
        page.locator(".asked").wait_for()
        assert page.locator(".asked").inner_text() == f"Where? {MARKUP}"
        page.get_by_role("button", name=MARKUP).first.click()
        assert MARKUP in page.locator("dialog .text").inner_text()
        assert page.locator("img").count() == 0
        assert page.title() != "forged"


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(chromium, page_file, theme, width):
    size = {"width": width, "height": 800}
    with opened(
        chromium, page_file, "", color_scheme=theme, viewport=size, bypass_csp=True
    ) as page:
        found = {"report": violations(page)}
        shoot(page, f"report-{theme}-{width}")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found["all open"] = violations(page)
        page.get_by_role("row", name="bad.0").first.get_by_role("link").first.click()
        page.locator(".questions a").first.wait_for()
        found["questions"] = violations(page)
        page.locator(".questions a").nth(1).click()
        page.locator(".steps").wait_for()
        found["timeline"] = violations(page)
        shoot(page, f"timeline-{theme}-{width}")
        assert found == {state: [] for state in found}
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, "it has to be scrolled sideways"


@pytest.mark.parametrize("width", [320, 1280])
def test_an_open_page_follows_a_run(chromium, tmp_path: Path, width):
    run = write_run(tmp_path / "mine")
    command = [SERVER_PYTHON, "-m", "exsearch", "serve", "--run", run, "--port", 0, "--json"]
    size = {"width": width, "height": 800}
    with (
        locked(run),
        started(command) as server,
        opened(chromium, server.address, viewport=size, bypass_csp=True) as page,
    ):
        page.get_by_text("This run is being trained; the page follows it.").wait_for()
        assert page.get_by_role("row", name="iteration-02").count() == 0
        assert violations(page) == []
        shoot(page, f"live-{width}")
        journal = run / METRICS_FILE
        last = journal.read_text().splitlines()[-1]
        append_jsonl(journal, [last.replace("iteration-01", "iteration-02")])
        page.get_by_role("row", name="iteration-02").wait_for(timeout=60_000)  # by itself
        page.get_by_role("row", name="iteration-01").get_by_role("link").first.click()
        page.locator(".questions a").first.wait_for()
        append_jsonl(journal, [last.replace("iteration-01", "iteration-03")])
        page.get_by_role("button", name="Show newer figures").wait_for(timeout=60_000)
        assert page.locator(".questions a").count()  # nothing is taken away
        page.get_by_role("button", name="Show newer figures").click()
        page.locator(".questions a").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_the_largest_table_opens_within_a_second(chromium, tmp_path: Path):
    world = World(10_000)
    write_evaluation(tmp_path / "large", [good(world, tale) for tale in world.tales])
    report([tmp_path / "large"], tmp_path / "report.html", bars=SILENT)
    with opened(chromium, (tmp_path / "report.html").as_uri(), "") as page:
        took = page.evaluate(
            """async () => {
                const began = performance.now();
                document.querySelector("tbody td a").click();
                while (!document.querySelector(".questions a"))
                    await new Promise((done) => setTimeout(done, 5));
                return performance.now() - began;
            }"""
        )
        assert page.locator(".questions a").count() == 100
        assert took < 1000
