"""Qdrant finds passages by its own BM25, or by vectors where the address names an encoder.

One collection a corpus; the facts are its metadata. The server makes the weights of words itself,
from texts that it is sent. A point's id is a UUID from the passage's id.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from exsearch.errors import ConfigError, MissingExtraError, RetrieverError
from exsearch.retrievers.servers.address import Address
from exsearch.retrievers.servers.collection import BUSY, Collection, Facts, Row
from exsearch.retrievers.servers.retriever import ServerRetriever

try:
    import httpx
    from qdrant_client import QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import (
        ApiException,
        ResponseHandlingException,
        UnexpectedResponse,
    )
except ImportError as error:
    raise MissingExtraError("a retriever in Qdrant", "qdrant", str(error)) from None

_MODEL = "qdrant/bm25"  # a model that the server has in itself
_FACTS = "exsearch"


class QdrantCollection(Collection):
    """A collection with passages.

    Args:
        place: `qdrant://host:port/collection` or `qdrant+https://…`.

    Raises:
        ConfigError: the address can't be used.
    """

    failures = (ApiException, QdrantException)

    def __init__(self, place: str):
        address = Address.parse(place, ("encoder",))
        expected = "letters, digits, _ and -, at most 200"
        name = address.name(address.path, r"[A-Za-z0-9_-]{1,200}", "a collection", expected)
        super().__init__(address, name)
        if not address.host or address.transport not in ("", "http", "https"):
            raise ConfigError(f"{address}: expected qdrant+https://host:port/collection")
        self.secrets = (address.secret(),)

    @cached_property
    def _client(self) -> QdrantClient:
        return QdrantClient(
            f"{self.address.transport or 'http'}://{self.address.host}",
            headers={"api-key": key} if (key := self.secrets[0]) else None,
            timeout=math.ceil(self.address.timeout),
            cloud_inference=True,  # the server makes vectors of texts, and not fastembed here
            check_compatibility=False,
        )

    def stands(self) -> str | None:
        if not self._client.collection_exists(self.name):
            return None
        return (self._client.get_collection(self.name).config.metadata or {}).get(_FACTS, "")

    def create(self, facts: Facts) -> None:
        words = models.SparseVectorParams(modifier=models.Modifier.IDF)
        vectors: dict[str, models.VectorParams] = {}
        if self.encoder:
            size = self.encoder.dimensions
            vectors = {"vector": models.VectorParams(size=size, distance=models.Distance.DOT)}
        self._client.create_collection(
            self.name,
            vectors_config=vectors,
            sparse_vectors_config={"words": words},
            metadata={_FACTS: facts.dump()},
        )
        if not self.stands():
            raise RetrieverError(f"{self}: it keeps no metadata; Qdrant 1.16 or later is needed")

    def settle(self) -> None:
        """Nothing is left to do: what was written can be found."""

    def keep(self, facts: Facts) -> None:
        self._client.update_collection(self.name, metadata={_FACTS: facts.dump()})

    def count(self) -> int:
        return self._client.count(self.name, exact=True).count

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        return {row.id: row.hash for row in self.fetch(ids)}

    def write(self, rows: Sequence[Row], settings: dict[str, Any]) -> None:
        points = []
        for row, values in zip(rows, self.vectors(rows), strict=True):
            words = _document(f"{row.title}\n{row.text}", settings)
            vector: Any = {"words": words} | ({"vector": values} if values else {})
            payload = {"id": row.id, "title": row.title, "text": row.text, "hash": row.hash}
            points.append(models.PointStruct(id=_key(row.id), payload=payload, vector=vector))
        self._client.upsert(self.name, points, wait=True)

    def search(self, queries: Sequence[str], k: int, settings: dict[str, Any]) -> list[list[Row]]:
        asked: list[Any] = [_document(query, settings) for query in queries]
        if self.encoder:
            asked = self.encoder.queries(queries).tolist()
        using = "vector" if self.encoder else "words"
        requests = [
            models.QueryRequest(query=query, using=using, limit=k, with_payload=True)
            for query in asked
        ]
        replies = self._client.query_batch_points(self.name, requests)
        return [[_row(point.payload, point.score) for point in one.points] for one in replies]

    def fetch(self, ids: Sequence[str]) -> list[Row]:
        if not ids:
            return []
        points = self._client.retrieve(self.name, [_key(id_) for id_ in ids], with_payload=True)
        return [_row(point.payload) for point in points]

    def may_pass(self, error: Exception) -> bool:
        if isinstance(error, ResponseHandlingException):
            return not isinstance(error.source, httpx.TimeoutException)
        return not isinstance(error, UnexpectedResponse) or error.status_code in BUSY


class QdrantRetriever(ServerRetriever):
    """Passages in a collection of Qdrant, found by BM25 or by vectors."""

    collection = QdrantCollection


def _document(text: str, settings: dict[str, Any]) -> models.Document:
    return models.Document(text=text, model=_MODEL, options={"language": settings["language"]})


def _key(id_: str) -> str:
    return str(uuid.UUID(bytes=hashlib.blake2b(id_.encode(), digest_size=16).digest()))


def _row(payload: Any, score: float = 0.0) -> Row:
    return Row(payload["id"], payload["title"], payload["text"], payload["hash"], float(score))
