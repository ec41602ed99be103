"""GEM itself: where every trajectory is known, the M-step's gradient is that of log p(y*|x).

Each trajectory of a tiny world is written out: every way to search, to record, and to stop within
two steps. Taken as samples of a proposal that is uniform over them, with their true log p(z|x),
they get the exact posterior as weights, and the evidence lower bound is tight.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from whole_loss import weighted_loss

from exsearch.agent.episode import Episode, begin
from exsearch.engines.local.engine import TransformersEngine
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Call, CallKind, Passage, Question, Trajectory, WeightedTrajectory
from exsearch.training.batches import training_sequences
from exsearch.training.e_step import EStepConfig, weigh
from exsearch.training.m_step import m_step, new_optimizer
from exsearch.training.recipe import MStepConfig

QUESTION = Question("q", "Where was Ada born?", ("Bonn", "the town of Bonn"))
FOUND = {
    "Ada": Passage("ada", "Ada", "Ada was born in Bonn."),
    "Bob": Passage("bob", "Bob", "Bob was born in Paris."),
}
METHOD = SearcherMethod(max_steps=2, passages=1)
UNIFORM = -3.0  # log q of a whole trajectory; any constant


@pytest.fixture(scope="module")
def engine(tiny_model_folder):
    """The tiny model in float64, after a few steps on all trajectories: none is out of reach."""
    engine = TransformersEngine(tiny_model_folder, device="cpu")
    engine.model.double()
    config = MStepConfig(learning_rate=1e-2, epochs=12, token_budget=8192)
    same = weigh(list(every_trajectory(engine)), engine, EStepConfig(weighting="uniform"))
    m_step(engine.model, new_optimizer(engine.model, config), same, config)
    return engine


def outputs(kind: CallKind, step: int) -> list[str]:
    """All that can be written: two sub-queries or the answer, two records, the answer's end."""
    if kind is CallKind.ANSWER:
        return [" x"]  # the sampled answer is no part of z
    if kind is CallKind.THINK:
        return ["Search: Ada", "Search: Bob", *(["Answer: x"] if step else [])]
    return ["Nothing found.", "[1] born"]


def every_trajectory(engine: TransformersEngine) -> Iterator[Trajectory]:
    """Grow episodes by all outputs, through the method's own code, until all have ended."""
    tokenizer = engine.tokenizer

    def replay(choices: tuple[str, ...]) -> Episode:
        episode = begin(QUESTION, METHOD, tokenizer)
        for text in choices:
            assert episode.ask is not None
            ids = (*tokenizer.encode(text), tokenizer.end_id)
            episode.take(Call(episode.ask.kind, episode.prompt_ids(), ids), finished=True)
            if episode.look:
                episode.found([FOUND[episode.look.query]])
        return episode

    growing: list[tuple[str, ...]] = [()]
    numbers = itertools.count()
    while growing:
        choices = growing.pop()
        episode = replay(choices)
        if episode.ask is not None:
            growing += [(*choices, text) for text in outputs(episode.ask.kind, len(episode.steps))]
        else:
            yield dataclasses.replace(episode.trajectory(), sample=next(numbers))


def with_log_probs(t: Trajectory, engine: TransformersEngine) -> Trajectory:
    """The trajectory with log p of its tokens, and a log q that adds up to `UNIFORM` over z."""
    tokens = sum(n for _, n in t.latent_calls)
    log_probs = engine.log_prob([c.prompt_ids for c in t.calls], [c.output_ids for c in t.calls])
    calls = tuple(
        dataclasses.replace(
            c, log_probs=lp, proposal_log_probs=(UNIFORM / tokens,) * len(c.output_ids)
        )
        for c, lp in zip(t.calls, log_probs, strict=True)
    )
    return dataclasses.replace(t, calls=calls)


@pytest.fixture(scope="module")
def enumerated(engine) -> list[Trajectory]:
    return [with_log_probs(t, engine) for t in every_trajectory(engine)]


def exact(engine, enumerated, **settings) -> list[WeightedTrajectory]:
    return weigh(enumerated, engine, EStepConfig(**settings))


def log_likelihood(engine: TransformersEngine, enumerated: list[Trajectory]) -> torch.Tensor:
    """Log Σ_z p(z|x) Σ_j p(y_j|x,z), by plain forward passes: nothing of the M-step is used."""

    def log_p(prompt: tuple[int, ...], continuation: tuple[int, ...]) -> torch.Tensor:
        ids = torch.tensor([[*prompt, *continuation]])
        logits = torch.log_softmax(engine.model(input_ids=ids).logits[0], dim=-1)
        places = range(len(prompt) - 1, ids.shape[1] - 1)
        return torch.stack(
            [logits[place, t] for place, t in zip(places, continuation, strict=True)]
        ).sum()

    tokenizer, terms = engine.tokenizer, []
    for t in enumerated:
        z = sum(log_p(c.prompt_ids, c.output_ids[:n]) for c, n in t.latent_calls if n)
        last = t.calls[-1]
        prompt = (*last.prompt_ids, *last.output_ids[: t.answer_start])
        for answer in QUESTION.answers:
            terms.append(z + log_p(prompt, (*tokenizer.encode(f" {answer}"), tokenizer.end_id)))
    return torch.logsumexp(torch.stack(terms), dim=0)


