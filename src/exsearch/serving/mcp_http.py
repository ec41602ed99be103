"""MCP over HTTP: an ASGI app for one path, which carries the face to clients of both eras.

Who may ask, under which name, and how much, is the gate's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from exsearch.serving import MAX_BODY
from exsearch.serving.faces.mcp import ASKED, LinkOf, mcp_server
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import Questions

PATH = "/mcp"
MAX_SESSIONS = 1000
IDLE = 1800.0  # seconds until a session that nobody uses is ended


class McpOverHttp:
    """An ASGI app; `running` has to be entered before it is asked.

    Args:
        questions: Where questions are asked.
        link_of: A function that gives the address of a passage (`faces.mcp`).
    """

    def __init__(self, questions: Questions, link_of: LinkOf):
        self._questions = questions
        self._sessions = StreamableHTTPSessionManager(
            mcp_server(questions, link_of),
            max_request_body_size=MAX_BODY,
            session_idle_timeout=IDLE,
            max_sessions=MAX_SESSIONS,
        )
        self._listening: set[anyio.CancelScope] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep sessions until the block ends."""
        AppStatus.disable_automatic_graceful_drain()  # or a signal would cut answers off
        async with self._sessions.run():
            ending = asyncio.create_task(self._end_listening())
            try:
                yield
            finally:
                ending.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI).

        What it asked is given up with it: a client of the elder era that goes says nothing, and
        could not come back for the answer.
        """
        asked: list[QuestionLog] = []
        scope.setdefault("state", {})[ASKED] = asked
        with anyio.CancelScope() as open_:
            if scope["method"] == "GET":  # a client that only listens; it asks nothing
                self._listening.add(open_)
            try:
                await self._sessions.handle_request(scope, receive, send)
            finally:
                self._listening.discard(open_)
                for log in asked:
                    self._questions.give_up(log)
        if open_.cancelled_caught:
            await send({"type": "http.response.body", "body": b""})

    async def _end_listening(self) -> None:
        """End what would never end by itself, once all questions are answered."""
        await self._questions.drained.wait()
        for open_ in self._listening:
            open_.cancel()
