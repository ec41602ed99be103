"""Milvus finds passages by its own BM25, or by vectors where the address names an encoder.

One collection a corpus; the facts are a property of it. A passage's key is a hash of its id, since
the client puts keys into an expression as they are. milvus-lite, in a file, answers as Milvus does.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from exsearch.errors import ConfigError, MissingExtraError
from exsearch.retrievers.servers.address import Address
from exsearch.retrievers.servers.collection import Collection, Facts, Row
from exsearch.retrievers.servers.retriever import ServerRetriever

try:
    from pymilvus import DataType, Function, FunctionType, MilvusClient, MilvusException
except ImportError as error:
    raise MissingExtraError("a retriever in Milvus", "milvus", str(error)) from None

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises

_FACTS = "exsearch.facts"  # a property of the collection
_MOST_TEXT = 65_535  # bytes of a VARCHAR
_FIELDS = ["id", "title", "text", "hash"]  # the text begins with the title, and has its words


class MilvusCollection(Collection):
    """A collection with passages.

    Args:
        place: `milvus://host:port/collection`, `milvus+https://…`, or a file of milvus-lite:
            `milvus:///folder/file.db/collection`.

    Raises:
        ConfigError: the address can't be used.
    """

    failures = (MilvusException,)

    def __init__(self, place: str):
        address = Address.parse(place, ("encoder",))
        file, _, name = address.path.rpartition("/")
        expected = "letters, digits and _, at most 200"
        super().__init__(
            address, address.name(name, "[A-Za-z_]\\w{0,199}", "a collection", expected)
        )
        if bool(file) == bool(address.host) or (file and not file.endswith(".db")):
            expected = "milvus://host:port/collection or milvus:///folder/file.db/collection"
            raise ConfigError(f"{address}: expected {expected}")
        if file and not Path("/", file).parent.is_dir():
            raise ConfigError(f"{address}: /{file} is in no folder")
        self._uri = f"/{file}" if file else f"{address.transport or 'http'}://{address.host}"
        self.secrets = (address.secret(),)

    @cached_property
    def _client(self) -> MilvusClient:
        # What may pass, the client itself tries again until the time is over.
        return MilvusClient(
            self._uri,
            token=self.secrets[0],
            timeout=self.address.timeout,
            # A connection at rest is not pinged: servers that take this for too much hang up.
            grpc_options={"grpc.keepalive_permit_without_calls": 0},
        )

    @property
    def _named(self) -> dict[str, Any]:
        return {"collection_name": self.name, "timeout": self.address.timeout}

    def stands(self) -> str | None:
        if not self._client.has_collection(**self._named):
            return None
        described: Any = self._client.describe_collection(**self._named)
        return described.get("properties", {}).get(_FACTS, "")

    def create(self, facts: Facts) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=32)
        for field in ("id", "title", "hash"):
            schema.add_field(field, DataType.VARCHAR, max_length=_MOST_TEXT)
        analyser = {"analyzer_params": _analyser(facts.settings["language"])}
        schema.add_field(
            "text", DataType.VARCHAR, max_length=_MOST_TEXT, enable_analyzer=True, **analyser
        )
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
        indexes = self._client.prepare_index_params()
        indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        if self.encoder:
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.encoder.dimensions)
            indexes.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        self._client.create_collection(
            **self._named,
            schema=schema,
            index_params=indexes,
            properties={_FACTS: facts.dump()},
            consistency_level="Strong",
        )

    def settle(self) -> None:
        self._client.flush(**self._named)

    def keep(self, facts: Facts) -> None:
        self._client.alter_collection_properties(**self._named, properties={_FACTS: facts.dump()})

    def count(self) -> int:
        self._client.load_collection(**self._named)  # one that was released can't be searched
        found = self._client.query(**self._named, filter="", output_fields=["count(*)"])
        return found[0]["count(*)"]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        found = self._get(ids, ["id", "hash"])
        return {one["id"]: one["hash"] for one in found}

    def write(self, rows: Sequence[Row], settings: dict[str, Any]) -> None:
        fields: list[dict[str, Any]] = [
            {"key": _key(r.id), "id": r.id, "title": r.title, "text": _joined(r), "hash": r.hash}
            for r in rows
        ]
        if self.encoder:
            for row, vector in zip(fields, self.vectors(rows), strict=True):
                row["vector"] = vector
        self._client.upsert(**self._named, data=fields)

    def search(self, queries: Sequence[str], k: int, settings: dict[str, Any]) -> list[list[Row]]:
        data: list[Any] = list(queries)
        if self.encoder:
            data = self.encoder.queries(queries).tolist()
        field = "vector" if self.encoder else "words"
        lists = self._client.search(
            **self._named, data=data, limit=k, anns_field=field, output_fields=_FIELDS
        )
        sign = -1.0 if self._lite and not self.encoder else 1.0
        return [[_row(hit["entity"], sign * hit["distance"]) for hit in hits] for hits in lists]

    def fetch(self, ids: Sequence[str]) -> list[Row]:
        return [_row(one) for one in self._get(ids, _FIELDS)]

    def may_pass(self, error: Exception) -> bool:
        return False

    def refuse(self, row: Row) -> str:
        if len(_joined(row).encode()) > _MOST_TEXT:
            return f"Milvus keeps {_MOST_TEXT} bytes of title and text at most"
        return super().refuse(row)

    @cached_property
    def _lite(self) -> bool:
        """Whether it is milvus-lite, which gives BM25 as a distance: the less, the better."""
        return "lite" in self._client.get_server_version(timeout=self.address.timeout)

    def _get(self, ids: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        keys = [_key(id_) for id_ in ids]
        return self._client.get(**self._named, ids=keys, output_fields=fields)


class MilvusRetriever(ServerRetriever):
    """Passages in a collection of Milvus, found by BM25 or by vectors."""

    collection = MilvusCollection


def _analyser(language: str) -> dict[str, Any]:
    """Milvus's analyser of a language; milvus-lite knows neither its stemmer nor its stopwords."""
    filters: list[Any] = ["lowercase"]
    if language:
        filters += [{"type": "stemmer", "language": language}]
    if language == "english":
        filters += [{"type": "stop", "stop_words": ["_english_"]}]
    return {"tokenizer": "standard", "filter": filters}


def _key(id_: str) -> str:
    return hashlib.blake2b(id_.encode(), digest_size=16).hexdigest()


def _joined(row: Row) -> str:
    return f"{row.title}\n{row.text}"


def _row(entity: dict[str, Any], score: float = 0.0) -> Row:
    title = entity["title"]
    return Row(entity["id"], title, entity["text"][len(title) + 1 :], entity["hash"], float(score))
