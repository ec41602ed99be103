"""A diagnosis of places: the rates of each part, its loss budget and cost, and a run's rounds.

It reads files and searches; what a rate means stands in `docs/diagnosis.md`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exsearch.diagnosis.alarms import alarms
from exsearch.diagnosis.drift import drift, lost_by
from exsearch.diagnosis.loss import Cause, budget, cause
from exsearch.diagnosis.parts import Kind, Part, Tokens, is_run, read_parts
from exsearch.diagnosis.rates import Rates, Values
from exsearch.diagnosis.reach import Case, Reached, reach_all
from exsearch.diagnosis.rounds import behaviour, rounds
from exsearch.diagnosis.spread import spread
from exsearch.diagnosis.stops import gains_by_step, stops
from exsearch.errors import RunError
from exsearch.evaluation.evaluate import SUMMARY_FILE
from exsearch.evaluation.groups import Group, group_of
from exsearch.json_files import read_json
from exsearch.progress import Bars
from exsearch.retrievers.base import Retriever
from exsearch.training.stages import METRICS_FILE

SIGNATURES: dict[str, Callable[[Case], Values]] = {
    "stops": stops,
    "spread": spread,
    "drift": drift,
    "lost_by": lost_by,
}


def diagnose(
    places: Sequence[Path], retriever: Retriever | None = None, *, bars: Bars | None = None
) -> dict[str, Any]:
    """What went wrong in the trajectories of some places.

    Args:
        places: The folders of runs and evaluations, or files of trajectories. Trajectories of one
            question are samples of one another, wherever they stand.
        retriever: The retriever that they searched with, for searches of the diagnosis's own; None
            makes none, and leaves open what better queries would find.
        bars: Opens the progress bars; None shows none.

    Returns:
        `{"searches", "failed_searches", "seconds_a_search", "parts", "runs"}`. A part has its
        `place`, `stage`, `kind`, `method` and `trajectories` (the file), how many `samples` it has
        and how many of them `failed`; by signature its rates (`Rates.figures`): `stops`, `spread`,
        `drift`, `lost_by`, and `behaviour`; `gains` by the number of the search; its `budget` of
        all questions and of each group; and its `cost`. Each of `runs` has its `place`, its
        `rounds` and its `alarms`.

    Raises:
        RunError: a place is no run or evaluation.
        DataError: a place has no trajectory, or a file is damaged.
    """
    parts = [part for place in places for part in read_parts(place)]
    return diagnose_parts(parts, retriever, bars=bars)[0]


def diagnose_parts(
    parts: Sequence[Part], retriever: Retriever | None = None, *, bars: Bars | None = None
) -> tuple[dict[str, Any], list[list[Case]]]:
    """What went wrong in some parts, and the cases of each.

    Args:
        parts: The parts; those of a run are in their order.
        retriever: The retriever that they searched with; None makes no search.
        bars: Opens the progress bars; None shows none.

    Returns:
        What `diagnose` gives, and for each part its trajectories as cases.
    """
    bars = bars or Bars(False)
    trajectories = [sample.trajectory for part in parts for sample in part.samples]
    cases, reached = reach_all(trajectories, retriever, bars)
    found: list[dict[str, Any]] = []
    of: list[list[Case]] = []
    each = iter(cases)
    with bars.open("diagnose", len(cases), "trajectory") as bar:
        for part in parts:
            of.append([next(each) for _ in part.samples])
            found.append(_part(part, of[-1]))
            bar.update(len(part.samples))
    places = dict.fromkeys(part.place for part in parts)
    whole = {
        "searches": reached.searches,
        "failed_searches": reached.failed,
        "seconds_a_search": _seconds_a_search(reached),
        "parts": found,
        "runs": [_run(place, parts, found) for place in places if is_run(place)],
    }
    return whole, of


def _part(part: Part, cases: Sequence[Case]) -> dict[str, Any]:
    whole = [case for case in cases if not case.trajectory.stop_reason.is_error]
    figures = {name: _rates(whole, function) for name, function in SIGNATURES.items()}
    return {
        "place": str(part.place),
        "stage": part.stage,
        "kind": part.kind.value,
        "method": part.method,
        "trajectories": str(part.file),
        "questions": len({case.trajectory.question.id for case in cases}),
        "samples": len(cases),
        "failed": len(cases) - len(whole),
        **figures,
        "behaviour": behaviour(part.samples),
        "gains": _rates(whole, lambda case: gains_by_step(case.trajectory)),
        "budget": _budgets(whole),
        "cost": _cost(part),
    }


def _rates(cases: Sequence[Case], function: Callable[[Case], Values]) -> dict[str, Any]:
    rates = Rates()
    for case in cases:
        rates.add(case.trajectory, function(case))
    return rates.figures()


def _budgets(cases: Sequence[Case]) -> dict[str, Any]:
    """The loss budget of all questions, and of each group of them that has a wrong answer."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.trajectory.question.distinct_answers:
            groups["all"].append(case)
            groups[group_of(case.trajectory.question).value].append(case)
    return {
        name: _budget(groups[name])
        for name in ("all", *(group.value for group in Group))
        if name in groups
    }


def _budget(cases: Sequence[Case]) -> dict[str, Any]:
    causes = Counter(found for case in cases if (found := cause(case)) is not None)
    return {
        "answers": len(cases),
        "wrong": causes.total(),
        "counts": {each.value: causes[each] for each in Cause},
        "shares": _rates(cases, budget),
    }


def _cost(part: Part) -> dict[str, Any]:
    """Tokens of each action a trajectory, and the seconds of the whole where they are known."""
    rates = {action: Rates() for sample in part.samples for action in sample.tokens}
    for sample in part.samples:
        for action, own in rates.items():
            values = dataclasses.asdict(sample.tokens.get(action, Tokens(0, 0, 0))).items()
            own.add(sample.trajectory, ((name, float(value)) for name, value in values))
    seconds = None
    if (file := part.file.parent / SUMMARY_FILE).is_file() and part.kind is not Kind.SAMPLED:
        said = read_json(file, RunError).get("seconds")
        seconds = said if isinstance(said, int | float) else None
    searches = [len(sample.trajectory.steps) for sample in part.samples]
    return {
        "actions": {action: own.figures() for action, own in rates.items()},
        "searches": sum(searches) / len(searches),
        "seconds": seconds,
    }


def _seconds_a_search(reached: Reached) -> float | None:
    return reached.seconds / reached.searches if reached.searches else None


def _run(place: Path, parts: Sequence[Part], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [(p, f["behaviour"]) for p, f in zip(parts, found, strict=True) if p.place == place]
    try:
        stages = rounds([p for p, _ in own], [f for _, f in own], place)
        found_alarms = [dataclasses.asdict(alarm) for alarm in alarms(stages)]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        file = place / METRICS_FILE
        raise RunError(f"{file}: altered, it holds other figures ({error!r})") from error
    return {"place": str(place), "rounds": stages, "alarms": found_alarms}
