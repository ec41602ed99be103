"""A report is built of rows and runs: its tables at once, and every question packed behind them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.diagnosis.diagnose import diagnose_parts
from exsearch.diagnosis.loss import cause
from exsearch.diagnosis.parts import Kind, Part, Sample, parts_so_far
from exsearch.diagnosis.reach import Case
from exsearch.errors import DataError
from exsearch.evaluation.evaluate import PREDICTIONS_FILE
from exsearch.evaluation.evaluate import row as row_of
from exsearch.evaluation.metrics import all_metrics, find_metric
from exsearch.progress import Bars
from exsearch.report.packing import Pack
from exsearch.report.sheets import Found, Row, Sheet
from exsearch.report.tables import (
    audit_table,
    by_group,
    compared,
    diagnosis_tables,
    main_table,
)
from exsearch.retrievers.base import Retriever
from exsearch.serving.traces import trace_of_trajectory
from exsearch.show.figures import folder_object

FORM = 1  # of a report's values


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        values: What it shows at once.
        pack: What it opens on demand.
    """

    values: dict[str, Any]
    pack: Pack


@dataclasses.dataclass(frozen=True)
class _Column:
    """Trajectories that are diagnosed together, with the sheets that they are of.

    Attributes:
        head: Its name.
        sheets: The sheets.
        part: The trajectories of those sheets that keep them, in their order; None where none does.
    """

    head: str
    sheets: tuple[Sheet, ...]
    part: Part | None


def build(
    found: Found,
    *,
    base: str | None = None,
    metric: str = "em",
    samples: int | None = None,
    retriever: Retriever | None = None,
    bars: Bars | None = None,
) -> Report:
    """The report of some rows and runs.

    Args:
        found: The rows and the runs.
        base: The name of the row that others are compared with; None takes the first.
        metric: The name of the metric of the figures and comparisons.
        samples: The most trajectories of a sheet that are packed, the first ones; None packs all.
        retriever: The retriever that was searched, for the diagnosis; None makes no search.
        bars: Opens the progress bars; None shows none.

    Raises:
        ExSearchError: something in a folder can't be read, or no row is called so.
    """
    bars = bars or Bars(False)
    metric = find_metric(metric).name
    rows = list(found.rows)
    base = base or next((row.name for row in rows), "")
    against = {g: compared(rows, base, metric, g or None) for g in ("", "neither") if rows}
    with bars.open("read", len(rows) + len(found.runs), "folder") as bar:
        columns: list[_Column] = []
        for row in rows:
            columns.append(_of_row(row))
            bar.update()
        for name, place in found.runs.items():
            columns += _of_run(name, place)
            bar.update()
    diagnosed = [column for column in columns if column.part]
    parts = [column.part for column in diagnosed if column.part]
    diagnosis, cases = diagnose_parts(parts, retriever, bars=bars)
    own_cases = iter(cases)
    pack, sheets = Pack(), [sheet for column in columns for sheet in column.sheets]
    numbers = {id(sheet): number for number, sheet in enumerate(sheets)}
    of_column = [next(own_cases) if column.part else [] for column in columns]
    _pack(pack, columns, of_column, samples, bars)
    of_rows = sum(1 for column in diagnosed if column.part and not column.part.stage)
    values = {
        "form": FORM,
        "metric": metric,
        "metrics": {each.name: each.label for each in all_metrics()},
        "sheets": [{"row": s.row, "part": s.part, "n": len(s.rows)} for s in sheets],
        "main": main_table(rows, numbers),
        "base": base,
        "compared": against,
        "training": _training(found.runs, diagnosis, columns, numbers),
        "diagnosis": [
            {"of": of, **_diagnosed(diagnosis["parts"][start:end], diagnosed[start:end], numbers)}
            for of, start, end in (("rows", 0, of_rows), ("stages", of_rows, None))
        ],
        "searched": diagnosis["searches"],
        "audit": audit_table(rows),
        "traces": pack.traces,
    }
    return Report(values, pack)


def _of_row(row: Row) -> _Column:
    """A row with the trajectories of its sheets."""
    kept = [sheet for sheet in row.sheets if sheet.file]
    samples: list[Sample] = []
    for sheet in kept:
        own = [sample for part in parts_so_far(sheet.folder) for sample in part.samples]
        if [s.trajectory.question.id for s in own] != [line["id"] for line in sheet.rows]:
            told = f"not the questions of {PREDICTIONS_FILE} beside it; evaluate anew"
            raise DataError(f"{told} into another folder", file=sheet.file)
        samples += own
    if not kept or not samples:
        return _Column(row.name, row.sheets, None)
    file, method = kept[0].file or kept[0].folder, samples[0].trajectory.method
    part = Part(kept[0].folder, "", Kind.EVALUATION, method, file, tuple(samples))
    return _Column(row.name, row.sheets, part)


