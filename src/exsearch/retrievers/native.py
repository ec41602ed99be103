"""Native work is done in C++ by a library, on a thread that the end of the process must not break.

A search may still run on a thread of its own when the process ends. Python then stops the thread as
soon as it comes back from the library, which C++ answers by aborting the process. It starts no
thread.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Iterator

_PATIENCE = 10  # seconds that the end of the process waits


class _Work:
    """How many threads are at work in libraries, and whether more may begin."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._ended = False
        atexit.register(self._end)

    def begin(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._ended)  # ended: until the process is gone
            self._running += 1

    def finish(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.wait_for(lambda: not self._running, _PATIENCE)


_WORK = _Work()


@contextlib.contextmanager
def native() -> Iterator[None]:
    """A block that calls such a library: the process ends when it is done, some seconds at most.

    Where the process has come to its end, the block never begins.
    """
    _WORK.begin()
    try:
        yield
    finally:
        _WORK.finish()
