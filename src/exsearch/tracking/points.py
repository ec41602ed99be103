"""Points are what a tracker draws: a journal's figures by name, each at its place on an axis.

A figure of a whole stage stands at the stage's number, one of an optimizer step at the number of
that step, counted over all stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

STAGE, STEP = "stage", "optimizer_step"
_NOT_FIGURES = ("stage", "event", "step", "time", "optimizer_steps", "resumed_at_step")


@dataclasses.dataclass(frozen=True)
class Point:
    """Some figures at one place.

    Attributes:
        axis: The name of the axis: `stage` or `optimizer_step`.
        at: The place on it, from 0 for stages and from 1 for steps.
        values: The figures by their names, such as `dev/em`.
        time: Seconds since 1970 at which they were measured.
    """

    axis: str
    at: int
    values: Mapping[str, float]
    time: float


class Points:
    """Makes points of a run's events, which come in their order."""

    def __init__(self) -> None:
        self._stages: dict[str, int] = {}  # the steps that were taken before each
        self._taken = 0

    def of(self, event: Mapping[str, Any]) -> Point | None:
        """The point of an event of the journal; None where it has no figure."""
        before = self._stages.setdefault(event["stage"], self._taken)
        step = event.get("step")
        if isinstance(step, int):
            axis, at = STEP, before + step
            self._taken = max(self._taken, at)
        else:
            axis, at = STAGE, [*self._stages].index(event["stage"])
        kept = {key: value for key, value in event.items() if key not in _NOT_FIGURES}
        values = dict(_figures(kept, event["event"]))
        return Point(axis, at, values, float(event.get("time") or 0.0)) if values else None


def _figures(values: Mapping[str, Any], name: str) -> Iterator[tuple[str, float]]:
    """Numbers by name, those inside of others too; an interval becomes `_low` and `_high`."""
    for key, value in values.items():
        own = f"{name}/{key}".replace(" ", "_")
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int | float):
            yield own, float(value)
        elif isinstance(value, Mapping) and key == "ci95":
            for metric, interval in value.items():
                if isinstance(interval, list) and len(interval) == 2:
                    ends = zip(("low", "high"), interval, strict=True)
                    yield from _figures({f"{metric}_{end}": each for end, each in ends}, name)
        elif isinstance(value, Mapping):
            yield from _figures(value, own)
