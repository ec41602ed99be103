"""A rate is a mean over questions with its interval, and the trajectories that show what it counts.

A question may have several samples, and a sample several searches; they are alike. So a question
counts once, by the mean over its own. It does not know what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from exsearch.evaluation.significance import mean_interval
from exsearch.records import Trajectory

EXAMPLES = 5
Values = Iterable[tuple[str, float]]


class Rates:
    """The values of rates by their names, as they are counted."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}  # by name and question
        self._examples: dict[str, dict[str, str]] = {}  # a trajectory a question, by name

    def add(self, trajectory: Trajectory, values: Values) -> None:
        """Count what a trajectory has of some rates; what is not finite is passed over.

        Args:
            trajectory: The trajectory.
            values: Names with values; a name may come more than once. A value of 1 makes the
                trajectory an example.
        """
        question = trajectory.question.id
        for name, value in values:
            if not math.isfinite(value):
                continue
            self._values.setdefault(name, {}).setdefault(question, []).append(value)
            examples = self._examples.setdefault(name, {})
            if value == 1 and len(examples) < EXAMPLES:
                examples.setdefault(question, trajectory.id)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Each rate by its name, in the order in which the names came.

        Returns:
            `{"value", "ci95", "n", "of", "examples"}`: the mean with its interval, the number of
            questions that it is over, the number of values that they have together, and up to five
            trajectories of different questions.
        """
        return {
            name: {
                **rate([sum(own) / len(own) for own in questions.values()]),
                "of": sum(map(len, questions.values())),
                "examples": self._shown(name),
            }
            for name, questions in self._values.items()
        }

    def _shown(self, name: str) -> list[str]:
        """The examples of a rate; none of a mean of other values than 0 and 1."""
        values = (value for own in self._values[name].values() for value in own)
        return list(self._examples[name].values()) if all(v in (0, 1) for v in values) else []


def rate(values: list[float]) -> dict[str, Any]:
    """A mean with its 95 % interval and the number of values, of which there is one or more."""
    low, high = mean_interval(values)
    return {"value": sum(values) / len(values), "ci95": [low, high], "n": len(values)}


def difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """How much larger one rate is than another of other questions, with its 95 % interval.

    The interval is made of those of both (Zou and Donner 2008), so it holds for any kind of mean.
    """
    a, b = after["value"], before["value"]
    (a_low, a_high), (b_low, b_high) = after["ci95"], before["ci95"]
    low, high = math.hypot(a - a_low, b_high - b), math.hypot(a_high - a, b - b_low)
    return {"value": a - b, "ci95": [a - b - low, a - b + high]}
