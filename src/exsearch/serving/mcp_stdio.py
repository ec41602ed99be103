"""MCP over standard input and output: one client, which started this process and ends it.

Nothing but the protocol is written to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import quote

import anyio
from mcp.server.stdio import stdio_server

from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.faces.mcp import mcp_server
from exsearch.serving.questions import Questions

LINKS = "exsearch://passages/"


def claim_streams() -> tuple[int, int]:
    """Keep standard input and output for the protocol.

    What this process and those that it starts read there from now on is empty, and what they print
    there goes to standard error.

    Returns:
        The descriptors under which the two are left to `serve_stdio`.
    """
    wire = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return wire


def serve_stdio(searcher: Searcher, config: ServeConfig, wire: tuple[int, int]) -> None:
    """Serve the client until it has nothing more to say, or the process is interrupted.

    Args:
        searcher: The searcher that answers; it is closed at the end.
        config: The bounds.
        wire: The descriptors to read and to write (`claim_streams`).
    """
    with contextlib.suppress(KeyboardInterrupt), searcher:
        asyncio.run(_serve(Questions(searcher, config), *wire))


async def _serve(questions: Questions, source: int, target: int) -> None:
    server = mcp_server(questions, lambda _, id: f"{LINKS}{quote(id, safe='')}")
    lines = cast(Any, _lines(source))  # of an open file, only iteration is used
    with open(target, "w", encoding="utf-8", newline="\n") as file:
        async with stdio_server(lines, anyio.wrap_file(file)) as (read, write):
            await server.run(read, write, server.create_initialization_options())


async def _lines(descriptor: int) -> AsyncIterator[str]:
    """The lines of a file, read on a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            with open(descriptor, encoding="utf-8", errors="replace") as file:
                for line in file:
                    loop.call_soon_threadsafe(queue.put_nowait, line)
            loop.call_soon_threadsafe(queue.put_nowait, "")

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while line := await queue.get():
        yield line
