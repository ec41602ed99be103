"""GEM teaches a tiny model to search, in a world where warm-up leaves it at a coin's toss.

The warm-up examples are those of a careless annotator, who for half of the questions looks up the
other fact of the same person; so the warmed up model does likewise, and then can't know the answer.
GEM gets questions and answers alone, about other facts than the annotator's, and must find out by
itself which search helps. Held-out questions ask what training never asked.
"""

from __future__ import annotations

import copy
import dataclasses
import random

import pytest
from small_world import METHOD, make_world, save_small_model, search, warm_up_items

from exsearch import m_step, rollout, weigh
from exsearch.engines.local.engine import TransformersEngine
from exsearch.evaluation.evaluate import evaluate
from exsearch.records import Question, WeightedTrajectory
from exsearch.retrievers.base import Retriever
from exsearch.training.e_step import EStepConfig
from exsearch.training.m_step import new_optimizer
from exsearch.training.recipe import MStepConfig
from exsearch.trajectories import by_question

WARM_UP = MStepConfig(learning_rate=4e-3, epochs=3, questions_per_step=8, token_budget=4096)
M_STEP = MStepConfig(
    learning_rate=7e-4, epochs=2, questions_per_step=8, token_budget=4096, min_log_likelihood=-4.0
)
CARELESS, WARM_UP_WORLDS, TRAIN, ROUNDS, SAMPLES = 0.5, 12, 50, 4, 4


def reversed_weights(weighted: list[WeightedTrajectory]) -> list[WeightedTrajectory]:
    """The weights of each question handed out the wrong way round: the best to the worst sample."""
    result: list[WeightedTrajectory] = []
    for group in by_question(weighted):
        order = sorted(range(len(group)), key=lambda k: group[k].weight)
        weights = [group[k].weight for k in order]
        for k, weight in zip(order, reversed(weights), strict=True):
            result.append(dataclasses.replace(group[k], weight=weight))
    return result


def gem(
    engine: TransformersEngine,
    retriever: Retriever,
    train: list[Question],
    weighting: str,
    seed: int,
) -> None:
    """Rounds of rollout, weigh, m_step from the weights in the engine."""
    config = EStepConfig(weighting="uniform" if weighting == "uniform" else "posterior")
    for iteration in range(1, ROUNDS + 1):
        trajectories = rollout(
            train, engine, retriever,
            samples=SAMPLES, method=METHOD, seed=seed, iteration=iteration,
        )  # fmt: skip
        weighted = weigh(trajectories, engine, config)
        if weighting == "reversed":
            weighted = reversed_weights(weighted)
        optimizer = new_optimizer(engine.model, M_STEP)
        m_step(engine.model, optimizer, weighted, M_STEP, seed=iteration)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_posterior_weights_teach_to_search(seed, tmp_path):
    draw = random.Random(seed)
    world = make_world(draw)
    retriever = search(world, tmp_path / "index")
    save_small_model(tmp_path / "model", seed)
    engine = TransformersEngine(tmp_path / "model", device="cpu")
    items = warm_up_items(
        engine.tokenizer, tmp_path, draw, worlds=WARM_UP_WORLDS, careless=CARELESS
    )
    m_step(engine.model, new_optimizer(engine.model, WARM_UP), items, WARM_UP, seed=seed)
    warmed_up = copy.deepcopy(engine.model.state_dict())
    train, held_out = world.questions[:TRAIN], world.questions[TRAIN:]

    def exact_match(name: str) -> float:
        return evaluate(held_out, engine, retriever, tmp_path / name, method=METHOD)["em"]

    em = {"warm-up": exact_match("warm-up")}
    for weighting in ("posterior", "uniform", "reversed"):
        engine.model.load_state_dict(warmed_up)
        gem(engine, retriever, train, weighting, seed)
        em[weighting] = exact_match(weighting)
    print(f"\nseed {seed}, held-out exact match:", {k: round(v, 2) for k, v in em.items()})  # noqa: T201
    assert em["posterior"] > em["warm-up"]
    assert em["posterior"] > em["uniform"]
    assert em["posterior"] > em["reversed"]
