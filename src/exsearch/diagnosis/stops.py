"""Stops: whether a trajectory ended too early or too late, and which of its searches helped.

Names are those of `docs/diagnosis.md`, which defines them.
"""

from __future__ import annotations

from collections.abc import Iterator

from exsearch.diagnosis.needs import answer_recorded, needs, open_answers
from exsearch.diagnosis.reach import Case, Reach
from exsearch.records import StopReason, Trajectory

REAL = (Reach.SAMPLE, Reach.SUB_QUESTION)  # not a bound


def stops(case: Case) -> Iterator[tuple[str, float]]:
    """What a case has of `early_stop`, `over_search`, `search_helped` and `search_hurt`."""
    trajectory = case.trajectory
    if trajectory.stop_reason is StopReason.ANSWERED and (early := _early(case)) is not None:
        yield "early_stop", float(early)
    if (enough := steps_to_enough(trajectory)) is not None:
        yield "over_search", float(enough < len(trajectory.steps))
        yield "steps_too_many", float(len(trajectory.steps) - enough)
    for gain in trajectory.turn_gains[: len(trajectory.steps)]:
        yield "search_helped", float(gain > 0)
        yield "search_hurt", float(gain < 0)


def _early(case: Case) -> bool | None:
    """Whether it stopped without what it could have found; None where that is not known."""
    if not case.trajectory.question.supporting:
        return None
    if answer_recorded(case.trajectory):
        return False
    lost = [reach for reach in case.reaches if reach is not None]
    if any(reach in REAL for reach in lost):
        return True
    return None if Reach.UNKNOWN in lost else False


def steps_to_enough(trajectory: Trajectory) -> int | None:
    """The number of searches after which nothing more was needed; None where that never was.

    That is when a record holds an open answer, and for other questions when every need was found.
    """
    steps = trajectory.steps
    if open_answers(trajectory.question):
        return next((n for n in range(1, len(steps) + 1) if answer_recorded(trajectory, n)), None)
    wanted = list(needs(trajectory.question))
    if not wanted:
        return None
    for n, step in enumerate(steps, start=1):
        wanted = [need for need in wanted if not any(map(need.said_by, step.passages))]
        if not wanted:
            return n
    return None


def gains_by_step(trajectory: Trajectory) -> Iterator[tuple[str, float]]:
    """The gain of each search in nats, by its number from 1."""
    for number, gain in enumerate(trajectory.turn_gains[: len(trajectory.steps)], start=1):
        yield str(number), gain
