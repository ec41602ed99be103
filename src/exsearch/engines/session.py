"""Turns are a session for an engine that only knows whole batches: all requests end together.

It knows nothing of what the requests are for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from exsearch.engines.base import Engine, Generation, Request, Sampling, Session
from exsearch.errors import EngineError
from exsearch.halves import by_halves


class InTurns:
    """What an engine declares that writes whole batches; it adds `generate` and the rest."""

    rows: int = sys.maxsize
    streams: bool = False
    device: Any = None

    def open(self: Engine) -> Session:
        """See `Engine.open`."""
        return Turns(self)


class Turns:
    """A `Session` over an engine that only knows whole batches."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._waiting: list[tuple[int, Request, Sampling]] = []
        self._tickets = 0

    @property
    def busy(self) -> bool:
        """See `Session.busy`."""
        return bool(self._waiting)

    def submit(self, request: Request, sampling: Sampling) -> int:
        """See `Session.submit`."""
        self._tickets += 1
        self._waiting.append((self._tickets, request, sampling))
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """See `Session.cancel`."""
        self._waiting = [waiting for waiting in self._waiting if waiting[0] != ticket]

    def written(self, ticket: int) -> Sequence[int]:
        """See `Session.written`; nothing is told before a turn ends."""
        return ()

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        """One call of `generate` for each `Sampling` that waits; see `Session.step`."""
        waiting, self._waiting = self._waiting, []
        done: list[tuple[int, Generation | EngineError]] = []
        for sampling in dict.fromkeys(s for _, _, s in waiting):
            chosen = [(ticket, request) for ticket, request, s in waiting if s == sampling]
            replies = by_halves(
                lambda requests, sampling=sampling: self.engine.generate(requests, sampling),
                [request for _, request in chosen],
                EngineError,
            )
            done += zip((ticket for ticket, _ in chosen), replies, strict=True)
        return done
