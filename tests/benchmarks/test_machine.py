"""The ceiling is measured and shown; a report's last line is JSON."""

from __future__ import annotations

import json

from benchmarks.machine import Ceilings, facts, peak_bytes
from benchmarks.report import finish, interleaved, spread, table


def test_a_ceiling_has_all_three_rates():
    ceilings = Ceilings(size=32, array_bytes=2**12)
    ceilings.measure()
    ceilings.measure()
    assert min(ceilings.ceiling.flops, ceilings.ceiling.read, ceilings.ceiling.copy) > 0
    assert len(ceilings.figures()["gemm_gflops"]["runs"]) == 2
    assert facts()["threads"] >= 1
    assert peak_bytes() > 10_000_000


def test_systems_take_turns():
    order = []
    seconds = interleaved(
        {"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0},
        2,
        lambda: order.append("-"),
    )
    assert "".join(order) == "-ab-ab-"
    assert seconds == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_a_report_is_a_table_then_json(capsys):
    figures = {"rate": spread([3.0, 1.0, 2.0]), "n": 1234}
    table("Title", list(figures.items()))
    finish(figures, as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["rate", "2", "(1", "to", "3,", "3", "runs)"]
    assert lines[3].split() == ["n", "1,234"]
    assert json.loads(lines[-1])["rate"]["median"] == 2.0
