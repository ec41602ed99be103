"""`ask` answers one question, many, or one after the other, over an index or a folder of texts."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exsearch.cli import cli
from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever

Ask = Callable[..., Result]

# One search, one fact, the answer; of a lost thing nothing is found, and the last is no reply.
SCRIPT = (
    ("lost thing?\nNotes:\nnone", "Search: zyxwv"),
    ("Query: zyxwv", "Nothing found."),
    ("1. zyxwv", "Answer: Bea Marlow"),
    ("Copy the fact", "[1] The harbour was built by Ada Fenwick"),
    ("mumble?", "Mumble."),
    ("Notes:\nnone", "Search: harbour builder"),
    ("Notes:", "Answer: Ada Fenwick"),
)
HARBOUR = "The harbour was built by Ada Fenwick, of Wales, in 1871."
BUILT, LOST = "Who built the harbour?", "Who has the lost thing?"


@pytest.fixture
def world(tmp_path: Path) -> list[object]:
    lines = [json.dumps({"contains": part, "reply": reply}) for part, reply in SCRIPT]
    (tmp_path / "script.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return ["--model", tmp_path / "script.jsonl", "--engine", "scripted"]


@pytest.fixture
def place(tmp_path: Path) -> list[object]:
    passages = (Passage("h", "Harbour", HARBOUR), Passage("b", "Bread", "Bread is baked."))
    Bm25Retriever.build(passages, tmp_path / "index", progress=False)
    return ["--index", tmp_path / "index"]


@pytest.fixture
def ask(world: list[object], place: list[object]) -> Ask:
    """Runs `ask` over the index with what is typed, and must leave with `code`."""

    def run(*args: object, typed: str = "", code: int = 0, over: list[object] | None = None):
        command = ["ask", *map(str, (*args, *(place if over is None else over), *world))]
        result = CliRunner().invoke(cli, command, prog_name="exsearch", input=typed)
        assert result.exit_code == code, result.output
        return result

    return run


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_many_questions_are_answered_in_their_order(ask: Ask):
    typed = f"{BUILT}\n\n{LOST}\n  \n{BUILT}\n"
    result = ask("-", "-q", typed=typed)
    blocks = result.stdout.strip().split("\n\n")
    heads = [block.splitlines()[0] for block in blocks]
    assert [head for head in heads if head.startswith("Who")] == [BUILT, LOST, BUILT]
    assert result.stdout.count(f"{BUILT}\nAda Fenwick [1]\n  - The harbour was") == 2
    assert "Bea Marlow (unsupported)" in result.stdout
    assert "on the way: search 1 found nothing" in result.stdout
    found = json.loads(ask("-", "--json", typed=typed).stdout)
    assert (found["questions"], found["failed"]) == (3, 0)
    assert [one["id"] for one in found["results"]] == ["1", "3", "5"]
    assert found["results"][1]["answer"] == "Bea Marlow"
    assert "3/3" in ask("-", typed=typed).stderr


def test_a_file_of_answers_goes_on_after_its_last_line(ask: Ask, tmp_path: Path):
    out = tmp_path / "new" / "answers.jsonl"
    said = ask("-", "--out", out, typed=f"{BUILT}\n{LOST}\n").stdout
    assert said == f"2 answers are in {out}\n"
    first = out.read_bytes()
    one, two = lines_of(out)
    assert (one["id"], one["question"], one["answer"]) == ("1", BUILT, "Ada Fenwick")
    single = json.loads(ask(BUILT, "--json").stdout)
    assert single.keys() == one.keys() - {"id", "question"}
    assert one["claims"] == single["claims"] and two["degraded"] == ["search 1 found nothing"]

    with out.open("a") as file:
        file.write('{"id": "3", "quest')  # torn
    values = json.loads(
        ask("-", "--out", out, "--json", typed=f"{BUILT}\n{LOST}\n{BUILT}\n").stdout
    )
    assert values == {"file": str(out), "questions": 3, "failed": 0, "withheld": 0}
    assert out.read_bytes().startswith(first) and len(lines_of(out)) == 3
    whole = out.read_bytes()
    ask("-", "--out", out, typed=f"{BUILT}\n{LOST}\n{BUILT}\n")
    assert out.read_bytes() == whole


def test_a_file_of_other_answers_is_left_alone(ask: Ask, tmp_path: Path):
    out = tmp_path / "answers.jsonl"
    ask("-", "--out", out, typed=f"{BUILT}\n{LOST}\n")
    whole = out.read_bytes()
    other = ask("-", "--out", out, "-q", typed=f"{BUILT}\n{BUILT}\n", code=7).stderr
    assert "answers.jsonl:2: answers another question" in other and LOST in other
    assert "more than the 1 questions" in ask("-", "--out", out, typed=BUILT, code=7).stderr
    for name in ("seed", "abstain", "max-steps"):
        message = ask("-", "--out", out, f"--{name}", 1, typed=f"{BUILT}\n{LOST}\n", code=7).stderr
        assert "begun with other settings" in message and name.replace("-", "_") in message
    assert out.read_bytes() == whole
    strange = tmp_path / "strange.jsonl"
    strange.write_text("{}\n")
    assert "did not begin here" in ask("-", "--out", strange, typed=BUILT, code=7).stderr


def one_reply(folder: Path) -> None:
    """Write a script with replies for one question only; of any other one the engine fails."""
    rules = {
        f"{BUILT}\nNotes:\nnone": "Search: harbour builder",
        "Copy the fact": "[1] The harbour was built by Ada Fenwick",
        "Notes:\n1.": "Answer: Ada Fenwick",
    }
    lines = [json.dumps({"contains": part, "reply": reply}) for part, reply in rules.items()]
    (folder / "script.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_a_question_that_fails_costs_itself_alone(ask: Ask, tmp_path: Path):
    one_reply(tmp_path)
    out = tmp_path / "answers.jsonl"
    typed = f"Will it break?\n{BUILT}\nWill it break?\n"
    said = ask("-", "--out", out, typed=typed).stdout
    assert said == f"3 answers are in {out} (2 failed)\n"
    broken, fine, again = lines_of(out)
    assert "no reply for the prompt" in broken["error"] and broken["answer"] == ""
    assert broken["stopped"].startswith("the model failed") and again["id"] == "3"
    assert fine["error"] is None and fine["answer"] == "Ada Fenwick"
    shown = ask("-", typed=typed)
    assert "stopped: the model failed" in shown.stdout and "2 of 3 questions failed" in shown.stderr
    none = tmp_path / "none.jsonl"
    assert "no reply" in ask("-", "--out", none, typed="Will it break?\n", code=9).stderr
    assert not none.exists()
    assert "no reply" in ask("-", typed="Will it break?\n", code=9).stderr


def test_where_all_fail_from_some_place_on_the_next_call_asks_them_again(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one_reply(tmp_path)
    monkeypatch.setattr("exsearch.jobs.answer.FAILURES", 2)
    out = tmp_path / "answers.jsonl"
    typed = f"{BUILT}\n" + 3 * "Will it break?\n"
    assert "no reply" in ask("-", "--out", out, "-q", typed=typed, code=9).stderr
    assert [line["answer"] for line in lines_of(out)] == ["Ada Fenwick"]
    few = ask("-", "--out", out, "--json", typed=f"{BUILT}\nWill it break?\n").stdout
    assert json.loads(few)["failed"] == 1


def test_a_chat_goes_on_after_a_question_that_fails(ask: Ask, tmp_path: Path):
    one_reply(tmp_path)
    result = ask("--chat", typed=f"Will it break?\n{BUILT}\n")
    assert "exsearch: error: " in result.stderr and "Ada Fenwick [1]" in result.stdout


def test_a_chat_without_a_terminal_ends_with_an_empty_line_or_the_input(ask: Ask):
    for rest in ("", f"\n{LOST}\n"):
        result = ask("--chat", typed=f"{BUILT}\n{BUILT}\n{rest}")
        assert result.stdout.count("Ada Fenwick [1]\n  - The harbour was") == 2
        assert "Bea" not in result.stdout
        assert result.stderr.count("each question is answered by itself") == 1
        assert result.stderr.count("search: harbour builder") == 2
    as_json = ask("--chat", "--json", "-q", typed=f"{BUILT}\n{LOST}\n")
    assert [json.loads(line)["answer"] for line in as_json.stdout.splitlines()] == [
        "Ada Fenwick",
        "Bea Marlow",
    ]
    assert as_json.stderr == ""


def test_a_chat_at_a_terminal_ends_with_ctrl_c(world: list[object], place: list[object]):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "exsearch", "ask", "--chat", *map(str, (*place, *world))]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_own_terminal,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            _read_until(ours, "? ")
            os.write(ours, f"{BUILT}\n".encode())
            seen = _read_until(ours, "\r\n? ")
            assert "Ada Fenwick [1]" in seen and "answered (" in seen
            os.write(ours, b"\x03")
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(ours)


def _own_terminal() -> None:
    """Make standard input the terminal that Ctrl-C comes from."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(terminal: int, wanted: str) -> str:
    seen, end = "", time.monotonic() + 60
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], end - time.monotonic())
        assert ready, seen
        seen += os.read(terminal, 65536).decode()
    return seen


