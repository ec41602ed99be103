"""Elasticsearch and OpenSearch find passages by their BM25 over title and text.

One index a corpus; the facts are its mapping's `_meta`. Both are asked by the requests that they
share, each through its own client.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from exsearch.errors import ConfigError
from exsearch.retrievers.servers.address import Address
from exsearch.retrievers.servers.collection import BUSY, Collection, Facts, Row

_FIELDS = ["id", "title", "text", "hash"]


class ServerRefusal(Exception):
    """What a reply of HTTP 200 says of a part that failed."""


class ElasticIndex(Collection):
    """An index with passages, at either of the two kinds of server.

    Args:
        place: `kind://user@host:port/index`, `kind+https://…`.

    Raises:
        ConfigError: the address can't be used.
        MissingExtraError: the client is not installed.
    """

    def __init__(self, place: str):
        address = Address.parse(place, ("ca",))
        expected = "small letters, digits, _ and -, at most 100"
        name = address.name(address.path, "[a-z0-9][a-z0-9_-]{0,99}", "an index", expected)
        super().__init__(address, name)
        if not address.host or address.transport not in ("", "http", "https"):
            raise ConfigError(f"{address}: expected {address.kind}+https://host:port/index")
        self.secrets = (address.secret(),)
        self._client = self._connect(f"{address.transport or 'http'}://{address.host}")

    @abstractmethod
    def _connect(self, url: str) -> Any:
        """The client; it makes no further attempts itself."""

    @abstractmethod
    def _ask(self, method: str, path: str, body: Any, kind: str) -> Any:
        """The JSON that the server replies, by its client.

        Args:
            method: The method of HTTP.
            path: The path with its query.
            body: The body; None for none.
            kind: `json`, or `x-ndjson` where the body is lines of it as one text.
        """

    @abstractmethod
    def _status(self, error: Exception) -> int:
        """The HTTP status of a failure; 0 where there was no reply, -1 where none came in time."""

    def stands(self) -> str | None:
        try:
            reply = self._call("GET", "_mapping")
        except self.failures as error:
            if self._status(error) == 404:
                return None
            raise
        (index,) = reply.values()  # an alias leads to an index of another name
        return index["mappings"].get("_meta", {}).get("exsearch", "")

    def create(self, facts: Facts) -> None:
        shown = {"type": "text", "index": False, "copy_to": "words"}
        fields = {
            "id": {"type": "keyword"},
            "title": shown,
            "text": shown,
            "words": {"type": "text", "analyzer": facts.settings["language"]},
            "hash": {"type": "keyword", "index": False},
        }
        meta = {"exsearch": facts.dump()}
        mappings = {"dynamic": "strict", "_meta": meta, "properties": fields}
        self._call("PUT", "", {"mappings": mappings})

    def settle(self) -> None:
        self._call("POST", "_refresh")

    def keep(self, facts: Facts) -> None:
        self._call("PUT", "_mapping", {"_meta": {"exsearch": facts.dump()}})

    def count(self) -> int:
        reply = self._call("POST", "_count", {"query": {"match_all": {}}})
        _refuse_part(reply)
        return reply["count"]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        return {row.id: row.hash for row in self.fetch(ids)}

    def write(self, rows: Sequence[Row], settings: dict[str, Any]) -> None:
        lines: list[Any] = []
        for row in rows:
            fields = {"id": row.id, "title": row.title, "text": row.text, "hash": row.hash}
            lines += [{"index": {"_id": row.id}}, fields]
        reply = self._lines("_bulk", lines)
        for item in reply["items"] if reply["errors"] else ():
            if "error" in item["index"]:
                raise ServerRefusal(f"it does not take a passage: {item['index']['error']}")

    def search(self, queries: Sequence[str], k: int, settings: dict[str, Any]) -> list[list[Row]]:
        lines: list[Any] = []
        order = [{"_score": "desc"}, {"id": "asc"}]
        for query in queries:
            match = {"match": {"words": {"query": query, "operator": "or"}}}
            body = {"query": match, "size": k, "sort": order, "_source": _FIELDS}
            lines += [{}, body | {"track_scores": True, "track_total_hits": False}]
        return [_hits(one) for one in self._lines("_msearch", lines)["responses"]]

    def fetch(self, ids: Sequence[str]) -> list[Row]:
        if not ids:
            return []
        reply = self._call("POST", "_mget", {"ids": list(ids)})
        for one in reply["docs"]:
            if "error" in one:
                raise ServerRefusal(f"it does not give a passage: {one['error']}")
        return [_row(one["_source"]) for one in reply["docs"] if one["found"]]

    def may_pass(self, error: Exception) -> bool:
        return self._status(error) in (0, *BUSY)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        return self._ask(method, f"/{self.name}/{path}".rstrip("/"), body, "json")

    def _lines(self, path: str, lines: Sequence[Any]) -> Any:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        return self._ask("POST", f"/{self.name}/{path}", text, "x-ndjson")


def _refuse_part(reply: dict[str, Any]) -> None:
    """Refuse what was found in a part of the index only."""
    if reply.get("timed_out") or reply["_shards"]["failed"]:
        raise ServerRefusal("a part of the index did not answer")


def _hits(reply: dict[str, Any]) -> list[Row]:
    if "error" in reply:
        raise ServerRefusal(f"it does not search: {reply['error']}")
    _refuse_part(reply)
    return [_row(hit["_source"], float(hit["_score"])) for hit in reply["hits"]["hits"]]


def _row(source: dict[str, Any], score: float = 0.0) -> Row:
    return Row(source["id"], source["title"], source["text"], source["hash"], score)
