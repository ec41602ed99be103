"""A round's figures say whether training still helps: overfitting, collapse, weights, objective.

They are worked out from trajectories and from the run's journal. What is too much, `alarms` says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.agent.citations import claims
from exsearch.agent.shown import analyser
from exsearch.diagnosis.needs import is_right, open_answers
from exsearch.diagnosis.parts import Kind, Part, Sample
from exsearch.diagnosis.rates import Rates, difference
from exsearch.evaluation.groups import group_of
from exsearch.evaluation.metrics import exact_match, f1
from exsearch.evaluation.significance import mean_interval
from exsearch.methods.guess import guess
from exsearch.runs import read_jsonl
from exsearch.training.stages import METRICS_FILE
from exsearch.training.weights import effective_sample_size, question_objective

BINS = 10  # of the histogram of weights
Figures = dict[str, dict[str, Any]]


def behaviour(samples: Iterable[Sample]) -> Figures:
    """Answers, queries, entropy and weights of a part's trajectories (`Rates.figures`)."""
    rates = Rates()
    by_question: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if not sample.trajectory.stop_reason.is_error:
            rates.add(sample.trajectory, _of_one(sample))
            by_question[sample.trajectory.question.id].append(sample)
    for own in by_question.values():
        rates.add(own[0].trajectory, _of_question(own))
    return rates.figures()


def _of_one(sample: Sample) -> Iterator[tuple[str, float]]:
    trajectory = sample.trajectory
    question, answer = trajectory.question, trajectory.answer
    if question.distinct_answers:
        yield "em", float(is_right(trajectory))
        yield "f1", f1(answer, question.answers)
    if answer:
        yield "answer_words", float(len(answer.split()))
        rule = guess(question.question)
        yield "guessed", exact_match(answer, [rule]) if rule else 0.0
        if open_answers(question):
            yield "unfounded", float(not claims(trajectory)[-1].supported)
    if sample.surprise is not None:
        yield "surprise", sample.surprise


def _of_question(samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    words = analyser().words
    queries = [frozenset(words(s.query)) for each in samples for s in each.trajectory.steps]
    if len(queries) > 1:
        yield "distinct_queries", len(set(queries)) / len(queries)
    weights = [each.weight for each in samples if each.weight is not None]
    joints = [each.log_joint for each in samples if each.log_joint is not None]
    if len(weights) > 1 and min(weights) >= 0 and any(weights):
        yield "effective_samples", effective_sample_size(weights) / len(weights)
    if joints:
        yield "objective", question_objective(joints)


def histogram(samples: Iterable[Sample]) -> list[int] | None:
    """How many weights lie in each tenth from 0 to 1; None where there are none, or others."""
    weights = [each.weight for each in samples if each.weight is not None]
    if not weights or min(weights) < 0 or max(weights) > 1 + 1e-9:
        return None
    counts = [0] * BINS
    for weight in weights:
        counts[min(BINS - 1, int(weight * BINS))] += 1
    return counts


def rounds(parts: Sequence[Part], figures: Sequence[Figures], place: Path) -> list[dict[str, Any]]:
    """The stages of a run, each with what it was sampled from, left behind, and cost.

    Args:
        parts: The parts of the run, in their order.
        figures: What `behaviour` gives for each.
        place: The folder of the run.

    Returns:
        For each stage its `stage`; `sampled` and `dev`, the figures of each, or None; the `gap` of
        EM and F1 between its samples and dev, both by the model before it; `weights`, the
        histogram; `hopeless`, the share of questions that the M-step left out for it; `journal`,
        what it says of objective, loss and seconds; and `dev_by`, EM by group and data set.
    """
    events: dict[str, dict[str, Any]] = defaultdict(dict)
    for event in read_jsonl(place / METRICS_FILE, stage=str, event=str):
        events[event["stage"]][event["event"]] = event
    stages: dict[str, dict[str, Any]] = {}
    trained = {
        each.trajectory.question.dataset
        for part in parts
        for each in part.samples
        if part.kind is Kind.SAMPLED
    }
    before: Figures | None = None
    for part, own in zip(parts, figures, strict=True):
        new = {"stage": part.stage, "sampled": None, "dev": None, "gap": {}, "weights": None}
        stage = stages.setdefault(part.stage, {**new, "dev_by": {}})
        stage[part.kind.value] = own
        if part.kind is Kind.SAMPLED:
            stage["weights"] = histogram(part.samples)
            if before:
                both = [name for name in ("em", "f1") if name in own and name in before]
                stage["gap"] = {name: difference(own[name], before[name]) for name in both}
        else:
            before = own
            stage["dev_by"] = _by_kind_of_question(part, trained)
    return [
        {**stage, "hopeless": _hopeless(events[name]), "journal": _journal(events[name])}
        for name, stage in stages.items()
    ]


def _by_kind_of_question(part: Part, trained: set[str | None]) -> dict[str, Any]:
    """Dev EM by group and by data set; of those never sampled from, `trained` is False."""
    groups: dict[tuple[str, str], Rates] = defaultdict(Rates)
    for sample in part.samples:
        trajectory = sample.trajectory
        if not trajectory.question.distinct_answers or trajectory.stop_reason.is_error:
            continue
        value = [("em", float(is_right(trajectory)))]
        groups["group", group_of(trajectory.question).value].add(trajectory, value)
        groups["dataset", trajectory.question.dataset or "none"].add(trajectory, value)
    found: dict[str, Any] = {"group": {}, "dataset": {}}
    for (by, name), own in sorted(groups.items()):
        found[by][name] = own.figures()["em"]
        if by == "dataset" and trained:
            found[by][name]["trained"] = name in {each or "none" for each in trained}
    return found


def _hopeless(events: Mapping[str, Any]) -> dict[str, Any] | None:
    """The share of a round's questions that the M-step left out as hopeless, with its interval."""
    m_step = events.get("m_step", {})
    hopeless, kept = m_step.get("hopeless"), m_step.get("questions")
    if "e_step" not in events or not isinstance(hopeless, int) or not isinstance(kept, int):
        return None
    rest = kept + int(m_step.get("without_signal", 0))
    if hopeless + rest <= 0:
        return None
    low, high = mean_interval([1.0] * hopeless + [0.0] * rest)
    return {"value": hopeless / (hopeless + rest), "ci95": [low, high], "n": hopeless + rest}


def _journal(events: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's journal says of a stage."""
    e_step, m_step = events.get("e_step", {}), events.get("m_step", {})
    seconds = {
        "sampling": e_step.get("sampling_seconds"),
        "scoring": e_step.get("scoring_seconds"),
        "turn scores": e_step.get("turn_seconds"),
        "training": m_step.get("seconds"),
        "dev": events.get("dev", {}).get("seconds"),
    }
    objective = events.get("objective", {})
    return {
        "probe_objective": None if (mean := objective.get("mean")) is None else float(mean),
        "probe_gain": objective.get("gain"),
        "train_loss": events.get("step", {}).get("loss"),
        "seconds": {name: float(value) for name, value in seconds.items() if value is not None},
    }
