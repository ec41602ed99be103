"""The first process of a search server listens, and hands each connection to a worker in turn.

In turn, as workers that accept for themselves leave it to chance which of them works: one may get
all. A worker that dies is replaced; one that can't start ends the server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import socket
import tempfile
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from exsearch.errors import ExSearchError
from exsearch.http_server import GRACE, address_of, check_installed, is_loopback, listen
from exsearch.retrievers.serving import ServerConfig

logger = logging.getLogger(__name__)


def serve(config: ServerConfig, host: str, port: int, on_ready: Callable[[str], object]) -> None:
    """Serve until the process is interrupted; requests in hand are answered first.

    Args:
        config: What is served, and how.
        host: The name or number of the interface to listen on.
        port: The port; 0 takes a free one.
        on_ready: Gets the server's address once every worker can answer.

    Raises:
        MissingExtraError: the packages of the extra `serve` are not installed.
        ConfigError: the port can't be had.
        ExSearchError: the retriever can't be opened.
    """
    check_installed("serve-retriever")
    with (
        listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="exsearch-") as metrics,
        contextlib.suppress(KeyboardInterrupt),
    ):
        if not is_loopback(listener):
            logger.warning("whoever reaches this machine can search: there is no password")
        team = [_Worker(config, metrics) for _ in range(config.workers)]
        try:
            _get_ready(team)
            on_ready(address_of(listener))
            _hand_out(listener, team)
        finally:
            listener.close()
            _stop(team)


class _Worker:
    """A worker as its parent sees it; it starts at once.

    Attributes:
        process: The process.
        channel: Where connections are handed over.
        ready: True once it can answer.
    """

    def __init__(self, config: ServerConfig, metrics: str):
        self._config, self._metrics = config, metrics
        from exsearch.retrievers.serving.worker import work

        context = multiprocessing.get_context("spawn")
        self.channel, other = socket.socketpair()
        self.process = context.Process(
            target=work, args=(config, other, metrics), name="search worker", daemon=True
        )
        self.process.start()
        other.close()
        self.ready = False

    def hear(self) -> None:
        """Read what it says once it has started.

        Raises:
            ExSearchError: it can't start.
        """
        said = self.channel.recv(65536)
        values: dict[str, Any] = json.loads(said) if said.endswith(b"\n") else {"error": "it died"}
        if "error" in values:
            error = ExSearchError(f"the server can't start: {values['error']}")
            error.exit_code = int(values.get("exit_code", 1))
            raise error
        self.ready = True

    def take(self, connection: socket.socket) -> bool:
        """Hand over a connection; false where it can't be."""
        try:
            return socket.send_fds(self.channel, [b"c"], [connection.fileno()]) == 1
        except OSError:
            return False

    def replaced(self) -> _Worker:
        """Another worker in the place of this one, which has died."""
        from prometheus_client.multiprocess import mark_process_dead

        logger.warning("a worker died (exit code %s); another is started", self.process.exitcode)
        mark_process_dead(self.process.pid, self._metrics)  # what it had in flight
        self.channel.close()
        return _Worker(self._config, self._metrics)


def _get_ready(team: list[_Worker]) -> None:
    while waiting := [worker for worker in team if not worker.ready]:
        heard = wait([worker.channel for worker in waiting])
        for worker in waiting:
            if worker.channel in heard:
                worker.hear()


def _hand_out(listener: socket.socket, team: list[_Worker]) -> None:
    """Hand each connection to the next worker that is ready, and replace those that die."""
    turn = 0
    while True:
        starting = [worker.channel for worker in team if not worker.ready]
        sentinels = [worker.process.sentinel for worker in team]
        events = wait([listener, *starting, *sentinels])
        for place, worker in enumerate(team):
            if worker.channel in events or (worker.process.sentinel in events and not worker.ready):
                worker.hear()
            elif worker.process.sentinel in events:
                team[place] = worker.replaced()
        if listener in events:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                ready = [worker for worker in team if worker.ready]
                turn += 1
                any(ready[(turn + n) % len(ready)].take(connection) for n in range(len(ready)))


def _stop(team: list[_Worker]) -> None:
    """Have all workers answer what they have in hand, and end."""
    for worker in team:
        worker.process.terminate()
    try:
        for worker in team:
            worker.process.join(GRACE + 5)
    finally:  # also where a second interrupt says that it is urgent
        for worker in team:
            worker.process.kill()
            worker.channel.close()
