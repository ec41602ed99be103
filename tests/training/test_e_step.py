"""The E-step scores the gold answer after each trajectory, and its files do not show a stop."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import numpy as np
import pytest
import torch
from small_world import METHOD

from exsearch.agent.episode import answer_ids
from exsearch.agent.events import EventKind
from exsearch.agent.rollout import rollout
from exsearch.engines.base import Sampling, TooLongError
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import RetrieverError, TrainingError
from exsearch.records import StopReason, WeightedTrajectory
from exsearch.training.batches import training_sequences
from exsearch.training.e_step import (
    EStepConfig,
    sample_and_weigh,
    weigh,
)
from exsearch.training.m_step import usable_questions
from exsearch.trajectories import WeightedFile, by_question, read_traces


def plain_log_probs(model, prompt, continuation, temperature=1.0):
    """Log p of each token by a plain forward pass, in float64: no batch, no hook, no cache."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0].double()
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    return [log_probs[len(prompt) + n - 1, t].item() for n, t in enumerate(continuation)]


def gold_score(engine, trajectory, answer):
    """Log p(y|x,z) as the method has it: after the answer frame, with the end token, a sum."""
    last = trajectory.calls[-1]
    prompt = (*last.prompt_ids, *last.output_ids[: trajectory.answer_start])
    target = answer_ids(answer, engine.tokenizer)
    assert target[-1] == engine.tokenizer.end_id
    return sum(plain_log_probs(engine.model, prompt, target))


def samples_of(trajectory, *changes):
    """Samples of one question: the trajectory with each change made to it."""
    return [dataclasses.replace(trajectory, sample=n, **change) for n, change in enumerate(changes)]


MALFORMED = {"stop_reason": StopReason.MALFORMED, "answer_start": None, "answer": ""}
FAILED = {"stop_reason": StopReason.RETRIEVER_ERROR, "answer_start": None, "calls": ()}


def test_the_score_is_the_log_likelihood_of_the_gold_answer(tiny_engine, annotated):
    for item in weigh(annotated, tiny_engine):
        answers = item.trajectory.question.distinct_answers
        expected = [gold_score(tiny_engine, item.trajectory, answer) for answer in answers]
        assert item.answer_log_probs == pytest.approx(expected, abs=1e-4)
        assert item.answer_ids == tuple(answer_ids(a, tiny_engine.tokenizer) for a in answers)


def test_accepted_answers_are_added_up_as_probabilities(tiny_engine, annotated):
    question = dataclasses.replace(annotated[0].question, answers=("Bonn", "the town", "Bonn "))
    (item,) = weigh([dataclasses.replace(annotated[0], question=question)], tiny_engine)
    a = [gold_score(tiny_engine, annotated[0], answer) for answer in ("Bonn", "the town")]
    assert item.answer_log_prob == pytest.approx(np.logaddexp(*a), abs=1e-4)
    assert item.answer_shares == pytest.approx(np.exp(a) / np.exp(a).sum(), rel=1e-3)


def test_length_normalized_is_a_mean_over_tokens(tiny_engine, annotated):
    plain = weigh(annotated, tiny_engine)
    means = weigh(annotated, tiny_engine, EStepConfig(length_normalized=True))
    for total, mean in zip(plain, means, strict=True):
        for s, m, ids in zip(
            total.answer_log_probs, mean.answer_log_probs, total.answer_ids, strict=True
        ):
            assert m == pytest.approx(s / len(ids))


def test_failed_samples_leave_k_and_malformed_ones_stay(tiny_engine, annotated):
    samples = samples_of(annotated[0], {}, MALFORMED, FAILED)
    config = EStepConfig(weighting="likelihood")  # the weighting that shows K
    items = weigh(samples, tiny_engine, config)
    assert [i.trajectory.sample for i in items] == [0, 1]
    good, malformed = items
    assert good.weight == pytest.approx(math.exp(good.answer_log_prob) / 2)
    assert (malformed.weight, malformed.answer_log_probs) == (0.0, ())
    assert [i.weight for i in weigh(samples, tiny_engine)] == [1.0, 0.0]


