"""A stop during training lets the optimizer step under way end and be saved first.

It saves nothing itself, and knows no signal's meaning: that is for the handler that stood before.
"""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


class SavedOnInterrupt:
    """A context in which Ctrl-C and what else would raise wait for `check`; a second stops at once.

    A signal without a handler (SIGTERM, outside of the command line) does what it always does.
    """

    def __enter__(self) -> SavedOnInterrupt:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}
        for number in SIGNALS:
            handler = signal.getsignal(number)
            with contextlib.suppress(ValueError):  # not the main thread: no signal comes to it
                if callable(handler):
                    signal.signal(number, self._note)
                    self._before[number] = handler
        return self

    @property
    def wanted(self) -> bool:
        """True once a signal came: the state is to be saved, then `check` called."""
        return self._noted is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            self._before[number](number, frame)
        self._noted = number

    def check(self) -> None:
        """Let the signal that came do its work, now that the state is saved."""
        number, self._noted = self._noted, None
        if number is not None:
            self._before[number](number, None)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()  # it came after the last optimizer step
