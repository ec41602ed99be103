"""Ctrl-C during training lets the optimizer step under way end and be saved before it stops.

It saves nothing itself.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class SavedOnInterrupt:
    """A context in which Ctrl-C waits for `check`; a second Ctrl-C stops at once.

    Attributes:
        wanted: True once Ctrl-C was pressed: the state is to be saved, then `check` called.
    """

    wanted = False

    def __enter__(self) -> SavedOnInterrupt:
        try:
            self._before: Any = signal.signal(signal.SIGINT, self._note)
        except ValueError:  # not the main thread: nobody can press Ctrl-C on it
            self._before = None
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def check(self) -> None:
        """Raise the interrupt that came, now that the state is saved."""
        if self.wanted:
            raise KeyboardInterrupt

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()  # Ctrl-C came after the last optimizer step
