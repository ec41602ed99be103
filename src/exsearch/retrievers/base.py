"""A retriever answers a batch of queries with lists of passages, best first.

It is a Protocol: any object with this method will do. It does not say how passages are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from exsearch.records import Passage


@runtime_checkable
class Retriever(Protocol):
    """What a rollout needs of a search."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """One list a query, best first, each passage with its `score`; at most k, fewer may match.

        Raises:
            RetrieverError: the search failed. An empty list means that nothing matches, never that
                something went wrong.
        """
        ...
