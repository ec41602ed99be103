"""Turn scores are what a plain pass gives for the gold answer after each search."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from exsearch.agent.episode import answer_ids, begin
from exsearch.agent.rollout import rollout
from exsearch.agent.turns import with_turn_scores
from exsearch.engines.scripted import ScriptedEngine
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Question, StopReason, from_json, to_json
from exsearch.training.e_step import weigh
from exsearch.training.warm_up import warm_up_data

METHOD = SearcherMethod(
    max_steps=3, passages=1, passage_words=20, thought_tokens=24, record_tokens=32
)


@pytest.fixture(scope="module")
def annotated(tiny_engine, sample_questions, sample_retriever):
    data = warm_up_data(
        sample_questions, sample_retriever, tiny_engine.tokenizer, METHOD, examples=4
    )
    return [item.trajectory for item in data.items]


def plain(engine, prompt, answers):
    """Log Σ_y p(y | prompt) by a plain forward pass for each answer, in float64."""
    totals = []
    for answer in answers:
        target = answer_ids(answer, engine.tokenizer)
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0].double()
        log_probs = torch.log_softmax(logits, dim=-1)
        totals.append(sum(log_probs[len(prompt) + n - 1, t].item() for n, t in enumerate(target)))
    return np.logaddexp.reduce(totals)


def test_each_equals_a_plain_pass_and_the_last_the_stored_score(tiny_engine, annotated):
    engine = tiny_engine
    several = [
        dataclasses.replace(t, question=dataclasses.replace(t.question, answers=("Bonn", "it")))
        for t in annotated
    ]
    frame = engine.tokenizer.encode("Answer:")
    for trajectory, item in zip(
        with_turn_scores(several, engine), weigh(several, engine), strict=True
    ):
        scores, answers = trajectory.turn_scores, trajectory.question.answers
        assert len(scores) == len(trajectory.steps) + 1 >= 2
        # a_0: the question without notes, whatever was searched later
        first = begin(trajectory.question, METHOD, engine.tokenizer).prompt_ids()
        assert scores[0] == pytest.approx(plain(engine, (*first, *frame), answers), abs=1e-4)
        prompts = [
            (*call.prompt_ids, *(frame if call.kind == "think" else ()))  # a forced one has it
            for call in trajectory.calls
            if call.kind != "record"
        ]
        for score, prompt in zip(scores, prompts, strict=True):
            assert score == pytest.approx(plain(engine, prompt, answers), abs=1e-4)
        assert scores[-1] == pytest.approx(item.answer_log_prob, abs=1e-4)
        assert sum(trajectory.turn_gains) == pytest.approx(scores[-1] - scores[0], abs=1e-9)
        assert from_json(type(trajectory), to_json(trajectory)).turn_scores == scores


def test_a_forced_answer_is_scored_after_the_frame_that_was_forced(tiny_engine, sample_retriever):
    """At random the tiny model never answers by itself: no search is allowed, so it has to."""
    method = dataclasses.replace(METHOD, max_steps=0)
    question = Question("q", "Where?", ("Bonn",))
    (sampled,) = rollout([question], tiny_engine, sample_retriever, method=method)
    (trajectory,) = with_turn_scores([sampled], tiny_engine)
    prompt = trajectory.calls[0].prompt_ids
    expected = plain(tiny_engine, prompt, ("Bonn",))
    assert trajectory.turn_scores == pytest.approx((expected,), abs=1e-4)
    assert trajectory.turn_gains == ()


def test_what_was_cut_off_is_scored_as_far_as_it_came(tiny_engine, annotated):
    cut = [
        dataclasses.replace(
            t, calls=t.calls[:-1], answer="", answer_start=None, stop_reason=StopReason.MALFORMED
        )
        for t in annotated
    ]
    for whole, part in zip(
        with_turn_scores(annotated, tiny_engine), with_turn_scores(cut, tiny_engine), strict=True
    ):
        assert part.turn_scores == pytest.approx(whole.turn_scores[:-1], abs=1e-4)


def test_without_an_answer_or_token_ids_there_is_none(tiny_engine, annotated, sample_retriever):
    unknown = dataclasses.replace(annotated[0].question, answers=())
    without = dataclasses.replace(annotated[0], question=unknown)
    assert with_turn_scores([without, annotated[1]], tiny_engine)[0] == without
    failed = dataclasses.replace(annotated[0], calls=(), stop_reason=StopReason.RETRIEVER_ERROR)
    assert with_turn_scores([failed], tiny_engine) == [failed]


def test_an_evaluation_keeps_and_shows_them(tiny_engine, sample_retriever, tmp_path):
    from exsearch.evaluation.evaluate import evaluate
    from exsearch.runs import read_jsonl
    from exsearch.show.traces import find_traces, trace_text

    script = {"Notes:\nnone": "Search: x", "Query:": "Nothing found.", "Notes:\n1.": "Answer: Bonn"}
    question = Question("q", "Where?", ("Bonn",))
    evaluate([question], ScriptedEngine(script), sample_retriever, tmp_path, method=METHOD)
    (trace,) = find_traces(tmp_path)
    (row,) = read_jsonl(tmp_path / "predictions.jsonl")
    assert len(trace.turn_scores) == 2
    assert row["turn_gains"] == list(trace.turn_gains)
    shown = dataclasses.replace(trace, turn_scores=(-3.0, -1.5))
    assert "     gain: +1.50 (log p of the gold answer)" in trace_text(shown).splitlines()
