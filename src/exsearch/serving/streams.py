"""A stream tells a question's log over HTTP as it grows; a wait tells it once, at its end.

Both give the question up where the client goes. What is told is each face's matter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.sse import format_sse_event
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from exsearch.errors import ExSearchError
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import Questions
from exsearch.serving.refusals import failure_of, refusal_of

IDLE = 15.0  # seconds of silence after which a comment is sent, or proxies hang up
KEEP_ALIVE = format_sse_event(comment="waiting")
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def sse(value: Any, event: str | None = None) -> bytes:
    """A value as one server-sent event.

    Args:
        value: What JSON can hold; a text is sent as it stands.
        event: The event's name; None where the protocol has none.
    """
    return format_sse_event(
        data_str=value if isinstance(value, str) else json.dumps(value), event=event
    )


def stream(
    request: Request,
    question: str,
    tell: Callable[[QuestionLog], AsyncIterator[bytes]],
    *,
    param: str | None = None,
    headers: dict[str, str] | None = None,
    keep: bool = True,
) -> Response:
    """Ask a question and tell of it by server-sent events; it is given up where the client goes.

    Args:
        request: The request that asks.
        question: The text of the question.
        tell: What is sent of the log: it follows the log with `IDLE`, sends `KEEP_ALIVE` where
            nothing happens, and tells a failure (`failure_of`) itself. What it knows at once it
            gives as one piece, since each is a call of the system.
        param: The field of the request that holds the question.
        headers: Further headers of the reply.
        keep: Whether the question is remembered once it is told.

    Raises:
        Refusal: the question is not taken in.
    """
    questions: Questions = request.app.state.questions
    try:
        log = questions.ask(question)
    except ExSearchError as error:
        raise refusal_of(error, param) from error
    leave = questions.give_up if keep else lambda log: questions.forget(log.id)
    return _Stream(tell(log), {**_HEADERS, **(headers or {})}, lambda: leave(log))


async def answered(
    request: Request, question: str, *, param: str | None = None, keep: bool = True
) -> QuestionLog:
    """Ask a question and wait for its end, or until the client goes, which gives it up.

    Args:
        request: The request that asks; its body has been read.
        question: The text of the question.
        param: The field of the request that holds the question.
        keep: Whether the question is remembered once it is told.

    Returns:
        The log of a question that ended without a failure.

    Raises:
        Refusal: the question is not taken in, or failed (`failure_of`).
    """
    questions: Questions = request.app.state.questions
    try:
        async with questions.asked(question) as log:
            watch = asyncio.create_task(_gone(request))
            watch.add_done_callback(lambda _: questions.give_up(log))
            try:
                await log.finished()
            finally:
                watch.cancel()
    except ExSearchError as error:
        raise refusal_of(error, param) from error
    if not keep:
        questions.forget(log.id)
    if failure := failure_of(log, param):
        raise failure
    return log


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Stream(StreamingResponse):
    """A stream of one question, which is left at the stream's end, be it told or not."""

    media_type = "text/event-stream"

    def __init__(
        self,
        content: AsyncIterator[bytes],
        headers: dict[str, str],
        leave: Callable[[], object],
    ):
        super().__init__(content, headers=headers)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI); starlette stops sending where the client goes."""
        try:
            await super().__call__(scope, receive, send)
        finally:  # not left to the generator, which may never have begun
            self._leave()
