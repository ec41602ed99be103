"""Each example teaches one action, and its prompt shows what its reply says."""

from __future__ import annotations

import dataclasses

import pytest

from exsearch.config import parse_config
from exsearch.errors import ConfigError, RetrieverError
from exsearch.evaluation.metrics import normalize
from exsearch.methods.format import NOTHING_FOUND
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Question
from exsearch.training.actions import action_data
from exsearch.training.batches import mean_loss_tokens, training_sequences
from exsearch.training.m_step import usable_questions
from exsearch.training.recipe import WarmUpConfig

METHOD = SearcherMethod(max_steps=4, passages=2, passage_words=24, show="query")


@pytest.fixture(scope="module")
def tokenizer(tiny_engine):
    return tiny_engine.tokenizer


@pytest.fixture(scope="module")
def questions(sample_questions):
    """Half of the sample as a data set with decompositions, half as one that has supports alone."""
    bare = [dataclasses.replace(q, decomposition=(), dataset="bare") for q in sample_questions[::2]]
    return [*bare, *(dataclasses.replace(q, dataset="full") for q in sample_questions[1::2])]


@pytest.fixture(scope="module")
def made(questions, sample_retriever, tokenizer):
    def make(action, dataset="*", count=8, seed=0):
        mix = {action: {dataset: count}}
        return action_data(questions, sample_retriever, tokenizer, METHOD, mix, seed=seed)

    return make


def said(item, tokenizer):
    """The prompt of the only call, and all that is learned after it."""
    (call,) = item.trajectory.calls
    (sequence,) = training_sequences(item)
    learned = [i for i, w in zip(sequence.input_ids, sequence.loss_weights, strict=True) if w]
    assert sequence.input_ids[: len(call.prompt_ids)] == call.prompt_ids
    return tokenizer.decode(call.prompt_ids), tokenizer.decode(learned)


def test_a_record_is_taught_from_supports_alone(made, tokenizer):
    data = made("record", "bare")
    assert len(data.items) >= 4
    for item in data.items:
        prompt, reply = said(item, tokenizer)
        assert "Copy the fact" in prompt
        assert reply.startswith("[")
        question = item.trajectory.question
        assert any(normalize(a) in normalize(reply) for a in question.answers)
        assert f"Query: {question.question}" in prompt
        text = reply.split("] ", 1)[1].split(": ")[-1]
        assert normalize(text)[:40] in normalize(prompt)  # it is shown
        assert item.answer_ids == () and item.trajectory.answer == ""


def test_nothing_is_taught_where_no_passage_holds_it(made, tokenizer):
    data = made("nothing")
    assert len(data.items) == 8
    for item in data.items:
        _, reply = said(item, tokenizer)
        assert reply.startswith(NOTHING_FOUND)
        question = item.trajectory.question
        (step,) = item.trajectory.steps
        assert not {p.id for p in step.passages} & {*question.supporting}


def test_an_answer_is_taught_from_notes_that_hold_it(made, tokenizer):
    items = made("answer", "full", 30).items
    assert len(items) >= 20
    irrelevant = 0
    for item in items:
        prompt, reply = said(item, tokenizer)
        answer = item.trajectory.question.distinct_answers[0]
        assert reply.startswith((f"Answer: {answer}", f" {answer}"))
        if answer not in ("yes", "no"):  # which follow from all notes together
            assert normalize(answer) in normalize(prompt.split("Notes:")[1])
        irrelevant += f"{item.trajectory.question.question} {NOTHING_FOUND}" in prompt
    assert 0 < irrelevant < len(items) / 2


def test_thoughts_are_drawn_evenly_over_how_they_begin(made, tokenizer):
    items = made("think", "full", 6).items
    begins = [
        tuple(item.trajectory.question.decomposition[-1].question.lower().split()[:2])
        for item in items
    ]
    assert len(set(begins)) == 6  # one of each kind before a second of any
    for item in items:
        _, reply = said(item, tokenizer)
        assert reply.startswith("Search: ")


def test_a_mix_is_counted_by_action_and_data_set(questions, sample_retriever, tokenizer):
    mix = {"whole": {"full": 3}, "record": {"bare": 2, "full": 1}, "think": {"bare": 5}}
    data = action_data(questions, sample_retriever, tokenizer, METHOD, mix)
    counts = {"whole, full": 3, "record, bare": 2, "record, full": 1, "think, bare": 0}
    assert data.counts == counts
    assert len(data.items) == 6
    assert not data.left_out.get("think: no decomposition")  # they are not even tried
    again = action_data(questions, sample_retriever, tokenizer, METHOD, mix)
    assert again.items == data.items
    other = action_data(questions, sample_retriever, tokenizer, METHOD, mix, seed=1)
    assert [i.trajectory.id for i in other.items] != [i.trajectory.id for i in data.items]
    assert usable_questions(data.items, -1e9).no_signal == 0
    assert mean_loss_tokens(data.items) > 0


@pytest.mark.parametrize("action", ["record", "answer", "nothing"])
def test_yes_and_no_stand_in_no_passage(sample_retriever, tokenizer, action):
    question = Question("y", "Is Bonn on the Rhine?", ("yes",), ("s-0059",))
    data = action_data([question], sample_retriever, tokenizer, METHOD, {action: {"*": 1}})
    assert not data.items
    assert sum(map(len, data.left_out.values())) == 1


def test_the_recipe_says_the_mix():
    config = parse_config(WarmUpConfig, {"mix": {"record": {"nq": 3}, "whole": {"*": 2}}})
    assert config.wanted and config.mix == {"record": {"nq": 3}, "whole": {"*": 2}}
    assert not WarmUpConfig().wanted
    for wrong, words in (
        ({"mix": {"read": {"nq": 3}}}, "mix.read"),
        ({"mix": {"record": {"nq": -3}}}, "below 0"),
        ({"mix": {"record": {"nq": 3}}, "examples": 3}, "examples and mix are both given"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_config(WarmUpConfig, wrong)


def test_other_methods_are_refused(questions, sample_retriever, tokenizer):
    transcript = dataclasses.replace(METHOD, context="transcript")
    with pytest.raises(ConfigError, match="searcher with context"):
        action_data(questions, sample_retriever, tokenizer, transcript, {"whole": {"*": 1}})


def test_a_search_that_fails_costs_its_own_question(questions, sample_retriever, tokenizer):
    class Failing:
        def __init__(self, ids):
            self.texts = {q.question for q in questions if q.id in ids}

        def search(self, queries, k):
            if self.texts.intersection(queries):
                raise RetrieverError("down")
            return sample_retriever.search(queries, k)

    bare = [q for q in questions if q.dataset == "bare"]
    one = Failing({bare[0].id})
    data = action_data(bare, one, tokenizer, METHOD, {"record": {"*": 999}})  # pyright: ignore[reportArgumentType]
    assert data.left_out["record: search failed"] == [bare[0].id]
    assert data.items
    every = Failing({q.id for q in bare})
    with pytest.raises(RetrieverError, match="down"):
        action_data(bare, every, tokenizer, METHOD, {"record": {"*": 999}})  # pyright: ignore[reportArgumentType]
