"""A pack holds questions, answers and trajectories compressed, in pieces that open one by one.

A passage is stored once, whatever found it. What the values mean is the page's business.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exsearch.runs import finite

TRACES = 200  # a piece: opening one trajectory unpacks so many
PASSAGES = 500


class Pack:
    """Pieces by their names, each JSON, compressed, in base64.

    Attributes:
        pieces: The pieces so far; `close` adds the passages and the last trajectories.
        traces: The number of trajectories so far.
    """

    def __init__(self) -> None:
        self.pieces: dict[str, str] = {}
        self.traces = 0
        self._waiting: list[Mapping[str, Any]] = []
        self._passages: dict[tuple[str, str, str], int] = {}

    def add(self, name: str, value: Any) -> None:
        """Put a value into a piece of its own."""
        text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
        packed = gzip.compress(text.encode("utf-8", "backslashreplace"), 9, mtime=0)
        self.pieces[name] = base64.b64encode(packed).decode()

    def add_trace(self, trace: Mapping[str, Any]) -> None:
        """Put in a trace (`serving.traces`), its passages as numbers of those that are stored."""
        self._waiting.append({**trace, "steps": [self._step(step) for step in trace["steps"]]})
        self.traces += 1
        if len(self._waiting) == TRACES:
            self._flush()

    def _step(self, step: Mapping[str, Any]) -> dict[str, Any]:
        return {**step, "passages": [self._passage(passage) for passage in step["passages"]]}

    def _passage(self, passage: Mapping[str, Any]) -> Sequence[Any]:
        key = (passage["id"], passage["title"], passage["text"])
        number = self._passages.setdefault(key, len(self._passages))
        return number, passage["score"], int(passage["supporting"])

    def _flush(self) -> None:
        if self._waiting:
            self.add(f"traces-{(self.traces - 1) // TRACES}", self._waiting)
            self._waiting = []

    def close(self) -> None:
        """Put in what is left."""
        self._flush()
        for number, some in enumerate(batched(self._passages, PASSAGES)):
            self.add(f"passages-{number}", some)


def batched(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Items in lists of `size`, the last of which may be shorter."""
    each = iter(items)
    return iter(lambda: list(itertools.islice(each, size)), [])
