"""Intervals hold as often as they say, p-values equal enumeration, and the seed decides."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from exsearch.evaluation import significance
from exsearch.evaluation.significance import mean_interval, paired_difference


def all_means(values):
    """The mean of every possible resample: exact where the bootstrap draws at random."""
    return np.array([np.mean(each) for each in itertools.product(values, repeat=len(values))])


def test_interval_equals_enumeration():
    values = [0.0, 0.1, 0.35, 0.8, 1.0]
    low, high = np.quantile(all_means(values), [0.025, 0.975])
    found = mean_interval(values, resamples=100_000)
    assert found == pytest.approx((low, high), abs=0.01)
    low, high = np.quantile(all_means(values), [0.1, 0.9])
    assert mean_interval(values, level=0.8, resamples=100_000) == pytest.approx(
        (low, high), abs=0.01
    )


def test_interval_of_many_is_the_normal_one():
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert mean_interval([1.0] * 300 + [0.0] * 700) == pytest.approx(
        (0.3 - half, 0.3 + half), abs=2e-3
    )
    nearly = [0.999] * 300 + [0.0] * 700  # no share, so the bootstrap
    assert mean_interval(nearly) == pytest.approx((0.3 - half, 0.3 + half), abs=3e-3)


def test_a_share_by_hand():
    # Wilson: both ends solve (share - p)² = z² p (1 - p) / n
    low, high = mean_interval([1, 1, 1, *[0] * 21])
    for end in (low, high):
        assert (3 / 24 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 24, rel=1e-5)
    assert 0 < low < 3 / 24 < high


def test_a_share_of_none_or_of_all_has_width():
    low, high = mean_interval([0.0] * 24)
    assert (low, high) == (0.0, pytest.approx(0.138, abs=1e-3))  # exactly 0.142
    assert mean_interval([1] * 24) == pytest.approx((1 - high, 1.0))
    assert mean_interval([1]) == pytest.approx((0.2065, 1.0), abs=1e-3)
    assert mean_interval([0.5] * 9) == (0.5, 0.5)


@pytest.mark.parametrize(("n", "p"), [(24, 0.05), (24, 0.5), (40, 0.1), (80, 0.4), (200, 0.02)])
def test_the_interval_of_a_share_holds_as_often_as_it_says(n, p):
    """Summed over every number right, by its exact probability."""
    holds = 0.0
    for right in range(n + 1):
        low, high = mean_interval([1] * right + [0] * (n - right))
        if low <= p <= high:
            holds += math.comb(n, right) * p**right * (1 - p) ** (n - right)
    assert 0.93 <= holds <= 0.985


@pytest.mark.parametrize(("better", "worse"), [(0.05, 0.02), (0.2, 0.2), (0.3, 0.05)])
def test_the_interval_of_a_difference_of_shares_holds_as_often_as_it_says(better, worse):
    n, holds = 24, 0.0
    for b in range(n + 1):
        for w in range(n + 1 - b):
            ours, theirs = [1] * b + [0] * (n - b), [0] * b + [1] * w + [0] * (n - b - w)
            found = paired_difference(ours, theirs, resamples=1)
            if found.low <= better - worse <= found.high:
                ways = math.comb(n, b) * math.comb(n - b, w)
                holds += ways * better**b * worse**w * (1 - better - worse) ** (n - b - w)
    assert holds >= 0.93  # more where hardly any differ


def test_no_difference_between_few_is_not_sure():
    found = paired_difference([0] * 24, [0] * 24)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((-0.0754, 0.0754), abs=1e-3)


def test_the_seed_decides_and_the_size_of_the_chunks_bounds_memory(monkeypatch):
    values = list(np.random.default_rng(0).random(50))
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)
    whole = mean_interval(values)
    monkeypatch.setattr(significance, "_CELLS", 1)
    assert mean_interval(values) == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize("resamples", [16, 100_000])  # drawn, and gone through
def test_p_value_equals_enumeration(resamples):
    a = [0.9, 0.5, 1.0, 0.2, 0.25, 1.0, 0.5, 0.1]
    b = [0.1, 0.25, 0.0, 0.4, 0.25, 0.0, 0.125, 0.0]
    differences = np.subtract(a, b)
    swaps = [np.dot(s, differences) for s in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.abs(swaps) >= abs(sum(differences)) - 1e-9)
    found = paired_difference(a, b, resamples=resamples)
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.p_value == pytest.approx(exact, abs=0.15 if resamples == 16 else 1e-12)
    if resamples > 16:
        ends = np.quantile(all_means(differences[:4]), [0.025, 0.975])
        few = paired_difference(a[:4], b[:4], resamples=resamples)
        assert (few.low, few.high) == pytest.approx(ends, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 14, 30])
def test_the_p_value_of_n_is_never_below_what_n_can_show(n):
    """All n better: of 2^n ways to swap, two are as far from 0."""
    found = paired_difference([1.0] * n, [0.0] * n)
    assert found.p_value == pytest.approx(max(2.0 ** (1 - n), 1 / 10_001), rel=1e-9)
    same = paired_difference([*[1.0] * n, *[0.3] * 40], [*[0.0] * n, *[0.3] * 40])
    assert same.p_value == found.p_value  # questions on which both are alike show nothing


def test_the_p_value_of_right_and_wrong_is_that_of_the_sign_test():
    for better, worse in ((9, 2), (15, 5), (12, 9)):
        n = better + worse
        exact = 2 * sum(math.comb(n, k) for k in range(worse + 1)) / 2**n
        found = paired_difference([1] * better + [0] * worse, [0] * better + [1] * worse)
        assert found.p_value == pytest.approx(exact, abs=0.02)


def test_the_other_way_round_is_the_same_with_the_other_sign():
    draw = np.random.default_rng(5)
    a, b = draw.random(40), draw.random(40)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.difference == -other.difference
    assert one.p_value == other.p_value
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_no_difference_and_a_sure_one():
    assert paired_difference([0, 1, 1], [0, 1, 1]).p_value == 1
    draw = np.random.default_rng(6)
    a = draw.random(200)
    sure = paired_difference(a + 0.2 + 0.01 * draw.random(200), a, resamples=999)
    assert sure.p_value == 1 / 1000
    assert 0.2 < sure.low <= sure.difference <= sure.high < 0.21


def test_pairs_tell_more_than_two_intervals():
    draw = np.random.default_rng(7)
    a = draw.random(100)
    b = a - 0.05
    assert mean_interval(a)[0] < mean_interval(b)[1]  # the two intervals overlap
    assert paired_difference(a, b).low > 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mean_interval([]), "one value or more"),
        (lambda: mean_interval([float("nan")]), "not finite"),
        (lambda: mean_interval([1], level=1), "level=1"),
        (lambda: mean_interval([1], resamples=0), "resamples=0"),
        (lambda: paired_difference([1, 2], [1]), "2 values against 1"),
    ],
)
def test_unusable_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()
