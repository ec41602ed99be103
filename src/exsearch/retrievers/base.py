"""A retriever answers a batch of queries with lists of passages, best first.

These are protocols: any object with these methods will do. They do not say how passages are scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from exsearch.records import Passage


@runtime_checkable
class Retriever(Protocol):
    """What searches need; a rollout itself calls `search` alone."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """One list a query, best first, each passage with its `score`; at most k, fewer may match.

        Raises:
            RetrieverError: the search failed. An empty list means that nothing matches, never that
                something went wrong.
        """
        ...

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, without scores, in their order; None where there is none.

        Raises:
            RetrieverError: the passages can't be read.
        """
        ...

    def identity(self) -> str:
        """What names the passages and how they are searched: two that are alike find the same.

        It is written down with every result, so it holds no path and no time.
        """
        ...


class RetrieverKind(Protocol):
    """The class of a retriever: how to open one, and how to build its index from passages."""

    @classmethod
    def open(cls, place: str) -> Retriever:
        """The retriever at a place: an index folder, or an address.

        Raises:
            IndexDamagedError: nothing usable is there.
        """
        ...

    @classmethod
    def build(cls, passages: Iterable[Passage], out: Path, *, progress: bool = True) -> int:
        """Index passages into the folder `out`, whole or not at all; their number.

        The folder gets a `retriever.json` whose `kind` is this retriever's name, and is written
        with `runs.new_folder`.

        Raises:
            DataError: passages that can't be indexed.
            ConfigError: `out` exists and is no index; or a kind that has no index to build.
        """
        ...
