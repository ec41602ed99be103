"""Trajectories of few tokens, made by hand, and a model of three tokens, known in every value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
