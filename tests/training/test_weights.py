"""A better trajectory weighs more, and a question's weights are a distribution over its samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.training.weights import (
    OBJECTIVE_FLOOR,
    effective_sample_size,
    group_advantages,
    importance_weights,
    log_sum_exp,
    mean_and_error,
    question_objective,
)

INF = math.inf
scores = st.floats(-700, 0)  # exp of these is a float64
samples = st.lists(scores, min_size=1, max_size=9)


def test_a_better_trajectory_weighs_more():
    weights = importance_weights([-3.0, -1.0, -2.0])
    assert weights[1] > weights[2] > weights[0]


def test_weights_by_hand():
    # exp(a) is 1/2, 1/4, 1/4
    weights = importance_weights([math.log(0.5), math.log(0.25), math.log(0.25)])
    assert weights == pytest.approx([0.5, 0.25, 0.25], abs=1e-15)


@given(samples)
def test_posterior_against_brute_force(a):
    brute = np.exp(np.array(a, dtype=np.float64))
    if brute.sum() > 1e-290:
        assert importance_weights(a) == pytest.approx((brute / brute.sum()).tolist(), rel=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.floats(0.01, 100))
def test_weights_sum_to_one_and_keep_the_order(a, temperature):
    weights = importance_weights(a, temperature=temperature)
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    ranked = [weights[k] for k in sorted(range(len(a)), key=lambda k: a[k])]
    assert ranked == sorted(ranked)


@given(scores, st.integers(1, 50))
def test_equal_scores_give_an_effective_sample_size_of_k(a, k):
    assert effective_sample_size(importance_weights([a] * k)) == pytest.approx(k)


def test_one_good_sample_gives_an_effective_sample_size_of_one():
    assert effective_sample_size(importance_weights([-0.1, -60.0, -INF])) == pytest.approx(1)
    assert effective_sample_size([0.0, 0.0]) == 0


def test_the_effective_sample_size_needs_no_sum_of_one():
    assert effective_sample_size([3e-200, 1e-200]) == pytest.approx(16 / 10)
    assert effective_sample_size(importance_weights([-10.0] * 2, weighting="likelihood")) == (
        pytest.approx(2)
    )


@given(samples)
def test_likelihood_is_not_normalised(a):
    weights = importance_weights(a, weighting="likelihood")
    assert weights == pytest.approx((np.exp(np.array(a)) / len(a)).tolist(), rel=1e-12)


def test_a_hopeless_sample_counts_in_k():
    half = math.log(0.5)
    assert importance_weights([half, -INF], weighting="likelihood") == pytest.approx([0.25, 0.0])
    assert importance_weights([half, -INF]) == [1.0, 0.0]
    assert importance_weights([half, -INF, half], weighting="uniform") == [0.5, 0.0, 0.5]


def test_uniform_best_and_correct_share_one():
    a = [-2.0, -1.0, -1.0, -INF]
    assert importance_weights(a, weighting="uniform") == [1 / 3, 1 / 3, 1 / 3, 0.0]
    assert importance_weights(a, weighting="best") == [0.0, 1.0, 0.0, 0.0]  # the first of equals
    correct = [True, False, True, True]
    assert importance_weights(a, weighting="correct", correct=correct) == [0.5, 0.0, 0.5, 0.0]
    nothing = [False] * 4
    assert importance_weights(a, weighting="correct", correct=nothing) == [0.0] * 4


def test_temperature_flattens_and_sharpens():
    a = [math.log(0.8), math.log(0.2)]
    assert importance_weights(a, temperature=0.5) == pytest.approx([16 / 17, 1 / 17])
    assert importance_weights(a, temperature=2.0) == pytest.approx([2 / 3, 1 / 3])


@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 50)), min_size=1, max_size=9))
def test_log_ratios_against_brute_force(pairs):
    a, ratios = (list(column) for column in zip(*pairs, strict=True))
    brute = np.exp(np.array(a) + np.array(ratios))
    weights = importance_weights(a, log_ratios=ratios)
    assert weights == pytest.approx((brute / brute.sum()).tolist(), rel=1e-9)
    likelihood = importance_weights(a, weighting="likelihood", log_ratios=ratios)
    assert likelihood == pytest.approx((brute / len(a)).tolist(), rel=1e-9)


def test_the_weights_temperature_leaves_the_ratio_alone():
    # exp(a/2) is 0.5 and 0.5, the ratio 3 and 1
    a, ratios = [math.log(0.25)] * 2, [math.log(3), 0.0]
    weights = importance_weights(a, temperature=2.0, log_ratios=ratios)
    assert weights == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("weighting", ["posterior", "likelihood", "uniform", "best", "correct"])
def test_no_signal_gives_zeros(weighting):
    assert importance_weights([-INF] * 3, weighting=weighting, correct=[True] * 3) == [0.0] * 3
    assert importance_weights([], weighting=weighting) == []


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_a_score_that_is_no_log_likelihood_is_refused(bad):
    with pytest.raises(ValueError, match="sample 1 "):
        importance_weights([-1.0, bad])


@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("weighting", ["posterior", "likelihood"])
def test_a_ratio_that_is_no_number_is_refused(bad, weighting):
    with pytest.raises(ValueError, match="sample 0 "):
        importance_weights([-1.0, -2.0], weighting=weighting, log_ratios=[bad, 0.0])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="must be positive"):
        importance_weights([-1.0], temperature=temperature)


def test_huge_and_small_scores_neither_overflow_nor_vanish():
    assert importance_weights([-1e8, -1e8 - math.log(3)]) == pytest.approx([0.75, 0.25])
    assert importance_weights([-1e300, -1e301]) == [1.0, 0.0]
    assert importance_weights([1e6, 1e6]) == [0.5, 0.5]  # a density may be above 1
    assert importance_weights([-1e-300, -1e-300]) == [0.5, 0.5]


def test_log_sum_exp():
    assert log_sum_exp([]) == log_sum_exp([-INF, -INF]) == -INF
    assert log_sum_exp([1000.0, 1000.0]) == pytest.approx(1000 + math.log(2))


def test_the_objective_by_hand():
    # Questions: log((1/2 + 1/4)/2) = log(3/8) and log((1 + 0)/2) = log(1/2).
    rows = [[math.log(0.5), math.log(0.25)], [0.0, -INF]]
    first, second = map(question_objective, rows)
    assert (first, second) == pytest.approx((math.log(3 / 8), math.log(1 / 2)))
    mean, error = mean_and_error([first, second])
    assert mean == pytest.approx((first + second) / 2)
    # of two values, the standard error of the mean is half their distance
    assert error == pytest.approx(abs(first - second) / 2)


def test_the_objective_at_its_edges():
    assert question_objective([-INF, -INF]) == OBJECTIVE_FLOOR
    mean, error = mean_and_error([-1.0])
    assert mean == -1.0 and math.isnan(error)
    assert all(math.isnan(v) for v in mean_and_error([]))


def test_group_advantages_by_hand():
    # Mean 1/4, variance 3/16: 1 is √3 deviations above, 0 is 1/√3 below.
    found = importance_weights([0.0] * 4, weighting="group_advantage", rewards=[1, 0, 0, 0])
    assert found == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], rel=1e-5)
    assert sum(found) == pytest.approx(0, abs=1e-12)
    assert group_advantages([0.5, 0.5]) == [0.0, 0.0]
    assert group_advantages([1.0]) == [0.0]
