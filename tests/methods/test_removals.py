"""Parts of the searcher can be left out, to see what each is worth."""

from __future__ import annotations

from exsearch.methods.base import Answer, Look, Malformed
from exsearch.methods.format import SEARCH_FRAME, Search
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


def test_warm_up_teaches_what_is_left(sample_questions, sample_retriever, tiny_engine):
    tokenizer = tiny_engine.tokenizer
    for method, kinds in (
        (SearcherMethod(passages=2, record=False), {CallKind.THINK}),
        (SearcherMethod(passages=2, always_search=True), {CallKind.THINK, CallKind.RECORD}),
    ):
        data = warm_up_data(sample_questions[:12], sample_retriever, tokenizer, method, examples=6)
        assert len(data.items) == 6
        for item in data.items:
            assert {call.kind for call in item.trajectory.calls} - {CallKind.ANSWER} == kinds
            first = tokenizer.decode(item.trajectory.calls[0].prompt_ids)
            assert first.endswith(SEARCH_FRAME) is method.always_search
