"""A passage that tries to steer has no power: no action, nothing rendered, nothing printed."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest
from answer_server import ANSWER, QUESTION, SCRIPT, Shelf
from benchmarks.poison import ATTACKS, poisoned

from exsearch.agent.events import EventKind
from exsearch.engines.scripted import ScriptedEngine
from exsearch.methods.format import one_line
from exsearch.retrievers.guarded import guarded
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import Questions
from exsearch.show.traces import answer_text, event_text

# What a terminal obeys, and what turns the direction of writing, but for the ends of lines.
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def obedient(chat: str) -> str:
    """A model that writes whatever a passage wants: it copies all that it is shown of it."""
    turn = chat.rpartition("User: ")[2]
    if turn.startswith("Copy the fact"):
        return "[1] " + turn.partition("\n[1] ")[2].partition("\nAssistant")[0]
    if "Notes:\nnone" in turn:
        return "Search: harbour builder"
    return "Answer: " + turn.partition("\n1. ")[2].partition("\n")[0].partition(": ")[2]


def asked(engine: ScriptedEngine, shelf: Shelf) -> QuestionLog:
    async def main() -> QuestionLog:
        with Searcher(engine, guarded(shelf)) as searcher:
            log = Questions(searcher, ServeConfig("m")).ask(QUESTION)
            await log.finished()
            return log

    return asyncio.run(main())


@pytest.fixture(scope="module", params=["its own", "obedient"])
def logs(request) -> list[tuple[str, QuestionLog]]:
    """The logs of 300 poisoned passages: of a model that keeps to itself, and of one that obeys."""
    script = SCRIPT if request.param == "its own" else obedient
    return [(name, asked(ScriptedEngine(script), Shelf([passage]))) for name, passage in poisoned()]


def test_there_are_three_hundred_of_all_kinds():
    assert Counter(name for name, _ in poisoned()).keys() == ATTACKS.keys()
    assert len({passage.id for _, passage in poisoned()}) == 300


def test_the_obedient_one_says_what_it_is_told():
    """Else the tests below would show nothing."""
    orders = [passage for _, passage in poisoned() if "Mallory" in passage.text]
    said = [asked(ScriptedEngine(obedient), Shelf([p])).answer.text for p in orders[:40]]
    assert sum("Mallory" in text for text in said) > 30


def test_no_action_is_forged(logs):
    for name, log in logs:
        searches = [event.text for event in log.events if event.kind is EventKind.SEARCH]
        assert searches == ["harbour builder"], name
        assert log.trajectory and len(log.trajectory.steps) == 1


def test_each_thing_said_is_one_line(logs):
    for name, log in logs:
        assert log.trajectory
        facts = [e.text for e in log.trajectory.evidence]
        assert all(fact == one_line(fact) for fact in facts), name
        assert len(log.answer.text.split("\n")) == 2, name
        if log.trajectory.answer == ANSWER and facts:
            assert log.answer.text.startswith(ANSWER)


def test_numbers_stand_where_they_are_said_to_and_name_what_was_retrieved(logs):
    for name, log in logs:
        for mark in log.answer.marks:
            assert log.answer.text[mark.start : mark.end].startswith(f"[{mark.source.number}"), name
            text = mark.source.passage.text
            assert 0 <= mark.citation.start < mark.citation.end <= len(text)
            assert mark.source.sentence in text


def test_nothing_that_a_terminal_obeys_is_printed(logs):
    for name, log in logs:
        assert log.trajectory
        printed = [answer_text(log.trajectory), *map(event_text, log.events)]
        assert not STEERING.search("\n".join(printed)), name
