"""The tables of a report as plain values; figures are triples of a value and its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exsearch.errors import ConfigError
from exsearch.evaluation.audit import FIGURES
from exsearch.evaluation.compare import holm
from exsearch.evaluation.metrics import all_metrics
from exsearch.evaluation.score import compare_values
from exsearch.report.sheets import Row, guesses
from exsearch.show.diagnosis import TABLES

Figure = list[float]


def by_group(figures: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a table needs of an evaluation's figures, by group; empty stands for all questions."""
    names = [metric.name for metric in all_metrics()]
    groups = {"": figures, **figures.get("groups", {})}
    return {
        group: {"n": own["n"], **{name: f for name in names if (f := figure(own, name))}}
        for group, own in groups.items()
    }


def figure(figures: Mapping[str, Any], name: str) -> Figure | None:
    """A value with its interval; None where there is none."""
    value, interval = figures.get(name), figures.get("ci95", {}).get(name)
    return None if value is None or interval is None else [value, *interval]


def main_table(rows: Sequence[Row], numbers: Mapping[int, int]) -> dict[str, Any]:
    """The main table: for each row and part the figures, and the sheets behind them.

    Args:
        rows: The rows.
        numbers: The number of each sheet, by the `id` of the sheet.
    """
    parts = list(dict.fromkeys(sheet.part for row in rows for sheet in row.sheets))
    shown = [
        {
            "name": row.name,
            "all": {"sheets": [numbers[id(s)] for s in row.sheets], "by": by_group(row.figures)},
            "cells": {
                s.part: {"sheets": [numbers[id(s)]], "by": by_group(s.figures)} for s in row.sheets
            },
            **cost(row),
        }
        for row in rows
    ]
    rule = {"all": {"by": by_group_of_rule(rows, None)}}
    rule["cells"] = {part: {"by": by_group_of_rule(rows, part)} for part in parts}
    return {"parts": parts, "rows": shown, "guess": rule}


def by_group_of_rule(rows: Sequence[Row], part: str | None) -> dict[str, dict[str, Any]]:
    """As `by_group`, of the rule that asks no model."""
    return {
        group: {"n": own["n"], "em": figure(own, "em")}
        for group, own in guesses(rows, part).items()
        if own["em"] is not None
    }


def cost(row: Row) -> dict[str, float]:
    """What a question took on the mean."""
    own = row.figures
    tokens = own.get("prompt_tokens", 0) + own.get("output_tokens", 0)
    return {"tokens": tokens / own["n"], "searches": own.get("steps") or 0.0}


def compared(
    rows: Sequence[Row], base: str, metric: str, group: str | None
) -> list[dict[str, Any]]:
    """How much better each row is than one of them, on the questions that both have.

    Args:
        rows: The rows.
        base: The name of the row that the others are compared with.
        metric: The name of the metric.
        group: The group of questions; None takes all.

    Returns:
        What `compare_values` gives for each other row that has a question in common with it, with
        its `name`, the number `n` of questions and `p_holm` over all of them.

    Raises:
        ConfigError: no row is called so.
    """
    of = {row.name: row.values for row in rows}
    if base not in of:
        raise ConfigError(f"no row is called {base!r}; there are {', '.join(of)}")
    found: list[dict[str, Any]] = []
    for name, values in of.items():
        both = [
            key
            for key, own in values.items()
            if name != base
            and key in of[base]
            and group in (None, own["group"])
            and None not in (own.get(metric), of[base][key].get(metric))
        ]
        if both:
            ours, theirs = ([float(v[key][metric]) for key in both] for v in (values, of[base]))
            found.append({"name": name, "n": len(both), **compare_values(ours, theirs)})
    adjusted = holm([one["p"] for one in found])
    return [{**one, "p_holm": p} for one, p in zip(found, adjusted, strict=True)]


def audit_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What the corpus holds for the questions of each part, as the first row that knows has it."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for sheet in (sheet for row in rows for sheet in row.sheets):
        for group, own in sheet.figures.get("audit", {}).items():
            figures = {name: figure(own, name) for name in FIGURES}
            line = {"part": sheet.part, "group": group, "n": own["n"], **figures}
            lines.setdefault((sheet.part, group), line)
    return list(lines.values())


def diagnosis_tables(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rates of a diagnosis, a column a part, and the budget of wrong answers before them."""
    tables = [t for group in ("all", "neither") if (t := _budget(parts, group))["lines"]]
    for name, (title, labels) in TABLES.items():
        lines = list(_lines([part[name] for part in parts], labels))
        tables += [{"title": title, "lines": lines}] if lines else []
    numbers = sorted({number for part in parts for number in part["gains"]}, key=int)
    gains = [part["gains"] for part in parts]
    labels = {number: f"search {number}" for number in numbers}
    if lines := list(_lines(gains, labels)):
        tables.append({"title": "gain of each search, nats", "lines": lines})
    return tables


def _budget(parts: Sequence[Mapping[str, Any]], group: str) -> dict[str, Any]:
    own = [part["budget"].get(group) for part in parts]
    names = dict.fromkeys(name for each in own if each for name in each["shares"])
    shares = [each["shares"] if each else {} for each in own]
    wrong = [each and each["wrong"] for each in own]
    lines = [
        {**line, "cause": name if name != "bound" else None, "group": group}
        for name in names
        for line in _lines(
            shares, {name: "query or stop by a bound %" if name == "bound" else f"{name} %"}
        )
        if any(cell and cell["figure"][0] for cell in line["cells"])
    ]
    of = "all questions" if group == "all" else f"group {group}"
    return {"title": f"of 100 wrong answers, {of}", "lines": lines, "wrong": wrong}


def _lines(
    rates: Sequence[Mapping[str, Any]], labels: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for name, label in labels.items():
        if any(name in own for own in rates):
            cells = [(rate := own.get(name)) and _cell(rate) for own in rates]
            yield {"label": label.strip(" %"), "share": "%" in label, "cells": cells}


def _cell(rate: Mapping[str, Any]) -> dict[str, Any]:
    figure = [rate["value"], *rate["ci95"]]
    return {"figure": figure, "n": rate["n"], "examples": rate["examples"]}
