"""A cached retriever remembers what it found, so that a repeated sub-query costs nothing.

Samples of one question often ask the same. It keeps the latest searches in memory and nothing on
disk; an error is never kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from exsearch.errors import RetrieverError
from exsearch.records import Passage, refuse_text
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import checked


class CachedRetriever:
    """A retriever in front of another; `hits` and `misses` count queries. Threads may share it.

    A query that comes twice in one batch is searched once and counts as one miss and one hit.

    Args:
        inner: The retriever that searches.
        entries: The number of searches that are remembered, the latest ones.

    Raises:
        ValueError: `entries` is below 1.
    """

    def __init__(self, inner: Retriever, entries: int = 100_000):
        if entries < 1:
            raise ValueError(f"entries is {entries}, expected 1 or more")
        self.inner = inner
        self.entries = entries
        self.hits = 0
        self.misses = 0
        self._found: OrderedDict[tuple[str, int], tuple[Passage, ...]] = OrderedDict()
        self._lock = threading.Lock()  # held for the table only, never while searching

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """What the inner retriever finds; only queries not remembered reach it, in one batch.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query; another k is another search.

        Raises:
            RetrieverError: the inner search failed, or gave what is no list of passages.
            TypeError: `queries` is one text.
        """
        refuse_text("queries", queries)
        known = self._recall(queries, k)
        missing = [query for query in dict.fromkeys(queries) if query not in known]
        if missing:
            name, new = type(self.inner).__name__, dict[str, tuple[Passage, ...]]()
            lists = checked(self.inner.search(missing, k), len(missing), k, name)
            for query, found in zip(missing, lists, strict=True):
                if isinstance(found, RetrieverError):  # of all, nothing is remembered
                    raise found
                new[query] = tuple(found)
            self._remember(new, k)
            known |= new
        with self._lock:
            self.misses += len(missing)
            self.hits += len(queries) - len(missing)
        return [list(known[query]) for query in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, from the inner retriever; they are not remembered."""
        refuse_text("ids", ids)
        return self.inner.fetch(ids)

    def identity(self) -> str:
        """The identity of the inner retriever: a cache changes nothing that is found."""
        return self.inner.identity()

    def _recall(self, queries: Sequence[str], k: int) -> dict[str, tuple[Passage, ...]]:
        known = {}
        with self._lock:
            for query in queries:
                if (query, k) in self._found:
                    self._found.move_to_end((query, k))
                    known[query] = self._found[query, k]
        return known

    def _remember(self, new: dict[str, tuple[Passage, ...]], k: int) -> None:
        with self._lock:
            for query, passages in new.items():
                self._found[query, k] = passages
                self._found.move_to_end((query, k))
            while len(self._found) > self.entries:
                self._found.popitem(last=False)
