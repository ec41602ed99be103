"""Thresholds are compared by what they withhold of right answers and of unsupported ones."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from benchmarks.abstention import Answered, answered, chosen, read, row, withheld

from benchmarks import abstention
from exsearch.errors import DataError
from exsearch.records import (
    Call,
    CallKind,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    to_json,
)

PASSAGE = Passage("h", "Harbour", "Ada Fenwick built it.")


def trajectory(answer: str, probability: float, gold: str = "Ada Fenwick") -> Trajectory:
    """An answer whose confidence is `probability` where the passage says it."""
    call = Call(CallKind.ANSWER, (1,), (2,), (math.log(probability),))
    return Trajectory(
        Question("q", "Who built the harbour?", (gold,)),
        (Step("harbour", (PASSAGE,)),),
        (call,),
        answer,
        StopReason.ANSWERED if answer else StopReason.MALFORMED,
        answer_start=0 if answer else None,
    )


def test_confidences_are_told_apart_by_support_and_by_the_answer():
    having = [
        trajectory("Ada Fenwick", 0.5),
        trajectory("Ada Fenwick", 0.25),
        trajectory("Ada Fenwick", 0.75, gold="Bea Marlow"),
        trajectory("", 0.5),
    ]
    found = answered(having, [trajectory("Bea Marlow", 0.5), trajectory("Ada Fenwick", 0.125)])
    assert found.right == pytest.approx([0.25, 0.5])
    assert found.wrong == pytest.approx([-1.0, 0.75])
    assert found.without == pytest.approx([0.0, 0.125])


def test_shares_withheld():
    found = Answered(without=[-1.0, 0.0, 0.2, 0.4], right=[0.1, 0.3, 0.4, 0.8], wrong=[])
    assert row(found, 0.3) == {"threshold": 0.3, "without": 0.75, "right": 0.25, "wrong": None}
    assert withheld([-1.0, 0.0], 0.0) == 0.5  # nothing was answered: that can't be told either
    assert withheld([0.5], 0.5) == 0.0


def test_the_threshold_spares_nine_in_ten_right_answers():
    right = [n / 10 for n in range(1, 11)]
    found = chosen(Answered(without=[0.05] * 19 + [0.9], right=right, wrong=[]))
    assert found == {
        "threshold": 0.2, "without": 0.95, "right": 0.1, "wrong": None, "reached": True
    }  # fmt: skip
    few = chosen(Answered(without=[0.05, 0.4], right=[0.1, 0.3], wrong=[]))
    assert (few["threshold"], few["right"], few["without"], few["reached"]) == (0.1, 0, 0.5, False)
    with pytest.raises(DataError, match="no answer with support is right"):
        chosen(Answered([0.1], [], [0.1]))


def test_it_reads_what_evaluations_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "with").mkdir()
    having, without = tmp_path / "with" / "trajectories.jsonl", tmp_path / "without.jsonl"
    having.write_text(to_json(trajectory("Ada Fenwick", 0.5)) + "\n")
    without.write_text(to_json(trajectory("Bea Marlow", 0.5)) + "\n")
    args = ["--with", str(having.parent), "--without", str(without), "--json"]
    monkeypatch.setattr(sys, "argv", ["abstention", *args])
    abstention.main()
    printed = capsys.readouterr().out
    assert "10% of the right answers: reached" in printed
    found = json.loads(printed.splitlines()[-1])
    assert found["counts"] == {"without": 1, "right": 1, "wrong": 0}
    assert found["chosen"]["threshold"] == pytest.approx(0.5)
    with pytest.raises(DataError, match="can't be read"):
        read([tmp_path / "none"])
