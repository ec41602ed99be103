"""A retriever answers a batch of queries with lists of passages, best first.

These are protocols: any object with these methods will do. They do not say how passages are scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from exsearch.records import Passage, refuse_text


@runtime_checkable
class Retriever(Protocol):
    """A source of passages; a rollout calls `search` alone."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """Find passages for queries.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query, 1 or more.

        Returns:
            One list a query, in their order: the passages that match, best first, each with its
            `score`.

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
        """A text that names the passages and how they are searched.

        Two retrievers with equal texts find the same. The text is written down with every result,
        so it holds no path and no time.
        """
        ...


def refuse_search(queries: Sequence[str], k: int) -> None:
    """Refuse what is no search: one text in place of a list, or no passage to find.

    Raises:
        TypeError: `queries` is one text.
        ValueError: `k` is below 1.
    """
    refuse_text("queries", queries)
    if k < 1:
        raise ValueError(f"k is {k}, expected 1 or more passages")


class Indexable:
    """The passages of a corpus that can be found: blank ones are left out and counted.

    Args:
        passages: The passages; they are read once, when this is.

    Attributes:
        left_out: The number of passages left out so far.
    """

    def __init__(self, passages: Iterable[Passage]):
        self.left_out = 0
        self._passages = passages

    def __iter__(self) -> Iterator[Passage]:
        for passage in self._passages:
            if passage.title.strip() or passage.text.strip():
                yield passage
            else:
                self.left_out += 1


class RetrieverKind(Protocol):
    """The class of a retriever: how to open one, and how to build its index from passages."""

    @classmethod
    def open(cls, place: str) -> Retriever:
        """Open the retriever at a place.

        Args:
            place: An index folder, or an address such as `http://localhost:8000`.

        Raises:
            IndexDamagedError: nothing usable is there.
        """
        ...

    @classmethod
    def build(
        cls, passages: Iterable[Passage], place: Any, *, progress: bool = True, **settings: Any
    ) -> int:
        """Index passages at a place, whole or not at all, and return their number.

        A folder gets a `retriever.json` whose `kind` is this retriever's name, and is written with
        `runs.new_folder`.

        Args:
            passages: The corpus; it is read once.
            place: The folder to write, as a Path, or the address of a search server, as a text.
            progress: Whether a terminal shows a progress bar.
            settings: Settings of the kind's own: its further keyword arguments, which the command
                line and recipes can set by name.

        Raises:
            DataError: the passages can't be indexed.
            ConfigError: a setting that can't be used, a folder that exists and is no index, or a
                kind that has no index to build.
        """
        ...
