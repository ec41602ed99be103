"""The figures of an E-step: what its log says of its trajectories (`method.md`, The loop).

They are worked out while the trajectories are read once, so a file of any length will do. They
judge nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exsearch.evaluation.metrics import exact_match, f1
from exsearch.records import WeightedTrajectory
from exsearch.training.e_step import EStepConfig
from exsearch.training.weights import effective_sample_size, mean_and_error, question_objective


def objectives(items: Iterable[WeightedTrajectory]) -> dict[str, float]:
    """The estimate of log p(y*|x) of each question by its id, in nats (`question_objective`)."""
    joints: dict[str, list[float]] = {}
    for item in items:
        joints.setdefault(item.trajectory.question.id, []).append(_log_joint(item))
    return {id_: question_objective(each) for id_, each in joints.items()}


def paired_gain(now: Mapping[str, float], before: Mapping[str, float]) -> tuple[float, float]:
    """How much larger the values of the same questions are on the mean, with its standard error."""
    return mean_and_error([value - before[id_] for id_, value in now.items() if id_ in before])


def _log_joint(item: WeightedTrajectory) -> float:
    return item.answer_log_prob + item.trajectory.latent_log_ratio


def e_step_figures(items: Iterable[WeightedTrajectory], config: EStepConfig) -> dict[str, Any]:
    """Objective, effective sample size, EM and F1 of the sampled answers, counts and tokens.

    Args:
        items: The weighted trajectories of the E-step.
        config: How they were sampled and weighed.

    Returns:
        Figures by name; None where there is nothing to average. Means over questions: `objective`
        in nats with its standard error, `effective_sample_size`, `weighted_em`. Means over
        trajectories: `em`, `f1`, `steps`.
    """
    exact = config.posterior  # and as far as the records tell
    samples: dict[str, list[tuple[float, float, float, float]]] = {}  # by question id
    f1_scores: list[float] = []
    steps: list[float] = []
    counts: Counter[str] = Counter()
    stop_reasons: Counter[str] = Counter()
    malformed: Counter[str] = Counter()
    for item in items:
        t = item.trajectory
        exact &= t.has_exact_weight and (config.proposal_correction or t.drawn_from_model)
        em = float(exact_match(t.answer, t.question.answers))
        facts = item.weight, em, item.answer_log_prob, _log_joint(item)
        samples.setdefault(t.question.id, []).append(facts)
        f1_scores.append(f1(t.answer, t.question.answers))
        steps.append(len(t.steps))
        counts.update(output_tokens=t.output_tokens, prompt_tokens=t.prompt_tokens)
        stop_reasons[t.stop_reason.value] += 1
        if t.malformed:
            malformed[t.malformed] += 1
    groups = list(samples.values())
    signal = [g for g in groups if any(w != 0 for w, _, _, _ in g)]
    shares = [] if config.weighting == "group_advantage" else signal  # advantages sum to 0
    objective, error = mean_and_error([question_objective([j for *_, j in g]) for g in groups])
    return {
        "questions": len(groups),
        "trajectories": len(steps),
        "objective": objective,
        "objective_standard_error": error,
        "effective_sample_size": _mean([effective_sample_size([w for w, *_ in g]) for g in shares]),
        "share_without_signal": 1 - len(signal) / len(groups) if groups else None,
        "em": _mean([em for g in groups for _, em, _, _ in g]),
        "f1": _mean(f1_scores),
        "weighted_em": _mean(
            [sum(w * em for w, em, _, _ in g) / sum(w for w, *_ in g) for g in shares]
        ),
        "steps": _mean(steps),
        "stop_reasons": dict(stop_reasons),
        "malformed": dict(malformed),
        "output_tokens": counts["output_tokens"],
        "prompt_tokens": counts["prompt_tokens"],
        "weights_exact": exact,
        "mean_best_answer_log_prob": _mean(
            [m for g in groups if (m := max(a for _, _, a, _ in g)) > -math.inf]
        ),
    }


def training_cost(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's stages took, from its journal.

    Args:
        events: The events of the journal.

    Returns:
        `optimizer_steps`; `trained_tokens` through the model in M-steps and warm-up, each counted
        once an epoch; `sampled_tokens` through it in E-steps, prompts and replies; and `seconds` of
        all of that, without what is measured between.
    """
    cost: dict[str, Any] = dict.fromkeys(
        ("optimizer_steps", "trained_tokens", "sampled_tokens", "seconds"), 0
    )
    for event in events:
        if event["event"] == "m_step":
            cost["optimizer_steps"] += event["optimizer_steps"]
            cost["trained_tokens"] += event["tokens"]
            cost["seconds"] += event["seconds"]
        if event["event"] == "e_step":
            cost["sampled_tokens"] += event["prompt_tokens"] + event["output_tokens"]
            cost["seconds"] += event["sampling_seconds"] + event["scoring_seconds"]
    return cost


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
