"""The page at `/`: ask, watch the steps arrive, read the answer and check what it rests on.

Its files are plain and ask no other host for anything; its data are traces (`traces`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from exsearch.records import Passage
from exsearch.runs import finite
from exsearch.serving.links import passage_url
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import Questions
from exsearch.serving.refusals import Refusal, documented
from exsearch.serving.requests import STREAMED, StrictRoute
from exsearch.serving.streams import IDLE, KEEP_ALIVE, sse, stream
from exsearch.serving.traces import event_of, row_of, trace_of_log

LISTED = 200  # the most traces in a list

# No script but the page's own runs, whatever a passage holds, and no other host is asked.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask whether it changed
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_METHODS = ["GET", "HEAD"]
_FOLDER = files("exsearch.serving") / "page"
_NAMES = ("style.css", "script.js", "passage.js", "trace.js", "judge.js", "icon.svg")

router = APIRouter(route_class=StrictRoute)


def files_router(first: str = "index.html") -> APIRouter:
    """The routes of a page's files.

    Args:
        first: The name of the file that stands at `/`.
    """
    routes = APIRouter(include_in_schema=False)
    for path, name in {"/": first, **{f"/page/{name}": name for name in _NAMES}}.items():
        routes.add_api_route(path, _file((_FOLDER / name).read_bytes(), name), methods=_METHODS)
    return routes


def _file(content: bytes, name: str) -> Callable[[Request], Awaitable[Response]]:
    """A function that answers with one of the page's files."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}
    media_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"

    async def file(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return file


class Asked(BaseModel):
    """A question as the page asks it.

    Attributes:
        question: The text of the question.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str


@router.get("/about")
async def about(request: Request) -> dict[str, Any]:
    """What the page can do here."""
    return {"name": request.app.state.config.model, "asks": True, "columns": []}


@router.get("/traces")
async def traces(request: Request) -> dict[str, Any]:
    """The remembered questions, the newest first."""
    logs = _questions(request).remembered(LISTED)
    rows = [row_of(log.id, log.trajectory, log.answer.answer) for log in logs if log.trajectory]
    return {"traces": finite(rows)}


@router.get("/traces/{id:path}", responses=documented(404))
async def trace(id: str, request: Request) -> Response:
    """All that is known of a question in hand or remembered."""
    log = _questions(request).find(id)
    if log is None:
        raise Refusal(404, f"no question with the id {id!r} is remembered", param="id")
    return JSONResponse(trace_of_log(log, lambda passage: passage_url(request, passage)))


@router.post("/ask", responses=STREAMED)
async def ask(asked: Asked, request: Request) -> Response:
    """Answer a question by server-sent events: each that happens, then the whole trace."""

    def address_of(passage: Passage) -> str:
        return passage_url(request, passage)

    async def tell(log: QuestionLog) -> AsyncIterator[bytes]:
        yield sse({"kind": "asked", "id": log.id})
        async for event in log.follow(IDLE):
            yield KEEP_ALIVE if event is None else sse(finite(event_of(event, log, address_of)))
        yield sse({"kind": "trace", "trace": trace_of_log(log, address_of)})

    return stream(request, asked.question, tell, param="question")


def _questions(request: Request) -> Questions:
    return request.app.state.questions