def test_an_answer_that_does_not_fit_the_context_is_no_alternative(
    tiny_engine, annotated, monkeypatch
):
    log_prob = tiny_engine.log_prob

    def short(prompts, continuations):
        if any(len(c) > 12 for c in continuations):
            raise TooLongError("too long")
        return log_prob(prompts, continuations)

    monkeypatch.setattr(tiny_engine, "log_prob", short)
    question = dataclasses.replace(annotated[0].question, answers=("yes", "no " * 40))
    (item,) = weigh([dataclasses.replace(annotated[0], question=question)], tiny_engine)
    assert item.answer_log_probs == pytest.approx([gold_score(tiny_engine, annotated[0], "yes")])
    assert [len(ids) <= 12 for ids in item.answer_ids] == [True]


def test_a_question_whose_samples_all_failed_is_not_there(tiny_engine, annotated):
    samples = [*samples_of(annotated[0], FAILED, FAILED), annotated[1]]
    items = weigh(samples, tiny_engine)
    assert [i.trajectory.question.id for i in items] == [annotated[1].question.id]


def test_a_question_without_signal_has_weights_of_zero(tiny_engine, annotated):
    items = weigh(samples_of(annotated[0], MALFORMED, MALFORMED), tiny_engine)
    assert [i.weight for i in items] == [0.0, 0.0]
    assert not any(training_sequences(i) for i in items)
    assert usable_questions(items, -math.inf).no_signal == 1


def test_the_samples_of_a_question_are_found_in_any_order(tiny_engine, annotated):
    samples = [
        t
        for pair in zip(*[samples_of(t, {}, {}) for t in annotated[:2]], strict=True)
        for t in pair
    ]
    items = weigh(samples, tiny_engine)
    assert [i.weight for i in items] == pytest.approx([0.5] * 4)
    assert [len(group) for group in by_question(items)] == [2, 2]


def test_what_cannot_be_weighed_is_refused(tiny_engine, annotated):
    call = dataclasses.replace(annotated[0].calls[0], prompt_ids=())
    with pytest.raises(ValueError, match="carries no token ids"):
        weigh([dataclasses.replace(annotated[0], calls=(call,))], tiny_engine)
    question = dataclasses.replace(annotated[0].question, answers=(" ",))
    with pytest.raises(ValueError, match="has no answers to weigh by"):
        weigh([dataclasses.replace(annotated[0], question=question)], tiny_engine)


def test_rollout_stores_both_distributions_token_by_token(fluent_engine, world, world_retriever):
    trajectories = rollout(
        world.questions[:3], fluent_engine, world_retriever, samples=2, method=METHOD,
        sampling=Sampling(0.7), seed=3,
    )  # fmt: skip
    for call in (call for t in trajectories for call in t.calls):
        p = plain_log_probs(fluent_engine.model, call.prompt_ids, call.output_ids)
        q = plain_log_probs(fluent_engine.model, call.prompt_ids, call.output_ids, temperature=0.7)
        assert call.log_probs == pytest.approx(p, abs=1e-3)
        assert call.proposal_log_probs == pytest.approx(q, abs=1e-3)


def test_the_correction_for_another_proposal_against_brute_force(
    fluent_engine, world, world_retriever
):
    """At temperature 0.7: w_k is p(z_k) p(y*|z_k) / q(z_k), normalised, recomputed from the ids."""
    config = EStepConfig(temperature=0.7)
    trajectories = rollout(
        world.questions[:6], fluent_engine, world_retriever, samples=4, method=METHOD,
        sampling=config.sampling, seed=0,
    )  # fmt: skip
    model, compared = fluent_engine.model, 0
    for group in by_question(weigh(trajectories, fluent_engine, config)):
        if sum(i.weight > 0 for i in group) < 2:
            continue
        logs = []
        for item in group:
            t = item.trajectory
            log = -math.inf
            if t.answer_start is not None:
                log = np.logaddexp.reduce(
                    [gold_score(fluent_engine, t, a) for a in t.question.distinct_answers]
                )
            for call, n in t.latent_calls:
                z = call.output_ids[:n]
                log += sum(plain_log_probs(model, call.prompt_ids, z))
                log -= sum(plain_log_probs(model, call.prompt_ids, z, temperature=0.7))
            logs.append(log)
        brute = np.exp(np.array(logs) - max(logs))
        assert [i.weight for i in group] == pytest.approx(brute / brute.sum(), abs=1e-3)
        compared += 1
    assert compared >= 2


