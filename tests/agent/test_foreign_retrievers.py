"""Whatever a retriever does wrong fails the question of that query, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exsearch.agent.rollout import rollout
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import RetrieverError
from exsearch.evaluation.evaluate import evaluate
from exsearch.methods.rag import RagMethod
from exsearch.records import Passage, Question, StopReason
from exsearch.retrievers.cached import CachedRetriever
from exsearch.retrievers.guarded import GuardedRetriever, guarded
from exsearch.trajectories import read_trajectories, to_lines

RELEASED = threading.Event()  # ends what hangs
GOOD = [Passage("a", "A", "Of a.", 2.0), Passage("b", "B", "Of b.", 1.0)]
BAD = "bad"


@pytest.fixture(scope="module", autouse=True)
def released() -> Iterator[None]:
    yield
    RELEASED.set()


class Unsayable(Exception):
    def __str__(self) -> str:
        raise ValueError


class Lazy(Sequence[Passage]):
    """A list whose passages are worked out when they are looked at."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return self.act()


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def hang() -> Any:
    RELEASED.wait()


def endless() -> Any:
    return endless()


def with_first(**changes: Any) -> Callable[[], Any]:
    """The good passages, the first of them changed."""
    return lambda: [dataclasses.replace(GOOD[0], **changes), GOOD[1]]


# What is given for the bad query, and what is said of it.
ONE_LIST: dict[str, tuple[Callable[[], Any], str]] = {
    "its own error": (raising(RetrieverError("no luck")), "no luck"),
    "ValueError": (raising(ValueError("no luck")), "Foreign: ValueError: no luck"),
    "OSError": (raising(ConnectionResetError(104, "gone")), "ConnectionResetError"),
    "its own TimeoutError": (raising(TimeoutError("slow")), "TimeoutError: slow"),
    "an error without words": (raising(KeyError()), "KeyError"),
    "AssertionError": (raising(AssertionError()), "AssertionError"),
    "endless recursion": (endless, "RecursionError"),
    "MemoryError": (raising(MemoryError()), "MemoryError"),
    "StopIteration": (raising(StopIteration()), "StopIteration"),
    "a broken decoder": (lambda: b"\xff".decode(), "UnicodeDecodeError"),
    "sys.exit": (raising(SystemExit(3)), "SystemExit: 3"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "a cancelled task": (raising(asyncio.CancelledError()), "CancelledError"),
    "a group of errors": (raising(ExceptionGroup("two", [ValueError("x")])), "ExceptionGroup"),
    "an error that can't be said": (raising(Unsayable()), "Unsayable"),
    "an error with half a character": (raising(ValueError("\ud800 here")), "here"),
    "an error as long as a book": (raising(ValueError("page\n" * 99_999)), "page page"),
    "nothing": (lambda: None, "gave nothing, expected a list of passages"),
    "a text": (lambda: "Of a.", "gave a str"),
    "a generator": (lambda: (p for p in GOOD), "gave a generator"),
    "a dict": (lambda: {"a": GOOD[0]}, "gave a dict"),
    "a number": (lambda: 0, "gave a int"),
    "too many passages": (
        lambda: [*GOOD, Passage("c", "", "")],
        "gave 3 passages where 2 were asked for",
    ),
    "a passage twice": (lambda: [GOOD[0], GOOD[0]], "the passage 'a' twice"),
    "an id that is a number": (with_first(id=7), "whose id is a int"),
    "no id": (with_first(id=None), "whose id is nothing"),
    "a blank id": (with_first(id=""), "without an id"),
    "half a character in an id": (with_first(id="\udc80"), "whose id holds half"),
    "no title": (with_first(title=None), "whose title is nothing"),
    "a text of bytes": (with_first(text=b"Of a."), "whose text is a bytes"),
    "half a character in a text": (with_first(text="Of \ud83d a."), "whose text holds half"),
    "a score that is no number": (with_first(score=math.nan), "score nan"),
    "an endless score": (with_first(score=-math.inf), "score -inf"),
    "a score in words": (with_first(score="1.0"), "score '1.0'"),
    "a dict for a passage": (lambda: [dataclasses.asdict(GOOD[0])], "a dict, expected a Passage"),
    "nothing for a passage": (lambda: [None], "nothing, expected a Passage"),
    "a list that raises": (lambda: Lazy(raising(OSError("unread"))), "OSError: unread"),
    "a list that hangs": (lambda: Lazy(hang), "no reply within 0.3 s"),
    "a search that never returns": (hang, "no reply within 0.3 s"),
}
# What becomes of all lists, and what is said of it.
ALL_LISTS: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "no lists at all": (lambda lists: None, "gave nothing, expected a list of lists"),
    "a list too few": (lambda lists: lists[:-1], "gave 0 lists for 1 queries"),
    "a list too many": (lambda lists: [*lists, GOOD], "gave 2 lists for 1 queries"),
    "lists by query": (lambda lists: dict.fromkeys(lists and "q", GOOD), "gave a dict"),
    "lists one by one": (lambda lists: iter(lists), "gave a list_iterator"),
}


