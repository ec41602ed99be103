"""A worker is a process that answers requests on the connections that it is handed.

It opens the index itself: what is memory-mapped is in memory once for all workers. It does not
listen on a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import Any

import uvicorn

from exsearch.errors import ExSearchError
from exsearch.hardware import usable_cores
from exsearch.http_server import uvicorn_config
from exsearch.retrievers import open_retriever
from exsearch.retrievers.guarded import guarded
from exsearch.retrievers.serving import ServerConfig


def work(config: ServerConfig, channel: socket.socket, metrics: str) -> None:
    """Answer requests until the process is asked to stop, or its parent is gone.

    Args:
        config: The place that is searched, and the limits.
        channel: Where connections come from; a line of JSON goes back once the worker is ready, or
            with the error that keeps it from it.
        metrics: The folder of the metrics of all workers.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics  # which prometheus_client reads on import
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // config.workers)))
    with contextlib.suppress(KeyboardInterrupt):
        try:
            from exsearch.retrievers.serving.app import make_app

            app = make_app(guarded(open_retriever(config.place, cache=0), config.timeout), config)
        except ExSearchError as error:
            _tell(channel, error=str(error), exit_code=error.exit_code)
        else:
            _Server(uvicorn_config(app), channel).run()


class _Server(uvicorn.Server):
    """Uvicorn's server, with connections that another process has accepted."""

    def __init__(self, config: uvicorn.Config, channel: socket.socket):
        super().__init__(config)
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections, and say so."""
        await super().startup(sockets=[])
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._take)
        _tell(self._channel)

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        _, handles, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not handles:  # the other end is closed: the parent is gone
            loop.remove_reader(self._channel)
            self.should_exit = True
        for handle in handles:
            task = loop.create_task(self._answer(socket.socket(fileno=handle)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            kind: Any = self.config.http_protocol_class
            state = self.lifespan.state
            return kind(config=self.config, server_state=self.server_state, app_state=state)

        connection.setblocking(False)
        with contextlib.suppress(OSError):  # it hung up meanwhile
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)


def _tell(channel: socket.socket, **values: Any) -> None:
    with contextlib.suppress(OSError):  # the parent is gone
        channel.sendall(json.dumps(values).encode() + b"\n")