def test_without_the_correction_the_proposal_is_left_out(tiny_engine, annotated):
    sampled = [
        dataclasses.replace(
            annotated[0],
            sample=n,
            calls=tuple(
                dataclasses.replace(
                    c,
                    log_probs=(-1.0,) * len(c.output_ids),
                    proposal_log_probs=(q,) * len(c.output_ids),
                )
                for c in annotated[0].calls
            ),
        )
        for n, q in enumerate((-1.0, -1.1))
    ]
    tokens = sum(n for _, n in sampled[0].latent_calls)
    # What they were drawn from is told by themselves, whatever a later E-step would sample from.
    for config in (EStepConfig(temperature=0.7), EStepConfig()):
        corrected = weigh(sampled, tiny_engine, config)
        ratio = corrected[1].weight / corrected[0].weight
        assert ratio == pytest.approx(math.exp(0.1 * tokens), rel=1e-6)
    config = EStepConfig(temperature=0.7, proposal_correction=False)
    assert [i.weight for i in weigh(sampled, tiny_engine, config)] == pytest.approx([0.5, 0.5])


# --- chunks ---


class Stopped(Exception):
    """The process is killed here."""


def run_e_step(engine, retriever, questions, method, file, stop_after=None, **settings):
    """An E-step over chunks of two questions; killed once more than `stop_after` samples ended."""
    seen = 0

    def ended(event):
        nonlocal seen
        seen += event.kind is EventKind.END
        if stop_after is not None and seen > stop_after:
            raise Stopped

    config = EStepConfig(samples=2, chunk=2, **settings)
    return sample_and_weigh(
        questions, engine, retriever, file, config, method, seed=5, iteration=1,
        on_event=ended,
    )  # fmt: skip


def test_a_stopped_e_step_goes_on_to_the_same_bytes(
    fluent_engine, world, world_retriever, tmp_path
):
    parts = (fluent_engine, world_retriever, world.questions[:5], METHOD)
    whole = run_e_step(*parts, tmp_path / "whole.jsonl")
    file = tmp_path / "stopped.jsonl"
    for samples in (0, 4, 0, 4):  # in the first chunk, then in the second, again, in the third
        with pytest.raises(Stopped):
            run_e_step(*parts, file, stop_after=samples)
        with file.open("ab") as torn:  # what a kill in the middle of a write leaves
            torn.write(b'{"schema_version":1,"trajec')
    facts = run_e_step(*parts, file)
    assert file.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [f["samples"] for f in facts] == [f["samples"] for f in whole] == [4, 4, 2]
    assert run_e_step(*parts, file) == facts  # nothing is sampled again
    items = list(WeightedFile(file))
    assert [i.trajectory.id for i in items] == [
        f"{q.id}#{n}" for q in world.questions[:5] for n in range(2)
    ]
    assert all(i.trajectory.iteration == 1 for i in items)


class Unscored(ScriptedEngine):
    """Gives token ids, and no log-probs of a given answer."""

    scores = False

    def log_prob(self, prompts, continuations):
        raise AssertionError("it can't")


@pytest.mark.parametrize("kind", [ScriptedEngine, Unscored])
def test_an_engine_without_scores_gives_plain_trajectories(kind, world, tmp_path):
    engine = kind({"Notes:": "Answer: City1"})
    file = tmp_path / "t.jsonl"
    (facts,) = run_e_step(engine, None, world.questions[:2], METHOD, file)
    assert (facts["samples"], facts["failed"]) == (4, 0)
    weighted = [isinstance(trace, WeightedTrajectory) for trace in read_traces(file)]
    assert weighted == [kind is ScriptedEngine] * 4


