"""A comparison sets several systems beside one on the questions that all of them answered.

A system may have been trained with several seeds: the mean over its seeds is then a question's
value. It reads evaluations' folders, and judges nothing anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from exsearch.errors import DataError, RunError
from exsearch.evaluation.evaluate import PREDICTIONS_FILE
from exsearch.evaluation.metrics import find_metric, with_todays_names
from exsearch.evaluation.results import RESULT_FILE, read_result
from exsearch.evaluation.score import compare_values
from exsearch.evaluation.significance import mean_interval
from exsearch.runs import read_jsonl


@dataclasses.dataclass(frozen=True)
class System:
    """What one system answered.

    Attributes:
        name: Its name in tables.
        seeds: For each seed the rows of its evaluation, by question id.
    """

    name: str
    seeds: tuple[dict[str, dict[str, Any]], ...]

    @classmethod
    def read(cls, folders: Sequence[Path]) -> System:
        """The system whose evaluations or results, one a seed, stand in some folders.

        Raises:
            RunError: a folder holds neither.
            DataError: a result is damaged.
        """
        seeds: list[dict[str, dict[str, Any]]] = []
        for folder in folders:
            if (folder / RESULT_FILE).is_file():
                rows = read_result(folder)
            elif (folder / PREDICTIONS_FILE).is_file():
                rows = read_jsonl(folder / PREDICTIONS_FILE, id=str)
            else:
                raise RunError(f"{folder}: no finished evaluation, it has no {PREDICTIONS_FILE}")
            seeds.append({row["id"]: with_todays_names(row) for row in rows})
        return cls(",".join(str(folder) for folder in folders), tuple(seeds))

    def values(self, ids: Sequence[str], name: str) -> list[float]:
        """A figure of each question: the mean over seeds."""
        return [fmean(float(seed[id_].get(name) or 0.0) for seed in self.seeds) for id_ in ids]


def compare_systems(
    systems: Sequence[System], metric: str = "em", group: str | None = None
) -> dict[str, Any]:
    """How much better the first system is than each of the others, question by question.

    Args:
        systems: Two or more; only questions that every seed of all of them answered count.
        metric: The name of the metric.
        group: The group of questions that counts (`groups.Group`); None takes all.

    Returns:
        `{"metric", "group", "n", "systems", "against"}`. Each of `systems` has its `name`, the mean
        of the metric with `ci95`, `seeds`, `seeds_sd` (None for one seed), and `tokens` and
        `seconds` a question. Each of `against` has the `name` of the other system and what
        `compare_values` gives, with `p_holm`: p of the whole family by Holm's rule.

    Raises:
        DataError: no question is common to all.
        ConfigError: no such metric.
    """
    name = find_metric(metric).name
    rows = [seed for system in systems for seed in system.seeds]
    ids = [
        id_
        for id_, row in rows[0].items()
        if all(id_ in seed and seed[id_].get(name) is not None for seed in rows)
        and group in (None, row.get("group"))
    ]
    if not ids:
        of = f"of the group {group!r} " if group else ""
        raise DataError(f"no question {of}is in all evaluations with a value of {name}")
    values = [system.values(ids, name) for system in systems]
    against = [
        {"name": other.name, **compare_values(values[0], theirs)}
        for other, theirs in zip(systems[1:], values[1:], strict=True)
    ]
    adjusted = holm([one["p"] for one in against])
    return {
        "metric": name,
        "group": group,
        "n": len(ids),
        "systems": [
            _figures(system, ids, own, name) for system, own in zip(systems, values, strict=True)
        ],
        "against": [{**one, "p_holm": p} for one, p in zip(against, adjusted, strict=True)],
    }


def _figures(
    system: System, ids: Sequence[str], values: Sequence[float], name: str
) -> dict[str, Any]:
    each = [fmean(float(seed[id_].get(name) or 0.0) for id_ in ids) for seed in system.seeds]

    def cost(row: Mapping[str, Any]) -> int:
        return row.get("prompt_tokens", 0) + row.get("output_tokens", 0)

    own = [seed[id_] for seed in system.seeds for id_ in ids]
    return {
        "name": system.name,
        name: fmean(values),
        "ci95": list(mean_interval(values)),
        "seeds": len(each),
        "seeds_sd": stdev(each) if len(each) > 1 else None,
        "tokens": fmean(cost(row) for row in own),
        "seconds": fmean(row.get("seconds", 0.0) for row in own),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for a whole family of comparisons (Holm 1979), in the given order.

    The least of m is multiplied by m, the next by m - 1, and so on; none is below the one before.
    """
    adjusted, most = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = most
    return adjusted
