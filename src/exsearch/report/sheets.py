"""Sheets are read from what `train`, `evaluate` and `experiment` left behind.

They hold the figures as those commands wrote them, so that a report can't say anything else.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.diagnosis.parts import is_run
from exsearch.errors import RunError
from exsearch.evaluation.evaluate import PREDICTIONS_FILE, SUMMARY_FILE, summarise
from exsearch.evaluation.metrics import all_metrics, with_todays_names
from exsearch.evaluation.results import RESULT_FILE, read_result
from exsearch.evaluation.significance import mean_figures
from exsearch.json_files import read_json
from exsearch.runs import read_jsonl
from exsearch.trajectories import TRAJECTORIES_FILE

logger = logging.getLogger(__name__)
_DEPTH = 3  # folders below a place that are looked into
_FIELDS = {"id": str, "prediction": str, "group": str, "stop_reason": str}


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The questions of one evaluation, and what was answered.

    Attributes:
        row: The name of its row.
        part: The name of its part; empty where there is one alone.
        folder: The folder that it was read from.
        figures: What `evaluate` says of it.
        rows: A line of values for each question (`evaluate.row`).
        file: The file of its trajectories, in the same order; None where they are not kept.
    """

    row: str
    part: str
    folder: Path
    figures: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    file: Path | None = None

    @property
    def keys(self) -> list[tuple[str, str]]:
        """What tells its questions apart from those of other sheets."""
        return [(row["id"], row.get("question", "")) for row in self.rows]