class FailingRetriever:
    """The real retriever, except that searches for which `fails` is true fail."""

    def __init__(self, inner, fails):
        self.inner, self.fails = inner, fails

    def search(self, queries, k):
        if any(map(self.fails, queries)):
            raise RetrieverError("the server is away")
        return self.inner.search(queries, k)


def test_what_fails_now_and_then_changes_no_byte_of_the_data(
    fluent_engine, world, world_retriever, tmp_path
):
    """One search in ten fails, and succeeds when it is tried again."""
    draw, failures = random.Random(1), []

    class Flaky:
        def search(self, queries, k):
            if any(draw.random() < 0.1 for _ in queries):
                failures.append(queries)
                raise ConnectionResetError("gone for a moment")
            return world_retriever.search(queries, k)

    questions = world.questions[:10]
    files = [tmp_path / "undisturbed.jsonl", tmp_path / "flaky.jsonl"]
    for file, retriever in zip(files, (world_retriever, Flaky()), strict=True):
        facts = run_e_step(fluent_engine, retriever, questions, METHOD, file)
        assert sum(f["failed"] for f in facts) == 0
    assert len(failures) >= 3
    assert files[0].read_bytes() == files[1].read_bytes()


def test_too_many_failures_stop_the_run(fluent_engine, world, world_retriever, tmp_path):
    away = FailingRetriever(world_retriever, lambda _: True)
    parts = (fluent_engine, away, world.questions[:2], METHOD, tmp_path / "t.jsonl")
    with pytest.raises(TrainingError, match=r"samples failed, .*the server is away"):
        run_e_step(*parts)
    assert not (tmp_path / "t.jsonl").exists()  # a chunk is written whole or not at all


def test_one_failure_in_a_small_last_chunk_does_not_stop_the_run(
    fluent_engine, world, world_retriever, tmp_path
):
    """Three questions in chunks of two: the last one fails, both of its samples of six in all."""
    plain = rollout(
        world.questions[:6], fluent_engine, world_retriever, samples=2, method=METHOD,
        seed=5, iteration=1,
    )  # fmt: skip
    asked = {t.id: {s.query for s in t.steps} for t in plain}
    last = next(q for q in world.questions if asked[f"{q.id}#0"] and asked[f"{q.id}#1"])
    gone = asked[f"{last.id}#0"] | asked[f"{last.id}#1"]
    others = [
        q for q in world.questions[:6] if not gone & (asked[f"{q.id}#0"] | asked[f"{q.id}#1"])
    ]
    questions = [*others[:2], last]
    flaky = FailingRetriever(world_retriever, lambda query: query in gone)
    parts = (fluent_engine, flaky, questions, METHOD)
    facts = run_e_step(*parts, tmp_path / "t.jsonl", max_error_share=0.4)
    assert [f["failed"] for f in facts] == [0, 2]
    with pytest.raises(TrainingError, match="2 of 6 samples failed"):
        run_e_step(*parts, tmp_path / "few.jsonl", max_error_share=0.3)
    with pytest.raises(TrainingError, match="2 of 2 samples failed"):
        run_e_step(fluent_engine, flaky, questions[2:], METHOD, tmp_path / "one.jsonl")


def test_a_failed_search_never_becomes_training_data(
    fluent_engine, world, world_retriever, tmp_path
):
    plain = rollout(
        world.questions[:2], fluent_engine, world_retriever, samples=2, method=METHOD,
        seed=5, iteration=1,
    )  # fmt: skip
    query = next(t.steps[0].query for t in plain if t.steps)
    hit = {t.id for t in plain if any(query == s.query for s in t.steps)}
    flaky = FailingRetriever(world_retriever, lambda q: q == query)
    file = tmp_path / "t.jsonl"
    (facts,) = run_e_step(
        fluent_engine, flaky, world.questions[:2], METHOD, file, max_error_share=1.0
    )
    assert facts["failed"] == len(hit) > 0
    items = list(WeightedFile(file))
    assert {i.trajectory.id for i in items} == {t.id for t in plain} - hit
    assert not any(i.trajectory.stop_reason.is_error for i in items)
    assert "the server is away" not in json.dumps(
        [s.sources for i in items for s in training_sequences(i)]
    )
