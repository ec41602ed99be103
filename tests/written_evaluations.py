"""Evaluations as `exsearch evaluate` leaves them, of trajectories that a test made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from planted import World, asks_badly, does_not_record, good

from exsearch.evaluation.evaluate import PREDICTIONS_FILE, SUMMARY_FILE, row, summarise
from exsearch.evaluation.metrics import all_metrics
from exsearch.records import Trajectory, WeightedTrajectory
from exsearch.training.stages import METRICS_FILE
from exsearch.trajectories import TRAJECTORIES_FILE, to_lines

MARKUP = "</script><img src=x onerror=\"document.title='forged'\"> {{script}} $x_1$"


def write_evaluation(folder: Path, trajectories: Sequence[Trajectory]) -> None:
    """Write an evaluation of these trajectories."""
    folder.mkdir(parents=True)
    rows = [row(trajectory, all_metrics()) for trajectory in trajectories]
    lines = {TRAJECTORIES_FILE: to_lines(trajectories), PREDICTIONS_FILE: map(json.dumps, rows)}
    for name, own in lines.items():
        text = "".join(f"{line}\n" for line in own)
        (folder / name).write_text(text, encoding="utf-8")
    summary = summarise(rows, all_metrics()) | {"rules": "kilt", "seconds": 1.0}
    (folder / SUMMARY_FILE).write_text(json.dumps(summary), encoding="utf-8")


def write_run(folder: Path, tales: int = 8) -> Path:
    """A training run of one round: dev answers before and after it, and what it sampled."""
    world, events = World(tales), []
    for stage, kinds in (("start", [does_not_record]), ("iteration-01", [good, does_not_record])):
        made = [kinds[n % len(kinds)](world, tale) for n, tale in enumerate(world.tales)]
        write_evaluation(folder / stage / "dev", made)
        figures = json.loads((folder / stage / "dev" / SUMMARY_FILE).read_text())
        events.append({"stage": stage, "event": "dev", **figures})
    sampled = [WeightedTrajectory(good(world, tale), 1.0, (-2.0,), ((5,),)) for tale in world.tales]
    text = "".join(f"{line}\n" for line in to_lines(sampled))
    (folder / "iteration-01" / TRAJECTORIES_FILE).write_text(text, encoding="utf-8")
    e_step = {"questions": tales, "em": 1.0, "f1": 1.0, "objective": -2.0}
    e_step |= {"objective_standard_error": 0.5, "effective_sample_size": 1.0}
    events.insert(1, {"stage": "iteration-01", "event": "e_step", **e_step})
    lines = "".join(json.dumps({"time": float(n), **each}) + "\n" for n, each in enumerate(events))
    (folder / METRICS_FILE).write_text(lines, encoding="utf-8")
    return folder


def scored(trajectory: Trajectory) -> Trajectory:
    """A trajectory with turn scores, which rise with the first search and fall with the second."""
    return dataclasses.replace(trajectory, turn_scores=(-9.0, -5.0, -7.5))


def write_systems(folder: Path, tales: int = 12) -> list[Path]:
    """Two evaluations over two files of questions each, the second of which is worse.

    A question and a passage of the first file hold markup.
    """
    world = World(2 * tales)
    first, second = world.tales[:tales], world.tales[tales:]
    marked = dataclasses.replace(first[0].question, question=f"Where? {MARKUP}")
    place = dataclasses.replace(
        first[0].place, title=MARKUP, text=f"{first[0].place.text} {MARKUP}"
    )
    first[0] = dataclasses.replace(first[0], question=marked, place=place)
    errs = [good, does_not_record, asks_badly]
    for name, of in (("good.0", [good]), ("bad.0", errs)):
        for part, own in (("rivers", first), ("towns", second)):
            made = [scored(of[n % len(of)](world, tale)) for n, tale in enumerate(own)]
            write_evaluation(folder / name / part, made)
    return [folder / "good.0", folder / "bad.0"]
