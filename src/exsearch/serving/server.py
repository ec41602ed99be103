"""The server listens, answers until it is asked to stop, and ends once what it has in hand is told.

What it answers is the app's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvicorn

from exsearch.errors import ConfigError
from exsearch.http_server import GRACE, address_of, is_loopback, uvicorn_config
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.app import make_app
from exsearch.serving.questions import Questions


def check_open(listener: socket.socket, config: ServeConfig) -> None:
    """Make sure that a server which other machines reach asks for a key.

    Raises:
        ConfigError: it would let everybody in.
    """
    if not config.key and not is_loopback(listener):
        raise ConfigError(
            "other machines could ask without a key: put one into the environment as "
            "EXSEARCH_API_KEY (or as --key-env names it), or listen on 127.0.0.1"
        )


def serve(
    searcher: Searcher,
    config: ServeConfig,
    listener: socket.socket,
    on_ready: Callable[[str], object],
) -> None:
    """Serve until the process is interrupted; questions in hand are answered first.

    Args:
        searcher: The searcher that answers.
        config: The bounds, and who may ask.
        listener: The socket that listens; it is closed at the end.
        on_ready: Gets the server's address once it answers.
    """
    app, questions = make_app(searcher, config)
    settings = uvicorn_config(app, lifespan="on")
    with listener, contextlib.suppress(KeyboardInterrupt), searcher:
        _Server(settings, questions, lambda: on_ready(address_of(listener))).run([listener])


class _Server(uvicorn.Server):
    """Uvicorn's server, which takes no new question once it is asked to stop."""

    def __init__(
        self, config: uvicorn.Config, questions: Questions, on_ready: Callable[[], object]
    ):
        super().__init__(config)
        self._questions, self._on_ready = questions, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets=sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is in hand, and end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._questions.drain(), GRACE)
        await super().shutdown(sockets=sockets)
