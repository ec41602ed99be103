"""The bootstrap gives what enumerating every resample gives, and the same for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from exsearch.evaluation import significance
from exsearch.evaluation.significance import bootstrap_interval, paired_bootstrap


def all_means(values):
    """The mean of every possible resample: exact where the bootstrap draws at random."""
    return np.array([np.mean(each) for each in itertools.product(values, repeat=len(values))])


def test_interval_equals_enumeration():
    values = [0.0, 0.1, 0.35, 0.8, 1.0]
    low, high = np.quantile(all_means(values), [0.025, 0.975])
    found = bootstrap_interval(values, resamples=100_000)
    assert found == pytest.approx((low, high), abs=0.01)
    low, high = np.quantile(all_means(values), [0.1, 0.9])
    assert bootstrap_interval(values, level=0.8, resamples=100_000) == pytest.approx(
        (low, high), abs=0.01
    )


def test_interval_of_many_is_the_normal_one():
    values = [1.0] * 300 + [0.0] * 700
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert bootstrap_interval(values) == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        low, high = bootstrap_interval((draw.random(80) < 0.4).astype(float), resamples=400)
        inside += low <= 0.4 <= high
    assert 0.90 <= inside / 300 <= 0.985


def test_equal_values_and_single_ones_have_no_width():
    assert bootstrap_interval([0.5] * 9) == (0.5, 0.5)
    assert bootstrap_interval([1]) == (1.0, 1.0)


def test_the_seed_decides_and_the_size_of_the_chunks_bounds_memory(monkeypatch):
    values = list(np.random.default_rng(0).random(50))
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(significance, "_CELLS", 1)
    assert bootstrap_interval(values) == pytest.approx(whole, abs=0.01)


def test_p_value_equals_enumeration():
    a, b = [1, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 1]
    differences = np.subtract(a, b)
    means = all_means(differences)
    exact = np.mean(np.abs(means - 0.5) >= 0.5 - 1e-12)
    found = paired_bootstrap(a, b, resamples=100_000)
    assert found.difference == 0.5
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_the_other_way_round_is_the_same_with_the_other_sign():
    draw = np.random.default_rng(5)
    a, b = draw.random(40), draw.random(40)
    one, other = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert one.difference == -other.difference
    assert one.p_value == other.p_value
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_no_difference_and_a_sure_one():
    assert paired_bootstrap([0, 1, 1], [0, 1, 1]).p_value == 1
    draw = np.random.default_rng(6)
    a = draw.random(200)
    sure = paired_bootstrap(a + 0.2 + 0.01 * draw.random(200), a, resamples=999)
    assert sure.p_value == 1 / 1000
    assert 0.2 < sure.low <= sure.difference <= sure.high < 0.21


def test_pairs_tell_more_than_two_intervals():
    draw = np.random.default_rng(7)
    a = draw.random(100)
    b = a - 0.05
    assert bootstrap_interval(a)[0] < bootstrap_interval(b)[1]  # the two intervals overlap
    assert paired_bootstrap(a, b).low > 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bootstrap_interval([]), "one value or more"),
        (lambda: bootstrap_interval([float("nan")]), "not finite"),
        (lambda: bootstrap_interval([1], level=1), "level=1"),
        (lambda: bootstrap_interval([1], resamples=0), "resamples=0"),
        (lambda: paired_bootstrap([1, 2], [1]), "2 values against 1"),
    ],
)
def test_unusable_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()