def flat_gradient(engine: TransformersEngine, value: torch.Tensor) -> torch.Tensor:
    engine.model.zero_grad()
    value.backward()
    return torch.cat([p.grad.flatten() for p in engine.model.parameters()])


@pytest.fixture(scope="module")
def true_gradient(engine, enumerated) -> torch.Tensor:
    return flat_gradient(engine, log_likelihood(engine, enumerated))


def difference(engine, items, true_gradient) -> float:
    """How far the M-step's gradient is from that of -log p(y*|x), relative to its length."""
    sequences = [s for item in items for s in training_sequences(item)]
    gradient = flat_gradient(engine, weighted_loss(engine.model, sequences))
    return float((gradient + true_gradient).norm() / true_gradient.norm())


def reversed_weights(items: list[WeightedTrajectory]) -> list[WeightedTrajectory]:
    order = sorted(range(len(items)), key=lambda k: items[k].weight)
    weights = [items[k].weight for k in order]
    swapped = dict(zip(order, reversed(weights), strict=True))
    return [dataclasses.replace(item, weight=swapped[k]) for k, item in enumerate(items)]


def test_all_ways_are_there(enumerated):
    # a step is one of 2 sub-queries and one of 2 records; the model may stop after the first step
    # or go on to the second, after which the frame is forced: 4 + 4 · 4
    assert len(enumerated) == 20
    assert len({tuple(c.output_ids for c in t.calls) for t in enumerated}) == 20
    assert {t.stop_reason.value for t in enumerated} == {"answered", "max_steps"}


def test_exact_weights_are_the_posterior(engine, enumerated):
    items = exact(engine, enumerated)
    joint = [t.latent_log_prob + i.answer_log_prob for t, i in zip(enumerated, items, strict=True)]
    total = torch.logsumexp(torch.tensor(joint, dtype=torch.float64), 0).item()
    assert [i.weight for i in items] == pytest.approx([math.exp(j - total) for j in joint])
    assert sum(i.weight for i in items) == pytest.approx(1)
    # and the objective is the likelihood itself
    assert total == pytest.approx(log_likelihood(engine, enumerated).item(), rel=1e-9)


def test_the_gradient_is_that_of_the_likelihood(engine, enumerated, true_gradient):
    items = exact(engine, enumerated)
    assert 2 < 1 / sum(i.weight**2 for i in items) < 19  # neither one trajectory nor all alike
    assert difference(engine, items, true_gradient) < 1e-5


@pytest.mark.parametrize("weighting", ["uniform", "best"])
def test_other_weightings_go_elsewhere(engine, enumerated, true_gradient, weighting):
    assert difference(engine, exact(engine, enumerated, weighting=weighting), true_gradient) > 0.1


def test_reversed_weights_go_elsewhere(engine, enumerated, true_gradient):
    items = reversed_weights(exact(engine, enumerated))
    assert difference(engine, items, true_gradient) > 0.1


def test_a_mean_over_answer_tokens_goes_elsewhere(engine, enumerated, true_gradient):
    items = exact(engine, enumerated, length_normalized=True)
    assert difference(engine, items, true_gradient) > 0.01


def test_without_the_proposals_ratio_it_goes_elsewhere(engine, enumerated, true_gradient):
    items = exact(engine, enumerated, proposal_correction=False)
    assert difference(engine, items, true_gradient) > 0.01


def test_likelihood_weights_give_the_gradient_of_the_likelihood_itself(
    engine, enumerated, true_gradient
):
    """It is dp = p · d log p: the same direction, scaled by 1/K Σ_k p(z_k, y*) / q(z_k)."""
    items = exact(engine, enumerated, weighting="likelihood")
    value = log_likelihood(engine, enumerated).item() - UNIFORM - math.log(len(enumerated))
    scaled = [dataclasses.replace(i, weight=i.weight / math.exp(value)) for i in items]
    assert difference(engine, scaled, true_gradient) < 1e-5


def test_exact_weights_do_not_depend_on_the_proposal_that_was_written_down(engine, enumerated):
    """Any constant log q gives the same posterior."""
    items = exact(engine, enumerated)
    shifted = [
        dataclasses.replace(
            t,
            calls=tuple(
                dataclasses.replace(
                    c, proposal_log_probs=tuple(2 * lq for lq in c.proposal_log_probs)
                )
                for c in t.calls
            ),
        )
        for t in enumerated
    ]
    again = [i.weight for i in exact(engine, shifted)]
    assert again == pytest.approx([i.weight for i in items])
