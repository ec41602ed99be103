"""A small server for tests that takes what Qdrant takes, and answers likewise.

Each body is read by the models that Qdrant's client has been generated with from the published
specification: they refuse unknown fields. It ranks by rare words in common, or by dot products.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from pydantic import BaseModel
from qdrant_client import models

from checking_server import CheckingServer, Refused


class Points:
    """A collection: its configuration and its points by id."""

    def __init__(self, made: models.CreateCollection):
        self.made = made
        self.metadata = dict(made.metadata or {})
        self.points: dict[str, models.PointStruct] = {}

    def check(self, name: str, value: Any) -> None:
        """Make sure that a vector of a name can be what was given."""
        if isinstance(value, models.Document):
            params = (self.made.sparse_vectors or {})[name]
            right = params.modifier == models.Modifier.IDF and value.model == "qdrant/bm25"
            models.Bm25Config.model_validate(value.options)
        else:
            assert isinstance(self.made.vectors, dict)
            right = len(value) == self.made.vectors[name].size
        if not right:
            raise Refused(400, "Bad request", f"Wrong input: vector {name}")

    def search(self, request: models.QueryRequest) -> list[dict[str, Any]]:
        query, using = request.query, request.using or ""
        if isinstance(query, models.NearestQuery):
            query = query.nearest
        self.check(using, query)
        vectors: dict[str, Any] = {id_: p.vector[using] for id_, p in self.points.items()}  # type: ignore[index,call-overload]
        if isinstance(query, models.Document):
            words = {id_: _words(document.text) for id_, document in vectors.items()}
            asked = _words(query.text)
            scores = {
                id_: sum(1 / sum(word in w for w in words.values()) for word in asked & own)
                for id_, own in words.items()
            }
            scores = {id_: score for id_, score in scores.items() if score}
        else:
            scores = {id_: float(np.dot(query, vector)) for id_, vector in vectors.items()}
        best = sorted((-score, id_) for id_, score in scores.items())[: request.limit]
        return [
            {"id": id_, "version": 0, "score": -minus, "payload": self.points[id_].payload}
            for minus, id_ in best
        ]


class QdrantServer(CheckingServer):
    """The server, on a port of this machine.

    Args:
        keeps_metadata: False as a server before 1.16.
    """

    def __init__(self, keeps_metadata: bool = True) -> None:
        self.own_headers = {}
        self.keeps_metadata = keeps_metadata
        self.collections: dict[str, Points] = {}
        super().__init__()

    def refusal(self, refused: Refused) -> Any:
        return {"status": {"error": str(refused)}, "time": 0.0}

    def answer(self, method: str, path: str, kind: str, body: bytes) -> Any:
        if body and kind != "application/json":
            raise Refused(415, "Unsupported", f"content type {kind}")
        parts = urlsplit(path)
        _, first, name, *rest = parts.path.split("/")
        self.query = parse_qs(parts.query)
        act = getattr(self, "_".join((method, *(part for part in rest if part))), None)
        if first != "collections" or act is None:
            raise Refused(404, "Not found", f"{method} {path}")
        if name not in self.collections and act not in (self.PUT, self.GET_exists):
            raise Refused(404, "Not found", f"Collection `{name}` doesn't exist!")
        return {"result": act(name, body), "status": "ok", "time": 0.001}

    def PUT(self, name: str, body: bytes) -> Any:
        if name in self.collections:
            raise Refused(409, "Conflict", f"Collection `{name}` already exists!")
        self.collections[name] = Points(_read(models.CreateCollection, body))
        if not self.keeps_metadata:
            self.collections[name].metadata = {}
        return True

    def PATCH(self, name: str, body: bytes) -> Any:
        self.collections[name].metadata |= _read(models.UpdateCollection, body).metadata or {}
        return True

    def GET_exists(self, name: str, body: bytes) -> Any:
        return {"exists": name in self.collections}

    def GET(self, name: str, body: bytes) -> Any:
        made, metadata = self.collections[name].made, self.collections[name].metadata
        config = models.CollectionConfig(
            params=models.CollectionParams(
                vectors=made.vectors, sparse_vectors=made.sparse_vectors
            ),
            hnsw_config=models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10000),
            optimizer_config=models.OptimizersConfig(
                deleted_threshold=0.2,
                vacuum_min_vector_number=1000,
                default_segment_number=0,
                flush_interval_sec=5,
            ),
            metadata=metadata or None,
        )
        info = models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            segments_count=1,
            config=config,
            payload_schema={},
        )
        return info.model_dump(mode="json", exclude_none=True)

    def PUT_points(self, name: str, body: bytes) -> Any:
        if self.query != {"wait": ["true"]}:
            raise Refused(400, "Bad request", f"it would not wait: {self.query}")
        collection = self.collections[name]
        points = _read(models.PointsList, body).points
        for point in points:
            assert isinstance(point.vector, dict)
            for vector, value in point.vector.items():
                collection.check(vector, value)
        collection.points |= {str(point.id): point for point in points}
        return {"operation_id": 1, "status": "completed"}

    def POST_points(self, name: str, body: bytes) -> Any:
        request = _read(models.PointRequest, body)
        points = self.collections[name].points
        found = [points[str(id_)] for id_ in request.ids if str(id_) in points]
        return [{"id": str(point.id), "payload": point.payload} for point in found]

    def POST_points_count(self, name: str, body: bytes) -> Any:
        if not _read(models.CountRequest, body).exact:
            raise Refused(400, "Bad request", "a rough count")
        return {"count": len(self.collections[name].points)}

    def POST_points_query_batch(self, name: str, body: bytes) -> Any:
        searches = _read(models.QueryRequestBatch, body).searches
        return [{"points": self.collections[name].search(one)} for one in searches]


def _read(model: type[Any], body: bytes) -> Any:
    assert issubclass(model, BaseModel)
    return model.model_validate_json(body)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
