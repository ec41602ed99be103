"""A searcher shared by threads answers each as if alone, and a crash reaches all who wait."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import exsearch
from exsearch.agent.events import Event, EventKind
from exsearch.engines.base import Engine
from exsearch.engines.local.engine import TransformersEngine
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import EngineError
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import StopReason, Trajectory
from exsearch.retrievers.base import Retriever
from steered import GOES_ON, Steered

METHOD = SearcherMethod(
    max_steps=2, passages=2, passage_words=12, thought_tokens=10, record_tokens=8
)
WORDS = ("river", "play", "city", "school", "novel")
THREADS, EACH = 8, 20
# Fewer than are asked, so that some are asked several times at once.
TEXTS = [f"Which {WORDS[n % 5]} is number {n}?" for n in range(40)]


def number(turn: str) -> int:
    return int(turn.split(" is number ")[1].split("?")[0])


def script(turn: str) -> str:
    """Searches for what the question names, and answers by its number; some questions go wrong."""
    if "Query:" in turn:
        return "[1] it is so" if "novel" not in turn else "Nothing found."
    n = number(turn)
    if turn.endswith("nswer:"):
        return f" forced {n}"
    if "\n2. " in turn or ("\n1. " in turn and n % 2):
        return f"Answer: {n}"
    return f"Search: a {WORDS[n % 5]}" if n % 7 else "hm"


def scripted() -> ScriptedEngine:
    return ScriptedEngine(
        lambda chat: script(chat.rpartition("User: ")[2].removesuffix("\nAssistant: "))
    )


class Counting(Steered):
    """Counts the engine's passes, and those that wrote for several questions."""

    def __init__(self, inner: TransformersEngine):
        super().__init__(inner, steered)
        self.passes = self.shared = 0

    def open(self) -> Any:
        session = super().open()
        step = session.step

        def counted() -> Any:
            self.passes += 1
            self.shared += len(session._batch._rows) > 1
            return step()

        session.step = counted
        return session


def steered(turn: str, key: int) -> str:
    """The same script; the model itself goes on with every third record."""
    reply = script(turn.removesuffix("\nassistant\n"))
    return f"[1] it{GOES_ON}" if reply.startswith("[1]") and "school" in turn else reply


def gist(t: Trajectory) -> tuple[Any, ...]:
    """All of a trajectory but times and the last bits of its log-probs."""
    calls = [(c.kind, c.prompt_ids, c.output_ids) for c in t.calls]
    return t.question, t.answer, t.steps, t.stop_reason, t.retries, t.malformed, calls


