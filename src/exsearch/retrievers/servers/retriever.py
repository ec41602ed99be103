"""A server retriever answers from a collection that was filled to its end.

What comes from the server is checked: a passage that is not what was filled in is an error. How
the server ranks is its own matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Self

from exsearch.errors import RetrieverError
from exsearch.records import Passage, refuse_text
from exsearch.retrievers.base import refuse_search
from exsearch.retrievers.servers.collection import MOST_ID, Collection, Row
from exsearch.retrievers.servers.filling import fill

QUERY_WORDS = 512  # servers refuse a query of more clauses than they are set for
_QUERY_SIGNS = 10_000  # for text without blanks
_IDS = 1_000  # in one request


class ServerRetriever:
    """The passages of a collection at a server; threads may share it.

    Args:
        collection: The collection.

    Raises:
        IndexDamagedError: nothing stands there that was filled to its end.
        RetrieverError: the server failed.

    Attributes:
        collection: Makes a collection from its address.
    """

    collection: ClassVar[Callable[[str], Collection]]

    def __init__(self, collection: Collection):
        self._collection = collection
        self._facts = collection.facts()
        # Of the encoder only where it is used: words are found alike with or without vectors there.
        settings = self._facts.settings | {"encoder": collection.encoded}
        settings = json.dumps(settings, sort_keys=True)
        self._identity = f"{collection.address.kind} sha256:{self._facts.sha256} {settings}"

    @classmethod
    def open(cls, place: str) -> Self:
        """Open the collection at an address.

        Raises:
            ConfigError: the address can't be used.
            IndexDamagedError: no collection is there that was filled to its end.
            RetrieverError: the server failed.
        """
        return cls(cls.collection(place))

    @classmethod
    def build(
        cls,
        passages: Iterable[Passage],
        place: str,
        *,
        progress: bool = True,
        language: str = "english",
    ) -> int:
        """Fill the collection at an address, and return the number of its passages.

        Args:
            passages: The corpus; it is read once.
            place: The address; an encoder that it names makes vectors, too.
            progress: Whether a terminal shows a progress bar.
            language: The server's name of how a language's words are compared, such as `german`.

        Raises:
            DataError, ConfigError, RetrieverError: see `filling.fill`.
        """
        return fill(cls.collection(place), passages, {"language": language}, progress)

    def __len__(self) -> int:
        return self._facts.passages

    def identity(self) -> str:
        """The kind of server, the hash of all passages in their order, and the settings."""
        return self._identity

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """What the server finds for each query, best first.

        A query is cut after 512 words or 10,000 signs; the server is not asked for an empty one,
        which finds nothing.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query; a server may give less at most (`Collection.most`).

        Raises:
            TypeError: `queries` is one text.
            ValueError: `k` is below 1.
            RetrieverError: the server failed, or gave what was not filled in.
        """
        refuse_search(queries, k)
        plain = [_plain(query) for query in queries]
        asked = [query for query in plain if query]
        if not asked:
            return [[] for _ in queries]
        collection, k = self._collection, min(k, self._collection.most, len(self))
        lists = collection.asked(collection.search, asked, k, self._facts.settings)
        if len(lists) != len(asked):
            raise RetrieverError(f"{collection}: {len(lists)} lists for {len(asked)} queries")
        found: Iterator[list[Row]] = iter(lists)
        return [
            [self._passage(row, row.score) for row in next(found)] if query else []
            for query in plain
        ]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, in their order, without scores; None for an unknown id.

        Raises:
            TypeError: `ids` is one text.
            RetrieverError: the server failed, or gave what was not filled in.
        """
        refuse_text("ids", ids)
        collection, found = self._collection, dict[str, Passage]()
        wanted = [id_ for id_ in dict.fromkeys(ids) if id_ and _is_plain(id_)]
        for start in range(0, len(wanted), _IDS):
            rows = collection.asked(collection.fetch, wanted[start : start + _IDS])
            found |= {row.id: self._passage(row, None) for row in rows}
        return [found.get(id_) for id_ in ids]

    def _passage(self, row: Row, score: float | None) -> Passage:
        passage = row.passage(score)
        if passage is None:
            raise RetrieverError(
                f"{self._collection}: the passage {row.id!r:.99} was changed there since it was "
                "filled in; remove the whole there, and fill it anew"
            )
        return passage


def _plain(query: str) -> str:
    """A query that every server takes: cut, and without the signs that are no text."""
    text = query[:_QUERY_SIGNS].replace("\0", " ").encode("utf-8", "replace").decode()
    return " ".join(text.split()[:QUERY_WORDS])


def _is_plain(text: str) -> bool:
    """Whether a text can be an id that was kept."""
    return (
        len(text) <= MOST_ID and "\0" not in text and text.encode(errors="ignore").decode() == text
    )