class Foreign:
    """Finds the good passages for all queries but the bad one."""

    def __init__(self, one: Callable[[], Any] = lambda: GOOD, all_: Any = list):
        self.one, self.all, self.batches = one, all_, list[int]()

    def search(self, queries: Sequence[str], k: int) -> Any:
        self.batches.append(len(queries))
        lists = [self.one() if query == BAD else GOOD for query in queries]
        return self.all(lists) if BAD in queries else lists

    def fetch(self, ids: Sequence[str]) -> Any:
        raise NotImplementedError

    def identity(self) -> str:
        return "foreign"


QUESTIONS = [Question(str(n), BAD if n == 1 else f"fine {n}", ("x",)) for n in range(4)]


def answer(retriever: Any) -> list[Any]:
    engine = ScriptedEngine({"Assistant: Answer:": " x"})
    return rollout(QUESTIONS, engine, guarded(retriever, 0.3), method=RagMethod(passages=2))


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("kind", [*ONE_LIST, *ALL_LISTS])
def test_a_bad_search_fails_its_own_question(kind: str, cached: bool, tmp_path: Path) -> None:
    if kind in ONE_LIST:
        one, said = ONE_LIST[kind]
        foreign = Foreign(one)
    else:
        all_, said = ALL_LISTS[kind]
        foreign = Foreign(all_=all_)
    done = answer(CachedRetriever(foreign) if cached else foreign)
    assert [t.answer for t in done] == ["x", "", "x", "x"]
    assert [t.stop_reason for t in done].count(StopReason.RETRIEVER_ERROR) == 1
    assert said in done[1].error
    assert len(done[1].error) <= 500 and done[1].error.isprintable()
    assert [t.steps[0].passages for t in done if t.answer] == [tuple(GOOD)] * 3
    file = tmp_path / "t.jsonl"
    file.write_text("".join(f"{line}\n" for line in to_lines(done)))
    assert list(read_trajectories(file)) == done


@pytest.mark.parametrize(
    ("one", "found"),
    [
        (list, ()),
        (lambda: GOOD[:1], (GOOD[0],)),
        (lambda: tuple(GOOD), tuple(GOOD)),
        (with_first(score=None), (dataclasses.replace(GOOD[0], score=None), GOOD[1])),
        (with_first(score=2), tuple(GOOD)),
        (with_first(score=np.float32(2)), tuple(GOOD)),
        (with_first(id=np.str_("a")), tuple(GOOD)),
    ],
)
def test_what_is_well_is_taken_as_it_is(one: Callable[[], Any], found: Any) -> None:
    done = answer(Foreign(one))
    assert done[1].steps[0].passages == found
    assert all(type(p.score) in (float, type(None)) for p in done[1].steps[0].passages)
    assert list(to_lines(done))


def test_what_it_does_to_its_queries_is_its_own_matter() -> None:
    class Greedy(Foreign):
        def search(self, queries: Any, k: int) -> Any:
            return [[queries.pop(), GOOD][1] for _ in range(len(queries))]

    assert [t.answer for t in answer(Greedy())] == ["x"] * 4


def test_what_is_wrong_is_not_remembered() -> None:
    calls = iter([None, GOOD])
    retriever = CachedRetriever(Foreign(lambda: next(calls)))
    with pytest.raises(RetrieverError, match="gave nothing"):
        retriever.search([BAD], 2)
    assert retriever.search([BAD], 2) == [GOOD]


def test_a_retriever_that_never_returns_is_tried_a_few_times_and_then_again() -> None:
    gone = threading.Event()

    class Gone(Foreign):
        def search(self, queries: Sequence[str], k: int) -> Any:
            self.batches.append(len(queries))
            gone.wait()
            return [GOOD for _ in queries]

    foreign = Gone()
    retriever = GuardedRetriever(foreign, 0.02)
    looks = [(f"q{n}", 2) for n in range(40)]
    try:
        found = retriever.begin(looks)()
        assert all(isinstance(one, RetrieverError) for one in found) and len(found) == 40
        assert foreign.batches == [40, 1, 1]  # it is not the query
        retriever.begin(looks)()
        assert foreign.batches == [40, 1, 1, 40]
        for _ in range(40):
            retriever.begin(looks)()
        assert len(foreign.batches) == 32  # no more than that wait for it
        assert "32 searches have not returned" in str(retriever.begin(looks)()[0])
    finally:
        gone.set()
    for thread in retriever._threads:
        thread.join(20)
    retriever.timeout = 20
    assert retriever.begin(looks)() == [GOOD] * 40


