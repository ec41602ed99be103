"""A guarded retriever is any retriever behind a deadline and a check of what it gives.

Whatever it does ends as passages, or as a `RetrieverError` of the query that it did it to; never as
the end of the job. How passages are found is its own matter.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from numbers import Real
from typing import Any, TypeVar

from exsearch.errors import RetrieverError
from exsearch.halves import by_halves
from exsearch.records import Passage
from exsearch.retrievers.base import Retriever

Result = TypeVar("Result")
Found = list[Passage] | RetrieverError

TIMEOUT = 60.0  # seconds
_SILENT = 3  # deadlines missed in a row: it is not the query, so the others are not tried alone
_MOST_THREADS = 32  # searches that never return are left behind, but not without end
_TRIES = 4  # of a query that fails alone: what fails now and then is not to cost a question
_MOST_SAID = 500  # characters of another's error message


def guarded(retriever: Retriever, timeout: float = TIMEOUT) -> GuardedRetriever:
    """A retriever behind a guard; one that has a guard keeps it.

    Args:
        retriever: Any object with the methods of a retriever.
        timeout: Seconds until a search counts as failed.
    """
    if isinstance(retriever, GuardedRetriever):
        return retriever
    return GuardedRetriever(retriever, timeout)


class GuardedRetriever:
    """A retriever that can be relied on, in front of one that need not be; for one thread.

    Each search runs on a thread of its own, which the end of the process does not wait for. A batch
    that fails is tried again by halves; one that does not return, query by query. A query that
    fails alone is tried three times more within its deadline, unless what it raised is a
    `RetrieverError`: that is the word of a retriever that has tried again itself, or knows that it
    is of no use.

    Args:
        inner: The retriever that searches.
        timeout: Seconds until a search counts as failed.
    """

    def __init__(self, inner: Retriever, timeout: float = TIMEOUT):
        self.inner, self.timeout = inner, timeout
        self._name = type(getattr(inner, "inner", inner)).__name__  # a cache is not what fails
        self._threads: list[threading.Thread] = []
        self._missed = 0  # deadlines in a row

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """What the inner retriever finds, checked.

        Raises:
            RetrieverError: the search of one of the queries failed, or did not return in time.
        """
        found: list[list[Passage]] = []
        for one in self.begin([(query, k) for query in queries])():
            if isinstance(one, RetrieverError):
                raise one
            found.append(one)
        return found

    def begin(self, looks: Sequence[tuple[str, int]]) -> Callable[[], list[Found]]:
        """Begin to search, and return at once.

        Args:
            looks: The queries, each with the most passages that it wants.

        Returns:
            A function that waits and gives for each look, in their order, its passages or its own
            error. It is to be called once, before the next `begin`.
        """
        under_way = [self._start(self._search, looks)] if looks else []
        return lambda: self._look_up(looks, under_way)

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, from the inner retriever."""
        return self.inner.fetch(ids)

    def identity(self) -> str:
        """The identity of the inner retriever.

        Raises:
            RetrieverError: it has none, or does not say it in time.
        """
        text = self._wait(self._start(self.inner.identity))
        if isinstance(text, RetrieverError):
            raise text
        if not isinstance(text, str) or not is_utf8(text):
            raise RetrieverError(f"{self._name}: its identity is {text!r:.99}, expected a text")
        return text

    def close(self) -> None:
        """Wait a moment for a search under way; one that takes longer is left to itself."""
        for thread in self._threads:
            thread.join(0.5 / len(self._threads))

    def _look_up(
        self, looks: Sequence[tuple[str, int]], under_way: list[Future[Any]]
    ) -> list[Found]:
        def work(some: Sequence[tuple[str, int]]) -> list[Found]:
            missed = self._missed
            found = self._wait(under_way.pop() if under_way else self._start(self._search, some))
            if not isinstance(found, RetrieverError):
                return found
            if self._missed <= missed:  # it did return
                raise found
            if len(some) == 1:
                return [found]
            alone: list[Found] = []
            for look in some:
                stuck = self._missed >= _SILENT
                alone += [found] if stuck else self._look_up([look], [])
            return alone

        return by_halves(work, looks, RetrieverError)

    def _search(self, looks: Sequence[tuple[str, int]]) -> list[Found]:
        """What the inner retriever finds; looks for equally many passages share a batch."""
        found: dict[int, Found] = {}
        for k in dict.fromkeys(k for _, k in looks):
            members = [n for n, look in enumerate(looks) if look[1] == k]
            lists = self._tried([looks[n][0] for n in members], k)
            found |= zip(members, checked(lists, len(members), k, self._name), strict=True)
        return [found[n] for n in range(len(looks))]

    def _tried(self, queries: list[str], k: int) -> list[list[Passage]]:
        for _ in range(_TRIES - 1 if len(queries) == 1 else 0):
            try:
                return self.inner.search(list(queries), k)
            except RetrieverError:
                raise
            except Exception:
                continue
        return self.inner.search(queries, k)

    def _start(self, work: Callable[..., Result], *args: Any) -> Future[Result | RetrieverError]:
        """Begin a piece of the inner retriever's work on a thread; no error of it escapes."""
        done: Future[Result | RetrieverError] = Future()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= _MOST_THREADS:
            many = f"{self._name}: {len(self._threads)} searches have not returned"
            done.set_result(RetrieverError(f"{many}; see that it works, then start again"))
            return done

        def run() -> None:
            try:
                done.set_result(work(*args))
            except BaseException as error:  # also what would end a process: it is no thread of ours
                done.set_result(RetrieverError(self._said(error)))

        thread = threading.Thread(target=run, name="search", daemon=True)
        thread.start()
        self._threads.append(thread)
        return done

    def _wait(self, done: Future[Result | RetrieverError]) -> Result | RetrieverError:
        try:
            result = done.result(self.timeout)
        except TimeoutError:
            self._missed += 1
            late = f"{self._name}: no reply within {self.timeout:g} s"
            return RetrieverError(f"{late}; see that it works, or set retriever.timeout higher")
        except KeyboardInterrupt:  # an end of the process aborts a thread that is within C++
            self.close()
            raise
        self._missed = 0
        return result

    def _said(self, error: BaseException) -> str:
        """An error of another's on one line, which can be written to a file."""
        if type(error) is RetrieverError:
            text = str(error)
        else:
            text = f"{self._name}: {''.join(traceback.format_exception_only(error))}"
        return " ".join(text.encode(errors="replace").decode().split())[:_MOST_SAID]