def _of_run(name: str, place: Path) -> list[_Column]:
    """The rounds' samples and the stages' dev answers of a run."""
    metrics = all_metrics()
    columns: list[_Column] = []
    for part in parts_so_far(place):
        head = f"{part.stage} {part.kind.value}"
        lines = [row_of(sample.trajectory, metrics) for sample in part.samples]
        sheet = Sheet(name, head, part.file.parent, {}, lines, part.file)
        columns.append(_Column(f"{name} {head}", (sheet,), part))
    return columns


def _pack(
    pack: Pack,
    columns: Sequence[_Column],
    of_column: Sequence[Sequence[Case]],
    samples: int | None,
    bars: Bars,
) -> None:
    """Put in all questions, what each sheet answered, and the trajectories."""
    questions: dict[tuple[str, str], int] = {}
    texts: list[tuple[str, str, Sequence[str]]] = []
    number = 0
    with bars.open("pack", sum(map(len, of_column)), "trajectory") as bar:
        for column, cases in zip(columns, of_column, strict=True):
            each = iter(zip(column.part.samples if column.part else (), cases, strict=True))
            for sheet in column.sheets:
                own = list(itertools.islice(each, len(sheet.rows))) if sheet.file else []
                for key, line in zip(sheet.keys, sheet.rows, strict=True):
                    if key not in questions:
                        questions[key] = len(questions)
                        texts.append((*key, line.get("answers", ())))
                first = pack.traces
                for sample, case in own[:samples]:
                    pack.add_trace(_trace(sample, case))
                    bar.update()
                pack.add(
                    f"sheet-{number}",
                    {
                        "question": [questions[key] for key in sheet.keys],
                        "prediction": [line["prediction"] for line in sheet.rows],
                        "group": [line["group"] for line in sheet.rows],
                        "stop": [line["stop_reason"] for line in sheet.rows],
                        "cause": [cause(case) for _, case in own],
                        "id": [sample.trajectory.id for sample, _ in own],
                        "traces": [first, pack.traces],
                        "values": {
                            m.name: [_short(line.get(m.name)) for line in sheet.rows]
                            for m in all_metrics()
                        },
                    },
                )
                number += 1
    pack.add("questions", texts)
    pack.close()


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _trace(sample: Sample, case: Case) -> dict[str, Any]:
    """A trace as the page opens it, with what became of each need of its question."""
    trace = trace_of_trajectory(sample.trajectory)
    for name in ("form", "began", "events", "text"):  # nothing that a saved one has
        del trace[name]
    tokens = sample.tokens.values()
    needs = [
        {
            "query": fate.need.query,
            "says": " or ".join(fate.need.targets),
            "support": fate.need.support_id,
            "links": [fate.found, fate.shown, fate.recorded],
            "reach": reach and reach.value,
        }
        for fate, reach in zip(case.fates, case.reaches, strict=True)
    ]
    return {
        **trace,
        "tokens": {"prompt": sum(t.read for t in tokens), "output": sum(t.written for t in tokens)},
        "weight": sample.weight,
        "cause": cause(case),
        "needs": needs,
    }


def _diagnosed(
    parts: Sequence[Mapping[str, Any]], columns: Sequence[_Column], numbers: Mapping[int, int]
) -> dict[str, Any]:
    heads = [
        {"name": column.head, "sheets": [numbers[id(s)] for s in column.sheets], "samples": n}
        for column, n in ((c, part["samples"]) for c, part in zip(columns, parts, strict=True))
    ]
    return {"heads": heads, "tables": diagnosis_tables(parts)}


def _training(
    runs: Mapping[str, Path],
    diagnosis: Mapping[str, Any],
    columns: Sequence[_Column],
    numbers: Mapping[int, int],
) -> list[dict[str, Any]]:
    """The stages of each run: the journal's figures, the sheets behind them, and alarms."""
    sheets = {s.folder: numbers[id(s)] for column in columns for s in column.sheets}
    found = {run["place"]: run for run in diagnosis["runs"]}
    told: list[dict[str, Any]] = []
    for name, place in runs.items():
        journal = folder_object(place)
        alarms = found.get(str(place), {}).get("alarms", [])
        own = {"name": name, "finished": journal["finished"], "best": journal["best"]}
        stages = [_stage(stage, place, sheets) for stage in journal["stages"]]
        told.append({**own, "alarms": alarms, "stages": stages})
    return told


def _stage(stage: Mapping[str, Any], place: Path, sheets: Mapping[Path, int]) -> dict[str, Any]:
    folder, dev = place / stage["stage"], stage.get("dev")
    e_step, objective = stage.get("e_step", {}), stage.get("objective", {})
    return {
        "stage": stage["stage"],
        "dev": by_group(dev) if dev else None,
        "dev_sheet": sheets.get(folder / "dev"),
        "sampled_sheet": sheets.get(folder),
        "sampled": {name: e_step.get(name) for name in ("em", "f1", "objective")},
        "objective_error": e_step.get("objective_standard_error"),
        "effective_samples": e_step.get("effective_sample_size"),
        "probe": objective.get("mean"),
        "hopeless": stage.get("m_step", {}).get("hopeless") if e_step else None,
        "questions": e_step.get("questions"),
        "loss": stage.get("step", {}).get("loss"),
    }
