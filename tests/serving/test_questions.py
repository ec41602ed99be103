"""Questions are taken in up to a bound, told by their logs, and given up where nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any

import pytest
from answer_server import ANSWER, QUESTION, SCRIPT, Shelf
from opentelemetry.trace import NoOpTracer, Span, SpanContext, TraceFlags

from exsearch.agent.events import EventKind
from exsearch.engines.scripted import ScriptedEngine
from exsearch.records import StopReason
from exsearch.retrievers.guarded import guarded
from exsearch.searcher import Found, Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.faces.spans import tell_spans
from exsearch.serving.questions import (
    BadQuestionError,
    BusyError,
    ClosingError,
    GivenUpError,
    Questions,
)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def run(shelf: Shelf):
    """Runs a coroutine function with the questions of a server, by settings."""

    def run(body: Callable[[Questions], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
        async def main() -> Any:
            with Searcher(ScriptedEngine(SCRIPT), guarded(shelf)) as searcher:
                questions = Questions(searcher, ServeConfig("m", **settings))
                try:
                    return await body(questions)
                finally:
                    shelf.free.set()

        return asyncio.run(main())

    return run


async def followed(log: Any) -> list[Any]:
    return [event async for event in log.follow()]


def test_a_log_tells_all_from_the_start_to_whoever_follows(run):
    async def body(questions: Questions) -> None:
        log = questions.ask(QUESTION)
        early, other = await asyncio.gather(followed(log), followed(log))
        late = await followed(log)
        assert early == other == late == log.events
        kinds = [event.kind.value for event in early]
        assert kinds == [
            *("begun", "search", "passages", "begun", "evidence"),
            *("begun", "answer", "end"),
        ]
        assert [e.at for e in early] == sorted(e.at for e in early) and early[0].at >= log.began
        assert log.trajectory and log.trajectory.answer == ANSWER
        assert log.answer.text.startswith(f"{ANSWER} [1]\n- ")
        assert len(questions) == 0 and questions.find(log.id) is log

    run(body)


def test_what_a_pass_tells_of_many_questions_wakes_the_loop_once(run, shelf, monkeypatch):
    async def body(questions: Questions) -> None:
        futures, submit = [], questions.searcher.submit

        def kept(*asked: Any, **more: Any) -> Future[Found]:
            futures.append(submit(*asked, **more))
            return futures[-1]

        monkeypatch.setattr(questions.searcher, "submit", kept)
        shelf.free.clear()
        logs = [questions.ask(QUESTION) for _ in range(20)]
        while not any(log.events and log.events[-1].kind is EventKind.SEARCH for log in logs):
            await asyncio.sleep(0.01)  # the others wait for this search, or are in it
        await asyncio.sleep(0.1)
        loop, wakes = asyncio.get_running_loop(), []
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *c: (wakes.append(1), wake(*c)))
        shelf.free.set()
        wait(futures)  # the loop is busy, and all of them end
        assert len(wakes) == 1, "one for more than a hundred events"
        await asyncio.gather(*(log.finished() for log in logs))
        for log in logs:
            assert [e.at for e in log.events] == sorted(e.at for e in log.events)
            assert log.events[-1].kind is EventKind.END and log.answer.answer == ANSWER

    run(body)


def test_what_idles_is_told_while_nothing_happens(run, shelf):
    async def body(questions: Questions) -> None:
        shelf.free.clear()
        log, seen = questions.ask(QUESTION), []
        async for event in log.follow(idle=0.05):
            seen.append(event)
            if event is None:
                shelf.free.set()
        assert None in seen and [e for e in seen if e] == log.events

    run(body)


@pytest.mark.parametrize("text", ["", " \n\t", "x" * 20_001, "half \ud800"])
def test_what_is_no_question_is_refused(text, run):
    async def body(questions: Questions) -> None:
        with pytest.raises(BadQuestionError):
            questions.ask(text)
        assert len(questions) == 0

    run(body)


def test_more_than_the_bound_is_turned_away_until_one_ends(run, shelf):
    async def body(questions: Questions) -> None:
        shelf.free.clear()
        logs = [questions.ask(QUESTION), questions.ask(QUESTION)]
        with pytest.raises(BusyError, match="2 questions"):
            questions.ask(QUESTION)
        shelf.free.set()
        await asyncio.gather(*(log.finished() for log in logs))
        await questions.ask(QUESTION).finished()

    run(body, max_questions=2)


def test_a_client_that_goes_leaves_nothing_behind(run, shelf):
    async def body(questions: Questions) -> None:
        shelf.free.clear()
        async with questions.asked(QUESTION) as log:
            pass
        assert isinstance(log.error, GivenUpError) and log.trajectory is None
        await asyncio.sleep(0)
        assert len(questions) == 0 and questions.find(log.id) is None
        shelf.free.set()
        assert not log.events or log.events[-1].kind is not EventKind.ANSWER

    run(body)


def test_a_question_without_end_is_given_up_at_its_deadline(run, shelf):
    async def body(questions: Questions) -> None:
        shelf.free.clear()
        log = questions.ask(QUESTION)
        await asyncio.wait_for(log.finished(), 5)
        assert str(log.error) == "no answer within 0.2 seconds"
        await asyncio.sleep(0)
        assert len(questions) == 0

    run(body, deadline=0.2)


def test_a_failed_search_is_told_and_no_answer(run, shelf):
    async def body(questions: Questions) -> None:
        shelf.broken = True
        log = questions.ask(QUESTION)
        await log.finished()
        assert "the shelf is broken" in str(log.error)
        assert log.trajectory and log.trajectory.stop_reason is StopReason.RETRIEVER_ERROR

    run(body)


def test_only_the_newest_are_remembered_and_one_can_be_forgotten(run):
    async def body(questions: Questions) -> None:
        logs = []
        for _ in range(3):
            logs.append(questions.ask(QUESTION))
            await logs[-1].finished()
        assert [questions.find(log.id) for log in logs] == [None, *logs[1:]]
        assert questions.forget(logs[2].id) and not questions.forget(logs[2].id)
        assert questions.find(logs[2].id) is None

    run(body, kept=2)


def test_who_closes_waits_for_what_is_in_hand(run, shelf):
    async def body(questions: Questions) -> None:
        shelf.free.clear()
        log = questions.ask(QUESTION)
        draining = asyncio.create_task(questions.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        with pytest.raises(ClosingError):
            questions.ask(QUESTION)
        shelf.free.set()
        await draining
        assert log.trajectory and log.trajectory.answer == ANSWER

    run(body)


class _Kept(NoOpTracer):
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[_Span] = []

    def start_span(self, name, context=None, kind=None, attributes=None, **more):  # type: ignore[override]
        self.spans.append(_Span(name, dict(attributes or {}), more["start_time"]))
        return self.spans[-1]


class _Span(Span):
    """A span that keeps its facts."""

    def __init__(self, name: str, facts: dict[str, Any], start: int):
        self.name, self.facts, self.start, self.ended, self.status = name, facts, start, 0, None

    def end(self, end_time: int | None = None) -> None:
        self.ended = end_time or 0

    def get_span_context(self) -> SpanContext:
        return SpanContext(1, 1, False, TraceFlags(1))

    def set_status(self, status, description=None) -> None:
        self.status = status

    def set_attributes(self, attributes) -> None: ...
    def set_attribute(self, key, value) -> None: ...
    def add_event(self, name, attributes=None, timestamp=None) -> None: ...
    def update_name(self, name) -> None: ...
    def is_recording(self) -> bool:
        return True

    def record_exception(self, *args, **more) -> None: ...


def test_spans_tell_each_call_and_search_and_no_text(run, shelf):
    async def body(questions: Questions) -> None:
        for broken in (False, True):
            shelf.broken, tracer = broken, _Kept()
            log = questions.ask(QUESTION)
            await log.finished()
            tell_spans(log, "m", tracer)
            whole, *parts = tracer.spans
            names = [(p.name, p.facts.get("exsearch.action")) for p in parts]
            expected = [("chat m", "think"), ("retrieval", None)]
            more = [("chat m", "record"), ("chat m", "think")]
            assert names == expected + ([] if broken else more)
            assert whole.facts["gen_ai.operation.name"] == "invoke_agent"
            assert (whole.status is not None) == broken
            for part in parts:
                assert whole.start <= part.start <= part.ended <= whole.ended
            said = repr([(s.name, s.facts) for s in tracer.spans])
            assert not any(text in said for text in (QUESTION, ANSWER, "harbour"))
            assert (
                sum(p.facts.get("gen_ai.usage.output_tokens", 0) for p in parts)
                == (whole.facts["gen_ai.usage.output_tokens"])
            )

    run(body)
