"""A log holds what happened to one question, in order; all that is told of it is read from here.

It belongs to the event loop. It neither asks nor answers.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator

from exsearch.agent.cited import CitedAnswer, cited_answer
from exsearch.agent.events import Event, EventKind
from exsearch.errors import ExSearchError
from exsearch.records import Trajectory

KEPT = frozenset(EventKind) - {EventKind.TEXT}  # what is written in between is nobody's answer


class QuestionLog:
    """The log of one question.

    Args:
        id: A text that names the question in this server and in no other one.
        question: The text of the question.
        abstain: The least confidence of an answer that is told.

    Attributes:
        began: When the question was taken in, in seconds since 1970.
        events: All events so far.
        trajectory: The trajectory, once it ended; it may have failed (`error`).
        error: What kept the question from its end, or failed within it; None where nothing did.
    """

    def __init__(self, id: str, question: str, abstain: float = 0.0):
        self.id, self.question, self.began = id, question, time.time()
        self.abstain = abstain
        self.events: list[Event] = []
        self.trajectory: Trajectory | None = None
        self.error: ExSearchError | None = None
        self.ended = False
        self._waiting: list[asyncio.Future[None]] = []

    def tell(self, event: Event) -> None:
        """Take in an event, one of `KEPT`."""
        self.events.append(event)
        self._wake()

    def end(self, trajectory: Trajectory | None, error: ExSearchError | None = None) -> None:
        """Take in the end; nothing is told after it."""
        if not self.ended:
            self.trajectory, self.error, self.ended = trajectory, error, True
            self._wake()

    @functools.cached_property
    def answer(self) -> CitedAnswer:
        """The answer with its sources; the question has ended and has a trajectory."""
        assert self.trajectory is not None
        return cited_answer(self.trajectory, self.abstain)

    async def follow(self, idle: float | None = None) -> AsyncIterator[Event | None]:
        """All events from the first on, as they happen, until the question has ended.

        Args:
            idle: Seconds without an event after which None is given in place of one.
        """
        place = 0
        while True:
            while place < len(self.events):
                place += 1
                yield self.events[place - 1]
            if self.ended:
                return
            if not await self._more(idle):
                yield None

    async def finished(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self._more(None)

    async def _more(self, idle: float | None) -> bool:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(idle):  # `wait_for` takes one more turn of the loop
                await future
        except TimeoutError:
            return False
        finally:
            if future in self._waiting:
                self._waiting.remove(future)
        return True

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
