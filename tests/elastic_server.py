"""A small server for tests that takes what Elasticsearch and OpenSearch take, and answers likewise.

Each request is checked: its path, its content type, and its fields by the signatures that Elastic's
client has been generated with from the published specification. It ranks by rare words in common.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from elasticsearch import Elasticsearch
from elasticsearch.dsl import field as fields
from elasticsearch.dsl import types

from checking_server import CheckingServer, Refused

IndicesClient = type(Elasticsearch("http://localhost:9").indices)
JSON = re.compile(r"application/(vnd\.elasticsearch\+)?json(;\s*compatible-with=9)?")
LINES = re.compile(r"application/(vnd\.elasticsearch\+)?x-ndjson(;\s*compatible-with=9)?")
WHOLE = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}


def check(right: bool, reason: str) -> None:
    if not right:
        raise Refused(400, "illegal_argument_exception", reason)


def check_fields(body: Any, method: Any) -> None:
    """Make sure that a body has no field but those of the published request."""
    check(isinstance(body, dict), "the body is no object")
    known = set(inspect.signature(method).parameters)
    unknown = [name for name in body if name.removeprefix("_") not in known]
    check(not unknown, f"unknown fields {unknown}")


class Index:
    """An index: what was written, and what a refresh has made searchable."""

    def __init__(self, mappings: dict[str, Any]):
        check(mappings["dynamic"] in ("strict", "true", "false", "runtime"), "dynamic")
        for name, one in mappings["properties"].items():
            kind = {"keyword": fields.Keyword, "text": fields.Text}[one["type"]]
            options = {option: value for option, value in one.items() if option != "type"}
            inspect.signature(kind.__init__).bind(None, **options)
            check(one.get("copy_to", name) in mappings["properties"], "copy_to leads nowhere")
        self.mappings = mappings
        self.written: dict[str, dict[str, Any]] = {}
        self.searchable: dict[str, dict[str, Any]] = {}

    def words(self, source: dict[str, Any]) -> set[str]:
        of = self.mappings["properties"]
        copied = [source[name] for name, one in of.items() if one.get("copy_to") == "words"]
        return set(re.findall(r"\w+", " ".join(copied).lower()))

    def search(self, name: str, body: Any) -> dict[str, Any]:
        check_fields(body, Elasticsearch.search)
        check(0 <= body["size"] <= 10_000, "Result window is too large")
        ((kind, match),) = body["query"].items()
        check(kind == "match", "no match query")
        ((field, options),) = match.items()
        types.MatchQuery(**options)
        check(self.mappings["properties"][field].get("index", True), f"{field} is not indexed")
        check(body["sort"] == [{"_score": "desc"}, {"id": "asc"}], "sort")
        check(self.mappings["properties"]["id"]["type"] == "keyword", "no field to sort by")
        asked = set(re.findall(r"\w+", options["query"].lower()))
        check(len(asked) <= 1024, "too_many_clauses")
        words = {id_: self.words(source) for id_, source in self.searchable.items()}
        scores = {
            id_: sum(1 / sum(word in w for w in words.values()) for word in asked & own)
            for id_, own in words.items()
        }
        best = sorted((-score, id_) for id_, score in scores.items() if score)[: body["size"]]
        hits = [
            {
                "_index": name,
                "_id": id_,
                "_score": -minus,
                "_source": {f: self.searchable[id_][f] for f in body["_source"]},
                "sort": [-minus, id_],
            }
            for minus, id_ in best
        ]
        found = {"max_score": hits[0]["_score"] if hits else None, "hits": hits}
        return {"took": 1, "timed_out": False, "_shards": WHOLE, "hits": found, "status": 200}


class ElasticServer(CheckingServer):
    """The server, on a port of this machine.

    Args:
        product: What it calls itself in a header that Elasticsearch sends; None as OpenSearch.
    """

    def __init__(self, product: str | None = "Elasticsearch"):
        self.own_headers = {"X-elastic-product": product} if product else {}
        self.indexes: dict[str, Index] = {}
        super().__init__()

    def refusal(self, refused: Refused) -> Any:
        error = {"type": refused.kind, "reason": str(refused)}
        return {"error": error, "status": refused.status}

    def answer(self, method: str, path: str, kind: str, body: bytes) -> Any:
        name, _, action = path.removeprefix("/").partition("/")
        check(bool(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)), f"invalid index name {name}")
        lines = action in ("_bulk", "_msearch")
        if body:
            check(bool((LINES if lines else JSON).fullmatch(kind)), f"content type {kind}")
            check(not lines or body.endswith(b"\n"), "the last line must end with a newline")
        values = [json.loads(line) for line in body.splitlines()] if body else []
        if (method, action) == ("PUT", ""):
            check(name not in self.indexes, "resource_already_exists_exception")
            check_fields(values[0], IndicesClient.create)
            self.indexes[name] = Index(values[0]["mappings"])
            return {"acknowledged": True, "shards_acknowledged": True, "index": name}
        if name not in self.indexes:
            raise Refused(404, "index_not_found_exception", f"no such index [{name}]")
        act = getattr(self, f"{method}{action}", None)
        if act is None:
            raise Refused(405, "method_not_allowed", f"{method} {path}")
        return act(name, self.indexes[name], *([values] if lines else values))

    def GET_mapping(self, name: str, index: Index) -> Any:
        return {name: {"mappings": index.mappings}}

    def PUT_mapping(self, name: str, index: Index, body: Any) -> Any:
        check_fields(body, IndicesClient.put_mapping)
        index.mappings = index.mappings | body
        return {"acknowledged": True}

    def POST_refresh(self, name: str, index: Index) -> Any:
        index.searchable = dict(index.written)
        return {"_shards": WHOLE}

    def POST_count(self, name: str, index: Index, body: Any) -> Any:
        check_fields(body, Elasticsearch.count)
        check(body["query"] == {"match_all": {}}, "query")
        return {"count": len(index.searchable), "_shards": WHOLE}

    def POST_mget(self, name: str, index: Index, body: Any) -> Any:
        check_fields(body, Elasticsearch.mget)
        check(bool(body["ids"]), "no documents to get")
        docs = [
            {"_index": name, "_id": id_, "found": True, "_source": index.written[id_]}
            if id_ in index.written
            else {"_index": name, "_id": id_, "found": False}
            for id_ in body["ids"]
        ]
        return {"docs": docs}

    def POST_bulk(self, name: str, index: Index, lines: list[Any]) -> Any:
        check(len(lines) % 2 == 0, "an action without its document")
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            (id_,) = action["index"].values()
            check(list(action["index"]) == ["_id"] and 0 < len(id_.encode()) <= 512, "_id")
            check(set(source) == {"id", "title", "text", "hash"}, "strict_dynamic_mapping")
            index.written[id_] = source
            done = {"_index": name, "_id": id_, "_version": 1, "result": "created", "status": 201}
            items.append({"index": done | {"_shards": WHOLE}})
        return {"took": 1, "errors": False, "items": items}

    def POST_msearch(self, name: str, index: Index, lines: list[Any]) -> Any:
        check(len(lines) % 2 == 0, "a header without its body")
        responses = []
        for header, body in zip(lines[::2], lines[1::2], strict=True):
            check(header == {}, "header")
            try:
                responses.append(index.search(name, body))
            except Refused as refused:
                responses.append(self.refusal(refused))
        return {"took": 1, "responses": responses}
