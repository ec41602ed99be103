"""Shares of a rollout's time: drawing tokens, searching, the episodes' own work, and the rest.

The rest is the model. Timers are put around functions for one run that counts for nothing else.
Where searches run beside the model, on a thread, their share is not lost time.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

from exsearch.agent.episode import Episode
from exsearch.records import Passage
from exsearch.retrievers.base import Retriever


class Timer:
    """Adds up the seconds spent in functions; None where there was no such function."""

    def __init__(self):
        self.seconds: float | None = None

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""
        self.seconds = 0.0

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds = (self.seconds or 0.0) + time.perf_counter() - start

        return timed


class TimedRetriever:
    """A retriever in front of another, timed."""

    def __init__(self, inner: Retriever, timer: Timer):
        self._search = timer.around(inner.search)
        self.fetch, self.identity = inner.fetch, inner.identity

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """As the inner retriever."""
        return self._search(queries, k)


@contextlib.contextmanager
def timed_rollout() -> Iterator[dict[str, Timer]]:
    """Timers of a rollout within: `sampling`, `episodes`; `retrieval` is for a `TimedRetriever`."""
    timers = {name: Timer() for name in ("sampling", "retrieval", "episodes")}
    with contextlib.ExitStack() as stack:
        for method in ("prompt_ids", "take", "found"):
            function = timers["episodes"].around(getattr(Episode, method))
            # Of a class, so the wrapper must be a plain function to become a method: it is one.
            stack.enter_context(patch.object(Episode, method, function))
        draw = getattr(sys.modules.get("exsearch.engines.local.sampling"), "sample", None)
        if draw is not None:
            timed = timers["sampling"].around(draw)
            for module in _holders("sample", draw):
                stack.enter_context(patch.object(module, "sample", timed))
        yield timers


def _holders(name: str, function: Any) -> list[Any]:
    """The package's modules that call this function by this name."""
    modules = [m for n, m in sorted(sys.modules.items()) if n.startswith("exsearch.")]
    return [m for m in modules if getattr(m, name, None) is function]
