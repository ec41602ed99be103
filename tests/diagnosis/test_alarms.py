"""An alarm rings for a run that was built with its fault, and not for one without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from exsearch.diagnosis.alarms import alarms
from exsearch.diagnosis.rates import difference
from exsearch.evaluation.significance import mean_interval

RUNS = 100
FOUND, FALSE = 95, 5  # of 100: at least, and at most
QUESTIONS, SAMPLES = 100, 4

Stages = list[dict[str, Any]]
Draw = np.random.Generator


def figure(values: np.ndarray) -> dict[str, Any]:
    """A rate, as `rates.rate` has it but of fewer resamples."""
    low, high = mean_interval(list(values), resamples=400)
    return {"value": float(values.mean()), "ci95": [low, high], "n": len(values)}


def shares(draw: Draw, p: float, of: int = SAMPLES) -> np.ndarray:
    return draw.binomial(of, p, QUESTIONS) / of


def healthy(draw: Draw) -> Stages:
    """Two rounds with the same true figures, each of fresh questions."""
    found: Stages = []
    for stage in ("iteration-01", "iteration-02"):
        sampled = {
            "em": figure(shares(draw, 0.4)),
            "distinct_queries": figure(shares(draw, 0.8, 8)),
            "surprise": figure(draw.gamma(8, 0.1, QUESTIONS)),
            "effective_samples": figure(draw.uniform(0.3, 1, QUESTIONS)),
        }
        dev = {
            "em": figure(shares(draw, 0.35, 1)),
            "answer_words": figure(1.0 + draw.poisson(1.2, QUESTIONS)),
            "guessed": figure(shares(draw, 0.1, 1)),
            "unfounded": figure(shares(draw, 0.2, 1)),
        }
        found.append(
            {
                "stage": stage,
                "sampled": sampled,
                "dev": dev,
                "gap": {"em": difference(sampled["em"], dev["em"])},
                "weights": [QUESTIONS * SAMPLES, *[0] * 9],
                "hopeless": figure(shares(draw, 0.3, 1)),
                "journal": {
                    "probe_gain": {"difference": draw.normal(0, 0.5), "standard_error": 0.5}
                },
            }
        )
    return found


def overfitted(draw: Draw, stages: Stages) -> None:
    """EM of samples rises from 40 % to 75 %, and dev's falls from 35 % to 25 %."""
    sampled, dev = figure(shares(draw, 0.75)), figure(shares(draw, 0.25, 1))
    stages[-1]["gap"]["em"] = difference(sampled, dev)


def repetitive(draw: Draw, stages: Stages) -> None:
    stages[-1]["sampled"]["distinct_queries"] = figure(shares(draw, 0.5, 8))


def certain(draw: Draw, stages: Stages) -> None:
    stages[-1]["sampled"]["surprise"] = figure(draw.gamma(8, 0.03, QUESTIONS))


def wordy(draw: Draw, stages: Stages) -> None:
    stages[-1]["dev"]["answer_words"] = figure(1.0 + draw.poisson(5, QUESTIONS))


def terse(draw: Draw, stages: Stages) -> None:
    stages[-1]["dev"]["answer_words"] = figure(1.0 + (draw.random(QUESTIONS) < 0.02))
    stages[0]["dev"]["answer_words"] = figure(1.0 + draw.poisson(2.5, QUESTIONS))


def guessing(draw: Draw, stages: Stages) -> None:
    stages[-1]["dev"]["guessed"] = figure(shares(draw, 0.4, 1))


def inventing(draw: Draw, stages: Stages) -> None:
    stages[-1]["dev"]["unfounded"] = figure(shares(draw, 0.55, 1))


def one_sided(draw: Draw, stages: Stages) -> None:
    stages[-1]["sampled"]["effective_samples"] = figure(draw.uniform(0.25, 0.3, QUESTIONS))


def hopeless(draw: Draw, stages: Stages) -> None:
    stages[-1]["hopeless"] = figure(shares(draw, 0.8, 1))


def falling(draw: Draw, stages: Stages) -> None:
    stages[-1]["journal"]["probe_gain"] = {
        "difference": draw.normal(-2.5, 0.5),
        "standard_error": 0.5,
    }


FAULTS: dict[str, Callable[[Draw, Stages], None]] = {
    "overfitting": overfitted,
    "queries repeat": repetitive,
    "entropy falls": certain,
    "answers grow": wordy,
    "answers shrink": terse,
    "guesses rise": guessing,
    "unfounded answers rise": inventing,
    "weights collapse": one_sided,
    "hopeless questions": hopeless,
    "objective falls": falling,
}


def names(stages: Stages) -> set[str]:
    return {alarm.name for alarm in alarms(stages)}


@pytest.fixture(scope="module")
def rung() -> list[set[str]]:
    return [names(healthy_once(seed)) for seed in range(RUNS)]


@pytest.mark.parametrize("name", FAULTS)
def test_an_alarm_rings_for_its_fault_alone(name: str, rung: list[set[str]]):
    assert sum(name in found for found in rung) <= FALSE
    seen = 0
    for seed in range(RUNS):
        draw = np.random.default_rng(RUNS + seed)
        stages = healthy_once(seed)
        FAULTS[name](draw, stages)
        seen += name in names(stages)
    assert seen >= FOUND


_HEALTHY: dict[int, Stages] = {}


def healthy_once(seed: int) -> Stages:
    """A run without a fault, which a test may alter; drawn once for all of them."""
    if seed not in _HEALTHY:
        _HEALTHY[seed] = healthy(np.random.default_rng(seed))
    return [
        {**stage, **{key: dict(stage[key]) for key in ("sampled", "dev", "gap", "journal")}}
        for stage in _HEALTHY[seed]
    ]


def test_every_alarm_says_what_to_try():
    stages = healthy(np.random.default_rng(0))
    for name in ("queries repeat", "weights collapse", "hopeless questions", "overfitting"):
        FAULTS[name](np.random.default_rng(1), stages)
    found = {alarm.name: alarm for alarm in alarms(stages)}
    assert len(found) >= 4
    assert all(alarm.stage == "iteration-02" and alarm.remedy for alarm in found.values())
    assert "->" in found["queries repeat"].says
