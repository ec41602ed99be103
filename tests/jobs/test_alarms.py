"""An alarm is one line in the log of a training run whose round was built with a collapse."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from exsearch.jobs.alarms import ring
from exsearch.records import Passage, Question, Step, StopReason, Trajectory
from exsearch.trajectories import to_lines

PASSAGE = Passage("p", "Wexcombe", "Wexcombe is a town.")


def write_round(run: Path, number: int, *, collapsed: bool) -> None:
    """A round of 40 questions with 4 samples each, which all ask the same where it collapsed."""
    traces = [
        Trajectory(
            Question(f"q{n}", f"Which town is number {n}?", ("Wexcombe",)),
            (Step("town" if collapsed else f"town place{sample}", (PASSAGE,)),),
            (),
            "Wexcombe",
            StopReason.ANSWERED,
            iteration=number,
            sample=sample,
        )
        for n in range(40)
        for sample in range(4)
    ]
    folder = run / f"iteration-{number:02}"
    folder.mkdir(parents=True)
    text = "".join(f"{line}\n" for line in to_lines(traces))
    (folder / "trajectories.jsonl").write_text(text, encoding="utf-8")
    (run / "metrics.jsonl").touch()


@pytest.fixture
def rung(caplog: pytest.LogCaptureFixture):
    """What is said of a stage of a run."""

    def said(run: Path, stage: str) -> list[str]:
        caplog.clear()
        ring(run, stage)
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        return [record.getMessage() for record in caplog.records]

    return said


def test_a_planted_collapse_is_one_line_with_what_to_try(tmp_path, rung):
    write_round(tmp_path, 1, collapsed=False)
    assert rung(tmp_path, "iteration-01") == []
    write_round(tmp_path, 2, collapsed=True)
    (line,) = rung(tmp_path, "iteration-02")
    assert line.startswith("iteration-02: queries repeat, 1.000 -> 0.250; raise e_step.temperature")
    assert "\n" not in line
    assert rung(tmp_path, "iteration-01") == []  # a resumed run does not say it of older rounds


def test_a_run_without_a_collapse_is_quiet(tmp_path, rung):
    for number in (1, 2, 3):
        write_round(tmp_path, number, collapsed=False)
        assert rung(tmp_path, f"iteration-{number:02}") == []


def test_what_can_not_be_read_stops_no_training(tmp_path, rung):
    write_round(tmp_path, 1, collapsed=False)
    (tmp_path / "iteration-01" / "trajectories.jsonl").write_text("{}\n", encoding="utf-8")
    (line,) = rung(tmp_path, "iteration-01")
    assert "alarms can't be looked for" in line and "trajectories.jsonl:1" in line
