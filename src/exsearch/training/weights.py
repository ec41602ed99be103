"""A weight says how much one of a question's K trajectories counts (`method.md`, E-step).

It is arithmetic in float64, without models or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev, stdev
from typing import Literal

from exsearch.records import log_sum_exp

Weighting = Literal["posterior", "likelihood", "uniform", "best", "correct", "group_advantage"]
Reward = Literal["em", "f1"]


def importance_weights(
    answer_log_probs: Sequence[float],
    *,
    weighting: Weighting = "posterior",
    temperature: float = 1.0,
    log_ratios: Sequence[float] | None = None,
    correct: Sequence[bool] | None = None,
    rewards: Sequence[float] | None = None,
) -> list[float]:
    """The weights w_k of the K samples of ONE question (`method.md`, E-step).

    Args:
        answer_log_probs: a_k, the log-likelihood of the gold answers after sample k, in nats; -inf
            where the answer was never reached.
        weighting: How weights follow from a_k: `posterior` softmax_k(a_k/τ); `likelihood`
            exp(a_k)/K; `uniform`, `best` and `correct` share 1 among all that reached the answer,
            the best one, or those whose own answer matched; `group_advantage` is no weight, but how
            far the reward is above the mean of the question's, in standard deviations.
        temperature: τ, which `posterior` alone uses. It is not the temperature of sampling.
        log_ratios: log p(z_k|x)/q(z_k|x), in nats, where samples were drawn from another proposal
            q; `posterior` and `likelihood` alone use it. None is the model's own distribution.
        correct: Whether sample k's own answer matched; `correct` alone uses it.
        rewards: What sample k's own answer is worth, from 0 to 1; `group_advantage` alone uses it.

    Returns:
        K weights; all 0 where no sample carries signal.

    Raises:
        ValueError: a score is NaN or +inf, a ratio is not finite, or τ is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the weights' temperature must be positive, got {temperature}")
    for k, a in enumerate(answer_log_probs):
        if math.isnan(a) or a == math.inf:
            raise ValueError(f"sample {k} has the log-likelihood {a}")
    ratios = [0.0] * len(answer_log_probs) if log_ratios is None else list(log_ratios)
    for k, r in enumerate(ratios):
        if not math.isfinite(r):
            raise ValueError(f"sample {k} has the log ratio {r} of model and proposal")
    reached = [a > -math.inf for a in answer_log_probs]
    match weighting:
        case "posterior":
            return _softmax(
                [a / temperature + r for a, r in zip(answer_log_probs, ratios, strict=True)]
            )
        case "likelihood":
            k = len(answer_log_probs)
            return [math.exp(a + r) / k for a, r in zip(answer_log_probs, ratios, strict=True)]
        case "uniform":
            return _shared(reached)
        case "best":
            best = max(answer_log_probs, default=-math.inf)
            first = next((k for k, a in enumerate(answer_log_probs) if a == best), -1)
            return _shared([reached[k] and k == first for k in range(len(reached))])
        case "correct":
            matched = [False] * len(reached) if correct is None else correct
            return _shared([r and c for r, c in zip(reached, matched, strict=True)])
        case "group_advantage":
            return group_advantages([0.0] * len(reached) if rewards is None else rewards)


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """A_k = (r_k - mean r) / (sd r + 1e-6) of the K samples of one question.

    The estimator of GRPO (Shao et al. 2024; `method.md`, "Around the method"), with the standard
    deviation of these K; all 0 where all rewards are the same.
    """
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean, spread = fmean(rewards), pstdev(rewards)
    return [(r - mean) / (spread + 1e-6) for r in rewards]


def _softmax(values: Sequence[float]) -> list[float]:
    peak = max(values, default=-math.inf)
    if peak == -math.inf:
        return [0.0] * len(values)
    # Divided, not subtracted in log space: the sum is then 1 also where scores are huge.
    parts = [math.exp(v - peak) for v in values]
    total = math.fsum(parts)
    return [part / total for part in parts]


def _shared(chosen: Sequence[bool]) -> list[float]:
    count = sum(chosen)
    return [1.0 / count if c else 0.0 for c in chosen]


def effective_sample_size(weights: Sequence[float]) -> float:
    """(Σ w_k)² / Σ w_k²: K where all weights are equal, 1 where one has all, 0 where all are 0."""
    largest = max(weights, default=0.0)
    if not largest:
        return 0.0
    shares = [w / largest for w in weights]  # squares of tiny weights would vanish
    return math.fsum(shares) ** 2 / math.fsum(s * s for s in shares)


OBJECTIVE_FLOOR = -20.0  # nats


def question_objective(log_joints: Sequence[float]) -> float:
    """log(1/K Σ_k p(z_k|x)/q(z_k|x) · p(y*|x,z_k)) of one question, in nats.

    It is the question's part of the objective (`method.md`, The loop). A question whose samples
    never reached an answer has -inf, which would be the mean over all. So none has less than
    `OBJECTIVE_FLOOR`, the same for every iteration.

    Args:
        log_joints: For each of the K samples a_k + log p(z_k|x)/q(z_k|x), in nats.
    """
    return max(log_sum_exp(log_joints) - math.log(len(log_joints)), OBJECTIVE_FLOOR)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """A mean and its standard error; nan where there are too few values for it."""
    mean = fmean(values) if values else math.nan
    return mean, stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