@pytest.mark.parametrize("kind", ["scripted", "transformers"])
def test_many_threads_get_what_each_would_get_alone(
    kind: str, tiny_engine: TransformersEngine, sample_retriever: Retriever
):
    engine: Engine = scripted() if kind == "scripted" else Counting(tiny_engine)
    threads_before = set(threading.enumerate())
    with exsearch.Searcher(engine, sample_retriever, method=METHOD) as one_by_one:
        alone = {text: gist(one_by_one.ask(text).trajectory) for text in TEXTS}
    assert {t[3] for t in alone.values()} >= {StopReason.ANSWERED, StopReason.MALFORMED}
    if isinstance(engine, Counting):
        assert engine.shared == 0
        assert StopReason.MAX_TOKENS in {t[3] for t in alone.values()}
        passes, engine.passes = engine.passes, 0

    start = threading.Barrier(THREADS)

    def ask_twenty(thread: int) -> list[tuple[str, tuple[Any, ...]]]:
        chosen = random.Random(thread).sample(TEXTS, EACH)
        start.wait(60)
        return [(text, gist(searcher.ask(text).trajectory)) for text in chosen]

    with (
        exsearch.Searcher(engine, sample_retriever, method=METHOD) as searcher,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        answered = [pair for pairs in threads.map(ask_twenty, range(THREADS)) for pair in pairs]
    assert len(answered) == THREADS * EACH
    for text, found in answered:
        assert found == alone[text]
    soon = time.monotonic() + 20
    while set(threading.enumerate()) - threads_before:  # they end by themselves
        assert time.monotonic() < soon
        time.sleep(0.01)
    if isinstance(engine, Counting):
        assert engine.shared > engine.passes / 2
        assert engine.passes < passes * len(answered) / len(TEXTS) / 2


@pytest.mark.parametrize("kind", ["scripted", "transformers"])
def test_the_same_question_twice_at_the_same_time(
    kind: str, tiny_engine: TransformersEngine, sample_retriever: Retriever
):
    engine: Engine = scripted() if kind == "scripted" else Counting(tiny_engine)
    heard: list[list[Event]] = [[], []]
    both = threading.Event()  # asked, before either is answered

    def hear(events: list[Event], event: Event) -> None:
        assert both.wait(60)
        events.append(event)

    with exsearch.Searcher(engine, sample_retriever, method=METHOD) as searcher:
        futures = [searcher.submit(TEXTS[1], on_event=partial(hear, events)) for events in heard]
        both.set()
        one, other = (future.result(60).trajectory for future in futures)
    assert gist(one) == gist(other)
    assert one.steps and one.answer == "1"
    # Told apart by their numbers, each with all of its own events and no others.
    numbers = [{event.episode for event in events} for events in heard]
    assert [len(n) for n in numbers] == [1, 1] and numbers[0] != numbers[1]
    assert {event.id for events in heard for event in events} == {one.id}
    kinds = [[e.kind for e in events if e.kind is not EventKind.TEXT] for events in heard]
    assert kinds[0] == kinds[1]
    assert kinds[0][-2:] == [EventKind.ANSWER, EventKind.END]


# --- a crash ---


class Crash:
    """Makes an engine's next pass wait until all have asked, and then fail, once."""

    def __init__(self, engine: Any):
        self.engine, self.open = engine, engine.open
        self.reached, self.released = threading.Event(), threading.Event()
        engine.open = self.opened

    def opened(self) -> Any:
        session = self.open()
        step, steps = session.step, 0

        def crashing() -> Any:
            nonlocal steps
            steps += 1
            if steps == 3 and not self.released.is_set():  # in the middle of its work
                self.reached.set()
                assert self.released.wait(60)
                raise EngineError("the device is gone")
            return step()

        session.step = crashing
        return session


@pytest.fixture(params=["scripted", "transformers"])
def crashing(
    request: pytest.FixtureRequest, tiny_engine: TransformersEngine, sample_retriever: Retriever
) -> Iterator[tuple[exsearch.Searcher, Crash]]:
    engine = scripted() if request.param == "scripted" else Counting(tiny_engine)
    crash = Crash(engine)
    with exsearch.Searcher(engine, sample_retriever, method=METHOD) as searcher:
        yield searcher, crash


def waiting(
    searcher: exsearch.Searcher, crash: Crash, ask: Callable[[str], Future[Any]]
) -> list[Any]:
    """Three questions that are under way as the engine crashes, and three that just came."""
    futures = [ask(text) for text in TEXTS[1:4]]
    assert crash.reached.wait(60)
    futures += [ask(text) for text in TEXTS[4:7]]
    crash.released.set()
    return futures


def test_a_crash_reaches_all_who_wait_and_the_next_question_works(
    crashing: tuple[exsearch.Searcher, Crash],
):
    searcher, crash = crashing
    for future in waiting(searcher, crash, searcher.submit):
        with pytest.raises(EngineError, match="the device is gone"):
            future.result(60)
    assert searcher.ask(TEXTS[1]).answer == "1"
    assert [found.answer for found in searcher.ask_batch(TEXTS[1:3])] == ["1", "forced 2"]


def test_a_crash_reaches_threads_tasks_and_listeners(crashing: tuple[exsearch.Searcher, Crash]):
    searcher, crash = crashing

    def ask_async(text: str) -> Any:
        return asyncio.run(searcher.ask_async(text))

    with ThreadPoolExecutor(4) as threads:
        batch = threads.submit(searcher.ask_batch, TEXTS[1:4])
        assert crash.reached.wait(60)
        others = [
            threads.submit(searcher.ask, TEXTS[4]),
            threads.submit(ask_async, TEXTS[5]),
            threads.submit(lambda: list(searcher.events(TEXTS[6]))),
        ]
        while len(searcher._new) < 3:
            pass
        crash.released.set()
        for future in (batch, *others):
            with pytest.raises(EngineError, match="the device is gone"):
                future.result(60)
    *_, end = searcher.events(TEXTS[1])
    assert (end.kind, end.stop_reason) == (EventKind.END, StopReason.ANSWERED)


def test_a_question_taken_back_late_takes_no_other_with_it(
    sample_retriever: Retriever, monkeypatch: pytest.MonkeyPatch
):
    """Who takes it back may be slow; by then another question may have its number."""
    asked, released = threading.Event(), threading.Event()

    def held(chat: str) -> str:
        asked.set()
        assert released.wait(60)
        return "Answer: x"

    with exsearch.Searcher(ScriptedEngine(held), sample_retriever) as searcher:
        late: list[tuple[Any, Any]] = []
        with monkeypatch.context() as slow:
            slow.setattr(searcher, "_take_back", lambda *said: late.append(said))
            future = searcher.submit("Who?")
            assert asked.wait(60)
            owner = searcher._owner
            assert future.cancel()
            released.set()
            assert owner is not None
            owner.join(60)  # all is answered
        searcher._take_back(*late[0])
        assert searcher.submit("Who else?").result(20).answer == "x"