@dataclasses.dataclass(frozen=True)
class Row:
    """The sheets of one method or model.

    Attributes:
        name: The name of the row.
        sheets: Its sheets, in the order of their parts.
        figures: The figures of all sheets together.
    """

    name: str
    sheets: tuple[Sheet, ...]
    figures: Mapping[str, Any]

    @property
    def values(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """The line of values of each question of all sheets."""
        return {k: row for s in self.sheets for k, row in zip(s.keys, s.rows, strict=True)}


@dataclasses.dataclass(frozen=True)
class Found:
    """What stands in some places.

    Attributes:
        rows: The rows, in the order of the places.
        runs: The folders of training runs by their names.
    """

    rows: tuple[Row, ...]
    runs: Mapping[str, Path]


def find(places: Sequence[Path]) -> Found:
    """The evaluations, results and runs at some places or in folders below them.

    Args:
        places: Folders.

    Raises:
        RunError: a place has none, or one of them is damaged.
    """
    sheets: dict[Path, Sheet] = {}
    whole: dict[str, Mapping[str, Any]] = {}  # figures of a row that stand in a result
    runs: dict[str, Path] = {}
    for place in places:
        if not place.is_dir():
            raise RunError(f"{place}: no such folder; name what `train` or `evaluate` wrote")
        before = len(sheets) + len(runs)
        for name, part, folder in _below(place, place.resolve().name, "", _DEPTH):
            if is_run(folder):
                runs[_free(name, runs, folder)] = folder
            elif (folder / RESULT_FILE).is_file():
                own, whole[name] = _result(name, folder)
                sheets |= {folder / sheet.part: sheet for sheet in own}
            else:
                sheets.setdefault(folder.resolve(), read_evaluation(name, part, folder))
        if len(sheets) + len(runs) == before and place.resolve() not in sheets:
            raise RunError(f"{place}: nothing evaluated in it, and no run")
    return Found(_rows(_with_texts([*sheets.values()]), whole), runs)


def _below(place: Path, name: str, part: str, depth: int) -> Iterator[tuple[str, str, Path]]:
    """The folders that hold something, each with the names of its row and its part."""
    known = (SUMMARY_FILE, RESULT_FILE)
    if is_run(place) or any((place / file).is_file() for file in known):
        yield name, part, place
    elif (place / TRAJECTORIES_FILE).is_file():
        logger.warning("%s: not finished, and left out; `evaluate` goes on with it", place)
    elif depth:
        for folder in sorted(each for each in place.iterdir() if each.is_dir()):
            ends = is_run(folder) or (folder / SUMMARY_FILE).is_file()
            own = name if ends and (folder.name == "run" or not is_run(folder)) else folder.name
            yield from _below(folder, own, folder.name if ends else "", depth - 1)


def _free(name: str, taken: Mapping[str, Any], folder: Path) -> str:
    return name if taken.get(name, folder) == folder else str(folder)


def read_evaluation(name: str, part: str, folder: Path) -> Sheet:
    """The sheet of an evaluation.

    Args:
        name: The name of its row.
        part: The name of its part.
        folder: Its folder.

    Raises:
        RunError: its files can't be read, or are not of the same questions.
    """
    figures = with_todays_names(read_json(folder / SUMMARY_FILE, RunError, n=int, em=float))
    rows = list(read_jsonl(folder / PREDICTIONS_FILE, question=str, **_FIELDS))
    if len(rows) != figures["n"]:
        raise RunError(
            f"{folder}: damaged, {SUMMARY_FILE} has {figures['n']} questions and "
            f"{PREDICTIONS_FILE} {len(rows)}; evaluate anew into another folder"
        )
    file = folder / TRAJECTORIES_FILE
    named = [with_todays_names(row) for row in rows]
    return Sheet(name, part, folder, figures, named, file if file.is_file() else None)


def _result(name: str, folder: Path) -> tuple[list[Sheet], Mapping[str, Any]]:
    """The sheets of an experiment's result, which has no texts, and the figures of all of them."""
    figures = read_json(folder / RESULT_FILE, RunError, figures=dict)["figures"]
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_result(folder):
        rows.setdefault(row["part"], []).append(row)
    if missing := rows.keys() - figures.keys():
        raise RunError(f"{folder / RESULT_FILE}: damaged, it has no figures of {missing.pop()!r}")
    return [Sheet(name, p, folder, figures[p], own) for p, own in rows.items()], figures["all"]


def _with_texts(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Results have no texts: a question of theirs is told by the evaluation that asked it, too."""
    texts = {
        f"{sheet.part}/{row['id']}": {"id": row["id"], "question": row["question"]}
        for sheet in sheets
        for row in sheet.rows
        if "question" in row
    }
    return [
        dataclasses.replace(sheet, rows=[{**row, **texts.get(row["id"], {})} for row in sheet.rows])
        for sheet in sheets
    ]


def _rows(sheets: Sequence[Sheet], whole: Mapping[str, Mapping[str, Any]]) -> tuple[Row, ...]:
    """Sheets in rows; those of one folder that asked the same questions are rows of their own."""
    groups: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        groups.setdefault(sheet.row, []).append(sheet)
    rows: dict[str, list[Sheet]] = {}
    for name, own in groups.items():
        keys = [key for sheet in own for key in sheet.keys]
        if len(set(keys)) == len(keys):
            rows[name] = own
            continue
        for sheet in own:
            alone = f"{name}/{sheet.part}" if sheet.part else str(sheet.folder)
            rows[alone] = [dataclasses.replace(sheet, row=alone, part="")]
    return tuple(
        Row(name, tuple(own), whole.get(name) or _together(own)) for name, own in rows.items()
    )


def _together(sheets: Sequence[Sheet]) -> Mapping[str, Any]:
    if len(sheets) == 1:
        return sheets[0].figures
    return summarise([dict(row) for sheet in sheets for row in sheet.rows], all_metrics())


def guesses(rows: Sequence[Row], part: str | None) -> dict[str, dict[str, Any]]:
    """What the rule `guess` gets, which asks no model, by group; empty stands for all questions.

    Args:
        rows: The rows, whose questions are all asked.
        part: The part; None takes all.
    """
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for sheet in (sheet for row in rows for sheet in row.sheets):
        if part in (None, sheet.part):
            known = {**dict(zip(sheet.keys, sheet.rows, strict=True)), **known}
    groups: dict[str, list[float | None]] = {"": []}
    for row in known.values():
        for name in ("", row["group"]):
            groups.setdefault(name, []).append(row.get("guess"))
    return {
        name: {"n": len(own), **mean_figures({"em": own})} for name, own in groups.items() if own
    }