def test_an_identity_is_a_text_and_comes_in_time() -> None:
    for act, said in ((hang, "no reply"), (lambda: 7, "is 7"), (raising(OSError("x")), "OSError")):
        foreign = Foreign()
        foreign.identity = act  # type: ignore[method-assign]
        with pytest.raises(RetrieverError, match=said):
            guarded(foreign, 0.05).identity()
    assert guarded(Foreign()).identity() == "foreign"


class Flaky(Foreign):
    """Finds a passage by the query itself, but a share of searches fails, whatever they are for."""

    def __init__(self, share: float, seed: int):
        super().__init__()
        self.share, self.draw, self.failures = share, random.Random(seed), 0

    def search(self, queries: Sequence[str], k: int) -> Any:
        if any(self.draw.random() < self.share for _ in queries):
            self.failures += 1
            raise ConnectionResetError("gone for a moment")
        return [[Passage(query, "", f"Of {query}.", 1.0)] for query in queries]


def quoted(chat: str) -> str:
    """An answer that is taken from the passage."""
    found = re.search(r"Of (query \d+)\.", chat)
    return f" {found[1] if found else ''}"


MANY = [Question(str(n), f"query {n}", (f"query {n}",)) for n in range(300)]


@pytest.mark.parametrize("seed", range(2))
def test_what_fails_now_and_then_costs_no_question(seed: int, tmp_path: Path) -> None:
    undisturbed, flaky = Flaky(0, seed), Flaky(0.1, seed)
    figures = []
    for name, retriever in (("undisturbed", undisturbed), ("flaky", flaky)):
        engine = ScriptedEngine(quoted)
        found = evaluate(MANY, engine, retriever, tmp_path / name, method=RagMethod(passages=2))
        figures.append({**found, "seconds": 0})
    assert (undisturbed.failures, flaky.failures > 30) == (0, True)
    assert figures[0] == figures[1]
    traces = [
        [dataclasses.replace(t, seconds=0) for t in read_trajectories(file)]
        for name in ("undisturbed", "flaky")
        for file in [tmp_path / name / "trajectories.jsonl"]
    ]
    assert traces[0] == traces[1]
    assert (figures[1]["em"], figures[1]["stop_reasons"]) == (1, {"answered": 300})


@pytest.mark.parametrize(
    ("error", "tries"), [(RetrieverError, 1), (ConnectionResetError, 4), (SystemExit, 1)]
)
def test_a_query_that_fails_alone_is_tried_again_but_not_without_end(error: Any, tries: int):
    foreign = Foreign(raising(error("no luck")))
    found = GuardedRetriever(foreign, 20).begin([(BAD, 2), ("fine", 2)])()
    assert isinstance(found[0], RetrieverError) and "no luck" in str(found[0])
    assert found[1] == GOOD
    assert foreign.batches == [2, *[1] * tries, 1]


def test_trying_again_ends_with_the_deadline() -> None:
    tries = []

    def slowly() -> Any:
        tries.append(0)
        RELEASED.wait(0.2)
        raise ConnectionResetError("gone")

    (found,) = GuardedRetriever(Foreign(slowly), 0.3).begin([(BAD, 2)])()
    assert isinstance(found, RetrieverError) and "no reply within 0.3 s" in str(found)
    assert len(tries) <= 4


BLOCKED = """
import os, threading, exsearch
from exsearch.agent.rollout import rollout
from exsearch.engines.scripted import ScriptedEngine
from exsearch.methods.rag import RagMethod

class Blocked:
    def search(self, queries, k):
        os.write(1, b"searching\\n")  # a print may still hold its buffer when the process ends
        threading.Event().wait()

engine, method = ScriptedEngine({"": " x"}), RagMethod()
if %r == "rollout":
    rollout([exsearch.Question("q", "Who?")], engine, Blocked(), method=method)
else:
    exsearch.Searcher(engine, Blocked(), method=method).ask("Who?")
"""


@pytest.mark.parametrize("way", ["rollout", "ask"])
def test_one_ctrl_c_ends_a_blocked_search(way: str) -> None:
    command = [sys.executable, "-c", BLOCKED % way]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:  # type: ignore[call-overload]
        assert child.stdout.readline() == "searching\n"
        child.send_signal(signal.SIGINT)
        try:
            _, said = child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == -signal.SIGINT
    assert said.splitlines()[-1] == "KeyboardInterrupt"