def test_a_folder_of_texts_is_asked_at_once(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / "cache"))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "harbour.md").write_text(HARBOUR)
    (docs / "bread.txt").write_text("Bread is baked.")
    over: list[object] = ["--docs", docs]
    result = ask(BUILT, over=over)
    assert f'[1] harbour (harbour.md#1): "{HARBOUR}"' in result.stdout
    assert f"{docs}: 2 files (2 new, 0 changed, 0 removed), 2 passages" in result.stderr
    (docs / "bread.txt").unlink()
    (docs / "harbour.md").write_text("The harbour was built by Ada Fenwick alone.")
    again = ask(BUILT, over=over)
    assert "1 files (0 new, 1 changed, 1 removed), 1 passages" in again.stderr
    assert '"The harbour was built by Ada Fenwick alone."' in again.stdout
    assert ask(BUILT, "-q", over=over).stderr == ""


def test_an_answer_that_rests_on_nothing_is_withheld(ask: Ask, tmp_path: Path):
    result = ask(LOST, "--abstain")
    assert result.stdout == "(withheld: no passage that was found says it)\n"
    values = json.loads(ask(LOST, "--json", "--abstain", 0.01).stdout)
    assert (values["answer"], values["claims"], values["confidence"]) == ("", [], 0.0)
    assert values["withheld"] == "no passage that was found says it"
    assert values["steps"][0]["query"] == "zyxwv"
    kept = ask(BUILT, "--abstain", 1e-30).stdout
    assert kept.startswith("Ada Fenwick [1]")
    out = tmp_path / "answers.jsonl"
    ask("-", "--out", out, "--abstain", 1e-30, typed=f"{LOST}\n{BUILT}\n")
    assert [line["answer"] for line in lines_of(out)] == ["", "Ada Fenwick"]


def test_an_ending_out_of_the_ordinary_is_told(ask: Ask):
    result = ask("Does it mumble?")
    assert result.stdout.startswith("(no answer: ")
    assert "stopped: the model wrote what can't be read (" in result.stderr
    assert "on the way: a reply that could not be read was written anew" in result.stderr
    assert "ended (" in result.stderr
    forced = ask(BUILT, "--max-steps", 1).stderr
    assert "stopped: it made as many searches as it may" in forced


def test_options_that_do_not_go_together(ask: Ask, tmp_path: Path):
    for args, said in (
        ((), "Missing argument"),
        ((BUILT, "--chat"), "leave QUESTION out"),
        ((BUILT, "--out", "x"), "give - for QUESTION"),
        ((BUILT, "--docs", tmp_path), "an --index, or a folder"),
        ((BUILT, "--abstain", "2"), "--abstain"),
    ):
        assert said in ask(*args, code=2).stderr
    assert "an --index, or a folder" in ask(BUILT, over=[], code=2).stderr
    assert "no query in it" in ask("-", typed="\n\n", code=3).stderr
