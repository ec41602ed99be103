"""An interval says how far a mean over questions could lie from the one that was measured.

Both functions resample questions with replacement (the bootstrap, Efron 1979). They say nothing
about other seeds of training: for that, train again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_CELLS = 4_000_000  # drawn at a time, so that memory stays small for any number of questions


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """How far two systems differ on the same questions.

    Attributes:
        difference: mean(a) - mean(b).
        low: The lower end of the interval of the difference.
        high: The upper end of the interval of the difference.
        p_value: The two-sided p-value.
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of a mean (the bootstrap, Efron 1979).

    Args:
        values: One value a question.
        seed: Decides the resampling.
        resamples: The number of resamples.
        level: The share of resampled means that the interval holds, such as 0.95.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: no value, one that is not finite, or an option out of range.
    """
    means = _resampled_means(_checked(values, resamples, level), seed, resamples)
    return _interval(means, level)


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> PairedDifference:
    """Compare two systems by their values on the same questions, in the same order.

    The p-value is the share of resamples of the differences, shifted to mean 0, whose mean is at
    least as far from 0 as the measured one; one is added to both counts, so that it is never 0.

    Args:
        a: The values of the first system, one a question.
        b: The values of the second system on the same questions.
        seed: Decides the resampling.
        resamples: The number of resamples.
        level: The share of resampled differences that the interval holds, such as 0.95.

    Raises:
        ValueError: unequal lengths, no value, one that is not finite, or an option out of range.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}: both need the same questions")
    first, second = _checked(a, resamples, level), _checked(b, resamples, level)
    differences = first - second
    measured = float(differences.mean())
    means = _resampled_means(differences, seed, resamples)
    # 1e-12 forgives rounding in the sums, which would otherwise decide on equality.
    extreme = int(np.count_nonzero(np.abs(means - measured) >= abs(measured) - 1e-12))
    return PairedDifference(measured, *_interval(means, level), (extreme + 1) / (resamples + 1))


def _checked(values: Sequence[float], resamples: int, level: float) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected a list of one value or more, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples={resamples}, level={level}: expected >= 1 and 0 < level < 1")
    return array


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """The means (resamples,) of draws with replacement, each of as many values as there are."""
    draw = np.random.default_rng(seed)
    rows = max(1, _CELLS // len(values))
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        end = min(start + rows, resamples)
        chosen = draw.integers(len(values), size=(end - start, len(values)))
        means[start:end] = values[chosen].mean(axis=1)
    return means


def _interval(means: np.ndarray, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
