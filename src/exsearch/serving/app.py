"""The app joins all faces of one searcher, behind a gate; `server` has it listen.

Errors are told in the form of OpenAI's API, whichever face meets them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

import exsearch
from exsearch.errors import ExSearchError
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.faces import ag_ui, chat, models, page, responses, ui_stream
from exsearch.serving.faces.spans import tell_spans
from exsearch.serving.gate import OPEN, Gate
from exsearch.serving.links import own_url, passage_url
from exsearch.serving.log import QuestionLog
from exsearch.serving.mcp_http import PATH, McpOverHttp
from exsearch.serving.metrics import CONTENT_TYPE, Metrics
from exsearch.serving.questions import Questions
from exsearch.serving.refusals import Refusal, documented, refusal_of
from exsearch.terminal import safe

logger = logging.getLogger(__name__)

# What a page of another site may read of a reply, beside its body: clients of MCP and of OpenAI do.
READABLE = ("Mcp-Session-Id", "WWW-Authenticate", "Retry-After", "X-Request-Id", "X-Should-Retry")


def make_app(searcher: Searcher, config: ServeConfig) -> tuple[ASGIApp, Questions]:
    """The app in front of a searcher.

    Args:
        searcher: The searcher that answers.
        config: The bounds, and who may ask.

    Returns:
        The app, and its questions, which are to be drained before the server stops.
    """
    metrics = Metrics()

    def on_end(log: QuestionLog) -> None:
        metrics.count(log)
        tell_spans(log, config.model)

    questions = Questions(searcher, config, on_end)

    def link_of(request: Request | None, id: str) -> str:
        assert request is not None  # over HTTP there always is one
        return own_url(request, id)

    mcp = McpOverHttp(questions, link_of)
    app = FastAPI(
        title="exsearch",
        version=exsearch.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=documented(400, 401, 403),
        lifespan=lambda _: mcp.running(),
    )
    for face in (models, chat, responses, ui_stream, ag_ui, page):
        app.include_router(face.router)
    app.include_router(page.files_router())
    app.state.questions, app.state.config = questions, config
    _tell_errors(app)
    app.router.routes.append(Route(PATH, mcp, include_in_schema=False))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "The server is about to stop."}})
    async def readyz() -> Response:
        status = 503 if questions.closing else 200
        return JSONResponse({"status": "closing" if questions.closing else "ready"}, status)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics_() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/passages/{id:path}", responses=documented(404, 502))
    async def passage(id: str, request: Request) -> dict[str, Any]:
        (found,) = await asyncio.to_thread(searcher.retriever.fetch, [id])
        if found is None:
            raise Refusal(404, f"no passage has the id {id!r}", param="id", code="not_found")
        return {**found.fields, "url": passage_url(request, found)}

    _tell_what_is_answered(app)
    gate = Gate(app, config, metrics)
    if not config.origins:
        return gate, questions
    shared = CORSMiddleware(
        gate,
        config.origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=READABLE,
    )
    return shared, questions


def _tell_what_is_answered(app: FastAPI) -> None:
    """Have the schema of an app that has all its routes name no status that is never answered."""
    schema = app.openapi()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            replies = operation["responses"]
            if replies.get("422", {}).get("description") == "Validation Error":
                del replies["422"]  # FastAPI's own; here what is invalid is answered by 400
            if path in OPEN:
                del replies["401"], replies["403"]
    for name in ("HTTPValidationError", "ValidationError"):
        del schema["components"]["schemas"][name]


def _tell_errors(app: FastAPI) -> None:
    """Have every error of an app told in one form."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return error.response

    @app.exception_handler(ExSearchError)
    async def failed(request: Request, error: ExSearchError) -> Response:
        return refusal_of(error).response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return Refusal(400, "the body is not JSON").response
        field = _field(first, error.body)[:200]
        if not field:
            what = "the body is no JSON object with the content type application/json"
            return Refusal(400, what).response
        unknown = first["type"] == "extra_forbidden"
        said = "not known, or can't be honoured here" if unknown else first["msg"][:200]
        return Refusal(400, safe(f"{field}: {said}"), param=field).response

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405 and (route := request.scope.get("route")):
            there = app.openapi()["paths"].get(route.path, {})  # of all routes with this path
            headers |= {"Allow": ", ".join(map(str.upper, there))} if there else {}
        return Refusal(error.status_code, str(error.detail), headers=headers).response

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        logger.exception("unforeseen")
        return Refusal(500, f"unforeseen: {type(error).__name__}").response


def _field(error: dict[str, Any], body: Any) -> str:
    """The name of the field that is wrong, such as `messages[0].content`.

    Args:
        error: The error as pydantic has it, with the names of types on the way to the field.
        body: The request's body.
    """
    kind, *place = error["loc"]
    if kind != "body":
        return ".".join(map(str, place))
    name = ""
    for number, part in enumerate(place, start=1):
        missing = error["type"] == "missing" and number == len(place)
        if isinstance(part, int):
            known = isinstance(body, list) and part < len(body)
            name, body = f"{name}[{part}]", body[part] if known else None
        elif isinstance(body, dict) and (part in body or missing):
            name, body = f"{name}.{part}" if name else part, body.get(part)
    return name
