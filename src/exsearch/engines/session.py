"""Turns are a session for an engine that only knows whole batches: all requests end together.

It knows nothing of what the requests are for.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exsearch.engines.base import Engine, Generation, Request, Sampling, Session
from exsearch.errors import EngineError, ModelError
from exsearch.halves import by_halves


class InTurns:
    """The base of an engine that writes whole batches.

    Such an engine adds a tokenizer and `generate`; `log_prob` where it scores; `load_weights` and
    `device` where it trains. `Engine` explains the attributes.
    """

    rows: int = sys.maxsize
    trains: bool = False
    scores: bool = False
    streams: bool = False
    device: Any = None

    def open(self: Engine) -> Session:
        """A new, empty session; any number may be open."""
        return Turns(self)

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Refuse to score (`Engine.log_prob`); an engine that scores has a method of its own.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"{type(self).__name__} gives no log-probs of a given answer, so nothing can be "
            "weighed with it; take --engine transformers"
        )

    def release(self) -> None:
        """Give nothing back (`Engine.release`); an engine that can has a method of its own."""

    def load_weights(self, folder: Path) -> None:
        """Refuse to take over weights; an engine that trains has a method of its own.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{type(self).__name__} has no weights to replace by those of {folder}")


class Turns:
    """A `Session` over an engine that only knows whole batches.

    Args:
        engine: The engine, whose `generate` is called.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._waiting: list[tuple[int, Request, Sampling]] = []
        self._tickets = 0

    @property
    def busy(self) -> bool:
        """True while a request has no reply."""
        return bool(self._waiting)

    def submit(self, request: Request, sampling: Sampling) -> int:
        """Hand in a request and return its ticket (`Session.submit`)."""
        self._tickets += 1
        self._waiting.append((self._tickets, request, sampling))
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Take the request with this ticket back."""
        self._waiting = [waiting for waiting in self._waiting if waiting[0] != ticket]

    def written(self, ticket: int) -> Sequence[int]:
        """Nothing: what is being written is not told before it ends."""
        return ()

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        """Reply to all that wait, by one call of `generate` for each `Sampling` among them.

        A batch that fails is tried again by halves, so that only the culprits get an error.
        """
        waiting, self._waiting = self._waiting, []
        done: list[tuple[int, Generation | EngineError]] = []
        for sampling in dict.fromkeys(s for _, _, s in waiting):
            tickets, requests = zip(*((t, r) for t, r, s in waiting if s == sampling), strict=True)
            generate = functools.partial(self.engine.generate, sampling=sampling)
            done += zip(tickets, by_halves(generate, requests, EngineError), strict=True)
        return done
