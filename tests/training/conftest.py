"""Trajectories of few tokens, made by hand, and a model of three tokens, known in every value."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from small_world import World, make_world, save_small_model, search, warm_up_items
from transformers import LlamaConfig, LlamaForCausalLM

from exsearch.engines.local.engine import TransformersEngine
from exsearch.methods.searcher import SearcherMethod
from exsearch.models.settings import ModelSettings
from exsearch.records import (
    Call,
    CallKind,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
)
from exsearch.training.checkpoint import save_model
from exsearch.training.m_step import m_step, new_optimizer
from exsearch.training.recipe import MStepConfig
from exsearch.training.warm_up import warm_up_data

PARIS = Question("q", "Where?", ("Paris",))


@pytest.fixture
def trajectory() -> Callable[..., Trajectory]:
    """A finished trajectory from pairs of prompt and output ids; the last call holds the answer."""

    def make(
        *calls: tuple[Sequence[int], Sequence[int]],
        answer_start: int | None = 1,
        question: Question = PARIS,
        sample: int = 0,
        stop_reason: StopReason = StopReason.ANSWERED,
        answer: str = "Paris",
        log_probs: float = -1.0,
        proposal_log_probs: float | None = None,
    ) -> Trajectory:
        kinds = [CallKind.THINK, CallKind.RECORD] * len(calls)
        if answer_start == 0:
            kinds[len(calls) - 1] = CallKind.ANSWER
        q = log_probs if proposal_log_probs is None else proposal_log_probs
        made = tuple(
            Call(kind, tuple(p), tuple(o), (log_probs,) * len(o), (q,) * len(o))
            for kind, (p, o) in zip(kinds, calls, strict=False)
        )
        steps = (Step("query", (Passage("p", "", "text"),)),) * (len(calls) // 2)
        return Trajectory(
            question, steps, made, answer, stop_reason, sample=sample, answer_start=answer_start
        )

    return make


@pytest.fixture
def weighted(trajectory: Callable[..., Trajectory]) -> Callable[..., WeightedTrajectory]:
    """A weighted trajectory from pairs of prompt and output ids."""

    def make(
        *calls: tuple[Sequence[int], Sequence[int]],
        weight: float = 1.0,
        answers: Sequence[Sequence[int]] = ((1, 2),),
        shares: Sequence[float] | None = None,
        **fields: object,
    ) -> WeightedTrajectory:
        shares = shares or [1 / len(answers)] * len(answers)
        return WeightedTrajectory(
            trajectory(*calls, **fields),
            weight,
            tuple(math.log(share) for share in shares),
            tuple(tuple(answer) for answer in answers),
        )

    return make


def three_token_model(bias: Sequence[float] = (math.log(2), math.log(1), math.log(1))):
    """A Llama over the tokens 0, 1, 2 that gives them 1/2, 1/4, 1/4 whatever went before.

    Its layers are random and real; its head has no weights, only a bias of three numbers.
    """
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=3,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    model.lm_head = torch.nn.Linear(8, 3)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(torch.tensor(bias))
    return model


@pytest.fixture
def constant_model():
    """`three_token_model`: log p is log 1/2, log 1/4, log 1/4 for the tokens 0, 1, 2."""
    return three_token_model()


@pytest.fixture
def tiny_model(tiny_model_folder):
    """The random two-layer model, fresh for each test: its weights may be changed."""
    return LlamaForCausalLM.from_pretrained(tiny_model_folder)


SMALL_METHOD = SearcherMethod(
    max_steps=2, passages=1, passage_words=20, thought_tokens=24, record_tokens=32
)


@pytest.fixture(scope="session")
def annotated(tiny_engine, sample_questions, sample_retriever) -> list[Trajectory]:
    """Finished trajectories of sample questions with the tokens of the tiny model; not sampled."""
    data = warm_up_data(
        sample_questions, sample_retriever, tiny_engine.tokenizer, SMALL_METHOD, examples=6
    )
    return [item.trajectory for item in data.items]


@pytest.fixture(scope="session")
def fluent_folder(tmp_path_factory) -> Path:
    """A model that follows the format in the small world, after a few seconds of warm-up."""
    folder = tmp_path_factory.mktemp("fluent")
    save_small_model(folder / "random", seed=0)
    engine = TransformersEngine(folder / "random", device="cpu")
    items = warm_up_items(engine.tokenizer, folder, random.Random(7), worlds=4, careless=0.3)
    config = MStepConfig(learning_rate=4e-3, epochs=3, questions_per_step=8, token_budget=4096)
    m_step(engine.model, new_optimizer(engine.model, config), items, config)
    save_model(engine.model, folder / "random", folder / "model", ModelSettings())
    return folder / "model"


@pytest.fixture
def fluent_engine(fluent_folder):
    """An engine on the fluent model, fresh for each test."""
    return TransformersEngine(fluent_folder, device="cpu")


@pytest.fixture(scope="session")
def world() -> World:
    """A small world that the fluent model has not seen."""
    return make_world(random.Random(0))


@pytest.fixture(scope="session")
def world_retriever(world, tmp_path_factory):
    """BM25 over `world`."""
    return search(world, tmp_path_factory.mktemp("world") / "index")