def checked(found: Any, queries: int, k: int, name: str) -> list[Found]:
    """What a retriever gave, as passages or as the error of each query.

    Args:
        found: What `search` returned.
        queries: The number of queries that it was given.
        k: The most passages a query.
        name: The name of the retriever, for messages.

    Raises:
        RetrieverError: it is no list of as many lists as there were queries.
    """
    if not _is_list(found):
        raise RetrieverError(f"{name} gave {_kind(found)}, expected a list of lists of passages")
    if len(found) != queries:
        raise RetrieverError(f"{name} gave {len(found)} lists for {queries} queries")
    return [_passages(list_, k, name) for list_ in found]


def _passages(found: Any, k: int, name: str) -> Found:
    if not _is_list(found):
        return RetrieverError(f"{name} gave {_kind(found)}, expected a list of passages")
    if len(found) > k:
        return RetrieverError(f"{name} gave {len(found)} passages where {k} were asked for")
    passages: dict[str, Passage] = {}
    for passage in found:
        wrong = _wrong(passage)
        if wrong:
            return RetrieverError(f"{name} gave {wrong}")
        if passage.id in passages:
            return RetrieverError(f"{name} gave the passage {passage.id!r:.99} twice")
        score = None if passage.score is None else float(passage.score)
        passages[passage.id] = dataclasses.replace(passage, score=score)
    return list(passages.values())


def _wrong(passage: Any) -> str:
    """What is wrong with a passage; empty where nothing is."""
    if not isinstance(passage, Passage):
        return f"{_kind(passage)}, expected a Passage"
    for name in ("id", "title", "text"):
        value: Any = getattr(passage, name)
        if not isinstance(value, str):
            return f"a passage whose {name} is {_kind(value)}, expected a text"
        if not is_utf8(value):
            return f"a passage whose {name} holds half of a surrogate pair"
    if not passage.id:
        return "a passage without an id"
    score: Any = passage.score
    if score is None or (isinstance(score, Real) and math.isfinite(score)):
        return ""
    return f"the passage {passage.id!r:.99} with the score {score!r:.99}, expected a finite number"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_utf8(text: str) -> bool:
    """False for a text that no file can hold: it has half of a surrogate pair."""
    return text.encode(errors="ignore").decode() == text


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
