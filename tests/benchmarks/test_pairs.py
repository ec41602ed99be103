"""Two checkouts are compared pair by pair, and only where they did the same work."""

from __future__ import annotations

import pytest
from benchmarks.pairs import HERE, compare, options, rival
from benchmarks.report import spread

from exsearch.errors import ConfigError, DataError


def figures(rate, workload="same"):
    return {"seconds": 8 / rate, "trajectories_per_second": rate, "workload": workload}


def test_the_ratio_is_taken_within_each_pair():
    """A machine that slows down between pairs does not change it."""
    pairs = [
        (figures(4.0), figures(5.0)),
        (figures(2.0), figures(3.0)),
        (figures(1.0), figures(1.0)),
    ]
    found = compare(pairs)
    assert found["after_over_before"] == spread([1.25, 1.5, 1.0])
    assert found["before_trajectories_per_second"]["runs"] == [4.0, 2.0, 1.0]
    assert found["after_seconds"]["runs"] == [8 / 5.0, 8 / 3.0, 8.0]


def test_other_tokens_are_not_compared():
    with pytest.raises(DataError, match="other tokens"):
        compare([(figures(1.0), figures(1.0, "another"))])


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no checkout of this project"):
        rival(tmp_path, options().parse_args(["--before", str(tmp_path)])).__enter__()


@pytest.mark.slow
def test_a_checkout_beside_itself(tiny_model_folder):
    arguments = ["--model", str(tiny_model_folder), "--questions", "1", "--before", str(HERE)]
    args = options().parse_args(arguments)
    with rival(HERE, args) as run:
        found = compare([(run(), run())])
    assert found["after_over_before"]["median"] > 0
