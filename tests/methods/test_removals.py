"""Parts of the searcher can be left out, to see what each is worth."""

from __future__ import annotations

import pytest

from exsearch.errors import ConfigError
from exsearch.methods.base import Answer, Look, Malformed
from exsearch.methods.format import ANSWER_FRAME, SEARCH_FRAME, Search
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import CallKind, Evidence, Passage, Question, Step
from exsearch.training.warm_up import warm_up_data

QUESTION = Question("q", "Who wrote Dune?", ("Frank Herbert",))
FOUND = (Passage("d", "Dune", "By Frank [1] Herbert."), Passage("f", "", "A film."))


def test_without_recording_what_is_shown_goes_into_the_notes():
    steps: list[Step] = []
    plan = SearcherMethod(record=False, passages=2).plan(QUESTION, steps)
    next(plan)
    assert isinstance(plan.send(Search("dune")), Look)
    ask = plan.send(FOUND)
    assert steps == [
        Step("dune", FOUND, None, Evidence("Dune: By Frank (1) Herbert. A film.", ("d", "f")))
    ]
    assert ask.kind is CallKind.THINK
    assert ask.prompt.endswith("1. dune Dune: By Frank (1) Herbert. A film.")
    plan.send(Search("more"))
    plan.send(())
    assert steps[1] == Step("more", ())  # nothing was found, so nothing is noted


def test_the_first_thought_can_be_made_a_query():
    steps: list[Step] = []
    plan = SearcherMethod(always_search=True).plan(QUESTION, steps)
    ask = next(plan)
    assert ask.forced == SEARCH_FRAME
    assert ask.parse(" who wrote it") == Search("who wrote it")
    assert ask.parse(" ") == Malformed("empty_query")
    assert isinstance(plan.send(Search("dune")), Look)
    plan.send(FOUND)
    ask = plan.send(None)  # the record: nothing helped
    assert ask.forced == ""
    assert ask.parse("Answer: Frank Herbert") == Answer("Frank Herbert")


def test_without_thoughts_the_question_is_the_only_query():
    steps: list[Step] = []
    plan = SearcherMethod(think=False, max_steps=3).plan(QUESTION, steps)
    look = next(plan)
    assert isinstance(look, Look) and look.query == QUESTION.question
    assert plan.send(FOUND).kind is CallKind.RECORD
    ask = plan.send(None)
    assert (ask.kind, ask.forced) == (CallKind.ANSWER, ANSWER_FRAME)
    assert steps == [Step(QUESTION.question, FOUND)]
    assert next(SearcherMethod(think=False, max_steps=0).plan(QUESTION, [])).kind is CallKind.ANSWER


def test_without_searching_the_notes_are_what_the_model_knows():
    steps: list[Step] = []
    plan = SearcherMethod(search=False).plan(QUESTION, steps)
    next(plan)
    ask = plan.send(Search("author of Dune"))
    assert ask.kind is CallKind.RECORD and ask.prompt.endswith("Query: author of Dune")
    assert "passage" not in ask.prompt
    assert ask.parse(" Frank [1] Herbert ") == Evidence("Frank (1) Herbert", ())
    assert ask.parse("Nothing found.") is None
    assert ask.parse("a\nb") == Malformed("several_lines")
    ask = plan.send(Evidence("Frank Herbert", ()))
    assert ask.prompt.endswith("1. author of Dune Frank Herbert")
    assert steps == [Step("author of Dune", (), None, Evidence("Frank Herbert", ()))]


@pytest.mark.parametrize("left_out", ["think", "record"])
def test_a_searcher_that_has_nothing_left_to_do_is_refused(left_out):
    with pytest.raises(ConfigError, match="needs think and record"):
        SearcherMethod(search=False, **{left_out: False})


def test_warm_up_teaches_what_is_left(sample_questions, sample_retriever, tiny_engine):
    tokenizer = tiny_engine.tokenizer
    for method, kinds in (
        (SearcherMethod(passages=2, record=False), {CallKind.THINK}),
        (SearcherMethod(search=False), {CallKind.THINK, CallKind.RECORD}),
        (SearcherMethod(passages=2, always_search=True), {CallKind.THINK, CallKind.RECORD}),
    ):
        data = warm_up_data(sample_questions[:12], sample_retriever, tokenizer, method, examples=6)
        assert len(data.items) == 6
        for item in data.items:
            assert {call.kind for call in item.trajectory.calls} - {CallKind.ANSWER} == kinds
            first = tokenizer.decode(item.trajectory.calls[0].prompt_ids)
            assert first.endswith(SEARCH_FRAME) is method.always_search
            assert any(s.passages for s in item.trajectory.steps) is method.search
