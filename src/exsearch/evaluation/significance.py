"""An interval says how far a mean over questions could lie from the one that was measured.

Shares (values of 0 and 1) and their differences have formulas, which hold also where all values are
the same; other means are resampled by questions (the bootstrap, Efron 1979). Nothing here speaks of
other seeds of training: for that, train again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

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


def mean_interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """The interval of a mean: Wilson's for a share, else the percentiles of the bootstrap.

    Args:
        values: One value a question; where all are 0 or 1 their mean is a share.
        seed: Decides the resampling.
        resamples: The number of resamples.
        level: How sure the interval is, such as 0.95.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: no value, one that is not finite, or an option out of range.
    """
    array = _checked(values, resamples, level)
    if not np.isin(array, (0, 1)).all():
        return _interval(_resampled_means(array, seed, resamples), level)
    n, share, z2 = len(array), float(array.mean()), _z(level) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # Exactly 0 and 1 at the ends, where rounding would leave a little.
    return (
        max(0.0, middle - half) if share > 0 else 0.0,
        min(1.0, middle + half) if share < 1 else 1.0,
    )


def mean_figures(values: Mapping[str, Sequence[float | None]], *, seed: int = 0) -> dict[str, Any]:
    """The mean of each figure by its name, with its 95 % interval in `ci95` (`mean_interval`).

    A figure that some questions have no value of has the number of the others as `<name>_n`; one
    that no question has a value of is None.

    Args:
        values: One value a question for each figure, by its name; None where it says nothing.
        seed: Decides the resampling.
    """
    known = {name: [v for v in each if v is not None] for name, each in values.items()}
    return {
        **{name: sum(each) / len(each) if each else None for name, each in known.items()},
        **{f"{name}_n": len(e) for name, e in known.items() if len(e) < len(values[name])},
        "ci95": {name: list(mean_interval(e, seed=seed)) for name, e in known.items() if e},
    }


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> PairedDifference:
    """Compare two systems by their values on the same questions, in the same order.

    The p-value is that of approximate randomization: the share of all ways to swap the two systems
    on some questions whose difference is at least as far from 0 as the measured one. Up to
    `resamples` ways are gone through one by one, else as many are drawn, and one is added to both
    counts. So it is never below 2^(1-n) for n questions on which the systems differ.

    The interval is the bootstrap's; where all values are 0 or 1, that of Agresti and Min (2005).

    Args:
        a: The values of the first system, one a question.
        b: The values of the second system on the same questions.
        seed: Decides what is drawn.
        resamples: The number of resamples, and of swaps that are drawn.
        level: How sure the interval is, such as 0.95.

    Raises:
        ValueError: unequal lengths, no value, one that is not finite, or an option out of range.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}: both need the same questions")
    first, second = _checked(a, resamples, level), _checked(b, resamples, level)
    differences = first - second
    measured = float(differences.mean())
    if np.isin([first, second], (0, 1)).all():
        low, high = _share_difference(differences, level)
    else:
        low, high = _interval(_resampled_means(differences, seed, resamples), level)
    p = _swapped_share(differences[differences != 0], seed, resamples)
    return PairedDifference(measured, low, high, p)


def _z(level: float) -> float:
    """The quantile of the normal distribution at the upper end of an interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _share_difference(differences: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of a mean of -1, 0 and 1: half a question more of each of the four kinds."""
    n, sum_, squares = len(differences) + 2, differences.sum(), (differences**2).sum() + 1
    half = _z(level) * math.sqrt(squares - sum_**2 / n) / n
    return max(-1.0, float(sum_ / n - half)), min(1.0, float(sum_ / n + half))


def _swapped_share(differences: np.ndarray, seed: int, resamples: int) -> float:
    """The share of sign flips of differences other than 0 whose sum is as far from 0 as theirs."""
    n = len(differences)
    if not n:
        return 1.0
    # 1e-9 forgives rounding in the sums, which would otherwise decide on equality.
    measured = abs(differences.sum()) - 1e-9
    if n <= 1 + math.log2(resamples):  # the first sign stays: the other half mirrors this one
        ways = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        return float((np.abs((1 - 2 * ways) @ differences) >= measured).mean())
    draw = np.random.default_rng(seed)
    rows, extreme = max(1, _CELLS // n), 0
    for start in range(0, resamples, rows):
        ways = draw.integers(2, size=(min(rows, resamples - start), n), dtype=np.int8)
        extreme += np.count_nonzero(np.abs((1 - 2 * ways) @ differences) >= measured)
    return max((extreme + 1) / (resamples + 1), 2.0 ** (1 - n))


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
