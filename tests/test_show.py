"""What is shown to a person is complete, aligned, and can't steer a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.agent.events import Event, EventKind
from exsearch.errors import DataError, RunError
from exsearch.records import (
    Evidence,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
    to_json,
)
from exsearch.show.figures import folder_object, folder_text, percent, summary_text
from exsearch.show.tables import table
from exsearch.show.traces import answer_text, event_text, find_traces, trace_object, trace_text
from exsearch.terminal import safe

EVENTS = [
    {
        "stage": "warm_up",
        "event": "step",
        "step": 1,
        "optimizer_steps": 2,
        "loss": 1.5,
        "time": 1.0,
    },
    {
        "stage": "warm_up",
        "event": "step",
        "step": 2,
        "optimizer_steps": 2,
        "loss": 0.5,
        "time": 2.0,
    },
    {"stage": "warm_up", "event": "m_step", "step": None, "seconds": 30.0, "time": 3.0},
    {
        "stage": "warm_up",
        "event": "dev",
        "n": 40,
        "em": 0.25,
        "f1": 0.3,
        "recall_at_k": 0.5,  # its name in older runs
        "gain": {"metric": "f1", "difference": -0.025, "ci95": [-0.05, 0.01]},
        "ci95": {"em": [0.1, 0.4], "f1": [0.2, 0.45]},
        "seconds": 12.0,
        "time": 4.0,
    },
    {
        "stage": "iteration-01",
        "event": "e_step",
        "effective_sample_size": 2.34,
        "share_without_signal": 0.1,
        "sampling_seconds": 50.0,
        "scoring_seconds": 5.0,
        "time": 5.0,
    },
    {
        "stage": "iteration-01",
        "event": "objective",
        "mean": -2.5,
        "standard_error": 0.25,
        "questions": 12,
        "held_out": 5,
        "gain": {"difference": 0.5, "standard_error": 0.125},
        "time": 6.0,
    },
]
QUESTION = Question("q", "Who wrote Peter Pan?", ("J. M. Barrie", "Barrie"), ("p1",))
STEPS = (
    Step(
        "Peter Pan play",
        (Passage("p1", "Peter Pan", "A play by Barrie."), Passage("p2", "Neverland", "A place.")),
        ("p1",),
        Evidence("Barrie wrote it.", ("p1",)),
    ),
    Step("Barrie", (), None, None),
)


def trajectory(**values: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "question": QUESTION,
        "steps": STEPS,
        "calls": (),
        "answer": "Barrie",
        "stop_reason": StopReason.ANSWERED,
    }
    return Trajectory(**{**fields, **values})


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps(event) + "\n" for event in EVENTS)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"torn')
    return tmp_path


def test_a_run_is_a_table_of_its_stages(run_folder: Path):
    text = folder_text(run_folder)
    assert text.splitlines()[0].endswith(": not finished")
    heads, _, warm_up, iteration = text.splitlines()[1:]
    assert heads.split()[:3] == ["stage", "dev", "n"]
    words = ["warm_up", "40", "25.0 [10.0, 40.0]", "30.0 [20.0, 45.0]", "0.50", "2/2", "42"]
    words += ["50.0", "-2.5 [-5.0, 1.0]"]
    assert [word for word in words if word not in warm_up] == []
    words = ["iteration-01", "-2.50 ± 0.25", "+0.50 ± 0.12", "5/12", "2.34", "0.10", "55"]
    assert [word for word in words if word not in iteration] == []
    (run_folder / "best.json").write_text('{"stage": "warm_up", "model": "warm_up/model"}')
    assert folder_text(run_folder).splitlines()[0].endswith(": best: warm_up")


def test_a_journal_of_before_is_shown_alike(run_folder: Path):
    text = folder_text(run_folder)
    journal = run_folder / "metrics.jsonl"
    journal.write_text(journal.read_text().replace('"optimizer_steps"', '"steps"'))
    assert folder_text(run_folder) == text


def test_a_run_as_values(run_folder: Path):
    shown = folder_object(run_folder)
    assert (shown["finished"], shown["best"]) == (False, None)
    assert [stage["stage"] for stage in shown["stages"]] == ["warm_up", "iteration-01"]
    assert shown["stages"][0]["step"]["loss"] == 0.5


def test_an_event_of_an_unknown_kind_is_no_fault(run_folder: Path):
    with (run_folder / "metrics.jsonl").open("w") as file:
        file.write('{"stage": "new", "event": "new", "time": 1.0}\n')
    assert "new" in folder_text(run_folder).splitlines()[-1]


def test_a_folder_that_is_neither(tmp_path: Path):
    with pytest.raises(RunError, match="neither a run"):
        folder_object(tmp_path)
    with pytest.raises(RunError, match="no such folder"):
        folder_object(tmp_path / "none")
    (tmp_path / "trajectories.jsonl").touch()
    with pytest.raises(RunError, match="not finished"):
        folder_object(tmp_path)


def test_a_trace_reads_from_question_to_gold():
    assert trace_text(WeightedTrajectory(trajectory(), 0.75, (-1.5,), ((1,),))) == "\n".join(
        [
            "q#0  Who wrote Peter Pan?",
            "  1. search: Peter Pan play",
            "     * [p1] Peter Pan",
            "       [p2] Neverland  (not selected)",
            "     record: Barrie wrote it.  [p1]",
            "  2. search: Barrie",
            "     record: nothing found",
            "  answer: Barrie  (right)",
            "  gold: J. M. Barrie | Barrie",
            "  end: answered; 0 tokens read, 0 written",
            "  weight: 0.750, log p(gold answer): -1.50",
        ]
    )


def test_a_trace_without_answer_says_why():
    failed = trajectory(answer="", stop_reason=StopReason.MALFORMED, malformed="no_label")
    text = trace_text(failed)
    assert "answer: (none)  (wrong)" in text
    assert "end: malformed (no_label); " in text
    assert answer_text(failed).startswith("(no answer: no_label)")
    unknown = trajectory(question=Question("q", "Who?"))
    assert "(right)" not in trace_text(unknown)
    assert "gold" not in trace_text(unknown)


def test_an_answer_names_the_sentences_that_say_it():
    play = Passage("p1", "Peter Pan", "It is old. A play by\nBarrie. It runs on.")
    facts = ("A play by Barrie.", "Barrie wrote it.", "The play, old as it runs on, is by Barrie")
    steps = tuple(Step("who", (play,), None, Evidence(fact, ("p1",))) for fact in facts)
    assert answer_text(trajectory(steps=steps)).splitlines() == [
        "Barrie [1]",
        "  - A play by Barrie. [1]",
        "  - Barrie wrote it. (unsupported)",
        "  - The play, old as it runs on, is by Barrie (unsupported)",
        "",
        '  [1] Peter Pan (p1): "A play by Barrie."',
    ]
    linked = Passage("p1", "Peter Pan", play.text, url="https://a.example/p")
    shown = answer_text(trajectory(steps=(Step("who", (linked,), None, steps[0].evidence),)))
    assert shown.splitlines()[-1] == "      https://a.example/p"
    weak = Step("who", (play,), None, Evidence("Barrie's play", ("p1",)))
    assert "  - Barrie's play [1, weak]" in answer_text(trajectory(steps=(weak,))).splitlines()
    assert answer_text(trajectory(steps=())).splitlines() == [
        "Barrie (unsupported)",
        "  (no evidence was recorded)",
    ]


def test_events_are_told_in_lines_that_steer_no_terminal():
    def told(kind: EventKind, **values: Any) -> str:
        return event_text(Event(kind, 0, "q#0", 0.0, **values))

    passages = (Passage("p1", "A\x1b[31m\nB", "x"), Passage("p2", "", "y"))
    assert told(EventKind.SEARCH, text="who\nis it") == "search: who is it"
    line = told(EventKind.PASSAGES, passages=passages)
    assert line.startswith("  found: A") and line.endswith(" | [p2]")
    assert "\x1b" not in line and "\n" not in line
    assert told(EventKind.PASSAGES) == "  found: nothing"
    step = Step("q", passages, None, Evidence("a fact", ("p1",)))
    assert told(EventKind.EVIDENCE, step=step) == "  record: a fact"
    assert told(EventKind.EVIDENCE, step=Step("q", ())) == "  record: nothing found"
    assert told(EventKind.TEXT, text="Sea") == told(EventKind.ANSWER, text="x") == ""


def test_traces_are_found_by_question_and_by_sample(tmp_path: Path):
    file = tmp_path / "trajectories.jsonl"
    traces = [trajectory(sample=0), WeightedTrajectory(trajectory(sample=1), 1.0)]
    file.write_text("".join(to_json(trace) + "\n" for trace in traces) + '{"torn')
    assert find_traces(file) == find_traces(tmp_path) == traces
    assert find_traces(file, "q") == traces
    assert find_traces(file, "q#1") == traces[1:]
    assert find_traces(file, limit=1) == traces[:1]
    assert "weight" in trace_object(traces[1])
    assert "weight" not in trace_object(traces[0])
    with pytest.raises(DataError, match="no trajectory with the id x"):
        find_traces(file, "x")


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"question": 3}', '{"schema_version": 99}', '{"trajectory": {}}']
)
def test_a_line_that_is_no_trajectory(tmp_path: Path, line: str):
    file = tmp_path / "t.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match="not a trajectory") as caught:
        find_traces(file)
    assert str(caught.value).startswith(f"{file}:1: ")


def test_figures_as_percentages():
    summary = {"n": 3, "em": 1 / 3, "f1": None, "ci95": {"em": [0, 2 / 3]}, "missing": 2}
    assert percent(summary, "em") == "33.3 [0.0, 66.7]"
    assert percent(summary, "f1") == percent(summary, "acc") == "-"
    assert "no prediction    2 (counted as wrong)" in summary_text(summary)


def test_a_metric_that_says_nothing_about_some_questions_says_over_how_many():
    summary = {"n": 3, "em": 1.0, "union_recall": 0.5, "union_recall_n": 2, "retries": 1}
    lines = {line[:16].strip(): line[16:].strip() for line in summary_text(summary).splitlines()}
    assert lines == {
        "questions": "3",
        "EM %": "100.0",
        "recall, union %": "50.0 (over 2)",
        "retries": "1 (at temperature 1, after malformed ones)",
    }


def test_a_table_is_aligned():
    lines = table([("a", "n"), ("long name", "12")]).splitlines()
    assert lines == ["a           n", "---------  --", "long name  12"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jgone", "gone"),
        ("\x1bcreset", "reset"),
        ("a\r\nb\tc\x08", "a b c"),
        ("\u202etxt\u2066", "txt"),
        ("naïve — 東京 😀", "naïve — 東京 😀"),
    ],
)
def test_what_steers_a_terminal_is_taken_out(text: str, shown: str):
    assert safe(text) == shown


@given(st.text())
def test_nothing_steers_a_terminal(text: str):
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in safe(text))
    assert safe(safe(text)) == safe(text)
