"""The app answers a search server's requests; each is taken as it is meant, or refused.

Errors are JSON (`{"error", "field"}`), and a search that failed is one, never an empty list. It
listens to nothing: `worker` does.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exsearch.errors import RetrieverError
from exsearch.http_server import bounded
from exsearch.retrievers.guarded import GuardedRetriever
from exsearch.retrievers.protocol import document, hits
from exsearch.retrievers.serving import ServerConfig
from exsearch.retrievers.serving.batches import Batches
from exsearch.retrievers.serving.metrics import CONTENT_TYPE, Metrics

MAX_QUERY = 1_000_000  # characters
MAX_BODY = 16_000_000  # bytes
MAX_PASSAGES = 100_000  # of a reply
TOPK = 3
_PATHS = ("/retrieve", "/fetch", "/identity", "/health", "/metrics")
_LIMITED = ("/retrieve", "/fetch")

Text = Annotated[str, Field(max_length=MAX_QUERY)]


class Query(BaseModel):
    """The body of `/retrieve`."""

    model_config = ConfigDict(strict=True)

    queries: list[Text]
    topk: Annotated[int, Field(ge=1)] | None = None
    return_scores: bool = False


class Ids(BaseModel):
    """The body of `/fetch`."""

    model_config = ConfigDict(strict=True)

    ids: list[Text]


class RefusedRequest(Exception):
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
        field: The name of the field that is wrong; empty where it is none.
    """

    def __init__(self, status: int, reason: str, field: str = ""):
        super().__init__(reason)
        self.status, self.field = status, field


def make_app(retriever: GuardedRetriever, config: ServerConfig) -> ASGIApp:
    """The app in front of a retriever.

    Args:
        retriever: The retriever that searches.
        config: The limits of a request.
    """
    metrics, batches = Metrics(), Batches(retriever, config.max_queries)
    identity = retriever.identity()
    app = FastAPI(title="exsearch", openapi_url=None, docs_url=None, redoc_url=None)
    _tell_errors(app)

    @app.post("/retrieve")
    async def retrieve(query: Query) -> Response:
        k = TOPK if query.topk is None else query.topk
        _limit(len(query.queries), config.max_queries, "queries")
        _limit(k, config.max_topk, "topk")
        _limit(k * len(query.queries), MAX_PASSAGES, "topk times queries")
        found = await batches.search(query.queries, k) if query.queries else []
        errors = [one for one in found if isinstance(one, RetrieverError)]
        metrics.queries.inc(len(found))
        metrics.failed.inc(len(errors))
        if errors:
            raise errors[0]
        lists = [hits(one, query.return_scores) for one in found if isinstance(one, list)]
        return _json({"result": lists})

    @app.post("/fetch")
    async def fetch(ids: Ids) -> Response:
        _limit(len(ids.ids), config.max_queries, "ids")
        found = await asyncio.to_thread(retriever.fetch, ids.ids)
        return _json({"result": [None if one is None else document(one) for one in found]})

    @app.get("/identity")
    async def identity_() -> Response:
        return _json({"identity": identity})

    @app.get("/health")
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/metrics")
    async def metrics_() -> Response:
        return Response(await asyncio.to_thread(metrics.text), media_type=CONTENT_TYPE)

    return Gate(app, metrics, config.max_requests)


class Gate:
    """What stands before the app: it counts, times, and turns away what is too much.

    Args:
        app: The app behind it.
        metrics: The counters.
        most: The most requests in hand at once.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, most: int):
        self._app, self._metrics, self._most = app, metrics, most
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI)."""
        if scope["type"] != "http":  # no websocket is served
            return
        path = scope["path"] if scope["path"] in _PATHS else "other"
        start, status = time.perf_counter(), 499  # as nginx has it: who asked has gone

        async def send_on(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        limited = path in _LIMITED
        self._in_hand += limited
        self._metrics.in_flight.inc()
        try:
            if limited and self._in_hand > self._most:
                reason = f"more than {self._most} requests at once; ask again later"
                busy = _error(RefusedRequest(429, reason), {"Retry-After": "1"})
                return await busy(scope, receive, send_on)
            await self._app(scope, bounded(receive, MAX_BODY), send_on)
        finally:
            self._in_hand -= limited
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)


def _limit(value: int, most: int, field: str) -> None:
    if value > most:
        raise RefusedRequest(413, f"{field}: {value}, at most {most} are answered", field)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, allow_nan=False)
    return Response(text, status, headers, "application/json")


def _error(refused: RefusedRequest, headers: dict[str, str] | None = None) -> Response:
    value = {"error": str(refused)} | ({"field": refused.field} if refused.field else {})
    return _json(value, refused.status, headers)


def _tell_errors(app: FastAPI) -> None:
    """Have every error of an app told as JSON."""

    @app.exception_handler(RefusedRequest)
    async def refused(request: Request, error: RefusedRequest) -> Response:
        return _error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        if first["type"] == "json_invalid":
            return _error(RefusedRequest(400, "the body is not JSON"))
        if not field:
            reason = "the body is no JSON object with the content type application/json"
            return _error(RefusedRequest(400, reason))
        too_long = first["type"] == "string_too_long"
        reason = f"{field}: {first['msg'][:200]}"
        return _error(RefusedRequest(413 if too_long else 400, reason, field))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return _error(RefusedRequest(error.status_code, str(error.detail)))

    @app.exception_handler(RetrieverError)
    async def failed(request: Request, error: RetrieverError) -> Response:
        return _error(RefusedRequest(500, str(error)))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return _error(RefusedRequest(500, f"unforeseen: {type(error).__name__}"))
