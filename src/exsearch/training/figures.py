"""The figures of an E-step: what its log says of its trajectories (`method.md`, The loop).

They are worked out while the trajectories are read once, so a file of any length will do. They
judge nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from exsearch.evaluation.metrics import exact_match, f1
from exsearch.records import WeightedTrajectory
from exsearch.training.weights import effective_sample_size, objective_estimate


def e_step_figures(items: Iterable[WeightedTrajectory], *, corrected: bool) -> dict[str, Any]:
    """Objective, effective sample size, EM and F1 of the sampled answers, counts and tokens.

    Args:
        items: The weighted trajectories of the E-step.
        corrected: Whether weights were multiplied by p(z|x)/q(z|x).

    Returns:
        Figures by name; None where there is nothing to average. Means over questions: `objective`
        in nats with its standard error, `effective_sample_size`, `weighted_em`. Means over
        trajectories: `em`, `f1`, `steps`.
    """
    exact = True  # as far as the records tell
    samples: dict[str, list[tuple[float, float, float]]] = {}  # question id -> (a_k, w_k, EM)
    f1_scores: list[float] = []
    steps: list[float] = []
    counts: Counter[str] = Counter()
    stop_reasons: Counter[str] = Counter()
    malformed: Counter[str] = Counter()
    for item in items:
        t = item.trajectory
        exact &= t.has_exact_weight and (corrected or t.drawn_from_model)
        em = float(exact_match(t.answer, t.question.answers))
        samples.setdefault(t.question.id, []).append((item.answer_log_prob, item.weight, em))
        f1_scores.append(f1(t.answer, t.question.answers))
        steps.append(len(t.steps))
        counts.update(output_tokens=t.output_tokens, prompt_tokens=t.prompt_tokens)
        stop_reasons[t.stop_reason.value] += 1
        if t.malformed:
            malformed[t.malformed] += 1
    groups = list(samples.values())
    signal = [g for g in groups if any(w > 0 for _, w, _ in g)]
    scores = [[a for a, _, _ in g] for g in groups]
    objective, error = objective_estimate(scores)
    return {
        "questions": len(groups),
        "trajectories": len(steps),
        "objective": objective,
        "objective_standard_error": error,
        "effective_sample_size": _mean(
            [effective_sample_size([w for _, w, _ in g]) for g in signal]
        ),
        "share_without_signal": 1 - len(signal) / len(groups) if groups else None,
        "em": _mean([em for g in groups for _, _, em in g]),
        "f1": _mean(f1_scores),
        "weighted_em": _mean(
            [sum(w * em for _, w, em in g) / sum(w for _, w, _ in g) for g in signal]
        ),
        "steps": _mean(steps),
        "stop_reasons": dict(stop_reasons),
        "malformed": dict(malformed),
        "output_tokens": counts["output_tokens"],
        "prompt_tokens": counts["prompt_tokens"],
        "weights_exact": exact,
        "mean_best_answer_log_prob": _mean([m for s in scores if (m := max(s)) > -math.inf]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
