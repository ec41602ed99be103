"""Questions are taken in up to a bound, answered side by side, and remembered for a while.

It speaks no protocol: `faces` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from exsearch.agent.events import Event
from exsearch.errors import ExSearchError
from exsearch.searcher import Found, Searcher
from exsearch.serving import MAX_QUESTION, ServeConfig
from exsearch.serving.log import KEPT, QuestionLog


class BusyError(ExSearchError):
    """The server has as many questions in hand as it takes; ask again later."""


class ClosingError(ExSearchError):
    """The server is about to stop and takes no further question."""


class BadQuestionError(ExSearchError):
    """What was asked is no question that can be answered."""


class GivenUpError(ExSearchError):
    """A question was given up: nobody waits for it any more, or its time is over."""


def check_asked(text: str, name: str) -> None:
    """Make sure that a text can be answered or searched for.

    Args:
        text: What was asked.
        name: What it is called in messages.

    Raises:
        BadQuestionError: it is blank, too long, or no text.
    """
    if not text.strip():
        raise BadQuestionError(f"the {name} is blank")
    if len(text) > MAX_QUESTION:
        raise BadQuestionError(f"the {name} has more than {MAX_QUESTION:,} characters")
    if text.encode(errors="ignore").decode() != text:
        raise BadQuestionError(f"the {name} is no text: it holds half a character")
    if "\0" in text:
        raise BadQuestionError(f"the {name} is no text: it holds a null character")


class Questions:
    """The questions that a server has in hand, and those that it remembers.

    Args:
        searcher: The searcher that answers them.
        config: The bounds.
        on_end: A function that is called with each log when it ends.

    Attributes:
        closing: True once no further question is taken.
        drained: Set once nobody waits any more for those that were in hand then.
    """

    def __init__(
        self,
        searcher: Searcher,
        config: ServeConfig,
        on_end: Callable[[QuestionLog], object] = lambda _: None,
    ):
        self.searcher, self._config, self._on_end = searcher, config, on_end
        self._open: dict[str, tuple[QuestionLog, Future[Found], asyncio.TimerHandle]] = {}
        self._kept: OrderedDict[str, QuestionLog] = OrderedDict()
        self._posted: deque[tuple[Any, ...]] = deque()  # calls for the loop, and their arguments
        self._woken = False  # whether the loop was told of them
        self.closing = False
        self.drained = asyncio.Event()

    def __len__(self) -> int:
        """Questions in hand."""
        return len(self._open)

    def ask(self, question: str) -> QuestionLog:
        """Take in a question.

        Returns:
            Its log, to be followed; `give_up` takes the question back.

        Raises:
            BadQuestionError: the text is blank, too long, or no text.
            BusyError: too many questions are in hand.
            ClosingError: the server is about to stop.
        """
        check_asked(question, "question")
        if self.closing:
            raise ClosingError("the server is about to stop; ask another one")
        if len(self._open) >= self._config.max_questions:
            most = self._config.max_questions
            raise BusyError(f"more than {most} questions at once; ask again later")
        loop = asyncio.get_running_loop()
        log = QuestionLog(secrets.token_hex(12), question, self.searcher.abstain)

        def on_event(event: Event) -> None:  # on the runner's thread
            if event.kind in KEPT:
                self._post(loop, log.tell, event)

        future = self.searcher.submit(question, on_event=on_event)
        timer = loop.call_later(self._config.deadline, self._expire, log)
        self._open[log.id] = log, future, timer
        future.add_done_callback(lambda done: self._post(loop, self._end, log, done))
        return log

    def find(self, id: str) -> QuestionLog | None:
        """The log of a question in hand or remembered; None where there is none."""
        return self._open[id][0] if id in self._open else self._kept.get(id)

    def remembered(self, most: int) -> list[QuestionLog]:
        """The logs of questions that ended, the newest first.

        Args:
            most: The most logs.
        """
        return list(itertools.islice(reversed(self._kept.values()), most))

    def forget(self, id: str) -> bool:
        """Forget a question, and give it up where it is in hand; false where there is none."""
        log = self.find(id)
        if log is None:
            return False
        self.give_up(log)
        self._kept.pop(id, None)
        return True

    def give_up(self, log: QuestionLog, why: str = "nobody waits for the answer") -> None:
        """Take a question back; one that has ended is left as it is."""
        if log.id in self._open:
            log.end(None, GivenUpError(why))
            self._open[log.id][1].cancel()

    @contextlib.asynccontextmanager
    async def asked(self, question: str) -> AsyncIterator[QuestionLog]:
        """A question for one client: it is given up where the client does not stay to the end.

        Raises:
            ExSearchError: the question is not taken in (`ask`).
        """
        log = self.ask(question)
        try:
            yield log
        finally:
            self.give_up(log)

    async def drain(self) -> None:
        """Take no further question, and wait for those in hand."""
        self.closing = True
        try:
            for log, *_ in list(self._open.values()):
                await log.finished()
        finally:
            self.drained.set()

    def _post(self, loop: asyncio.AbstractEventLoop, call: Callable[..., object], *of: Any) -> None:
        """Have the loop make a call that can't fail, from any thread; calls keep their order.

        A pass of the engine tells of many questions, and to wake the loop is a call of the system,
        for which the runner would wait each time.
        """
        self._posted.append((call, *of))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(self._take_in)

    def _take_in(self) -> None:
        self._woken = False  # first: what is posted from now on wakes the loop again
        while self._posted:
            call, *of = self._posted.popleft()
            call(*of)

    def _expire(self, log: QuestionLog) -> None:
        self.give_up(log, f"no answer within {self._config.deadline:g} seconds")

    def _end(self, log: QuestionLog, future: Future[Found]) -> None:
        """Take in what became of a question; one that was given up is not remembered."""
        self._open.pop(log.id)[2].cancel()
        try:
            found = future.result()
        except CancelledError:
            log.end(None, GivenUpError("nobody waits for the answer"))
        except ExSearchError as error:
            log.end(None, error)
        except Exception as error:
            log.end(None, ExSearchError(f"unforeseen: {type(error).__name__}"))
        else:
            log.end(found.trajectory, ExSearchError(found.error) if found.error else None)
        if log.trajectory is not None and self._config.kept:
            self._kept[log.id] = log
            while len(self._kept) > self._config.kept:
                self._kept.popitem(last=False)
        asyncio.get_running_loop().call_soon(self._on_end, log)  # whoever waits is told first
