"""Responses of OpenAI's API: searches, records and the cited answer as items of one response.

The last text of the user is the question; earlier ones don't steer it.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Discriminator, Field, Tag

from exsearch.serving.faces.responses_items import Reply, Telling
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import Questions
from exsearch.serving.refusals import Refusal, documented
from exsearch.serving.requests import (
    STREAMED,
    Asked,
    Count,
    Effort,
    Off,
    PlainText,
    Strict,
    StrictRoute,
    Texts,
    Verbosity,
    check_model,
    plain_text,
    text_or_list,
)
from exsearch.serving.streams import IDLE, KEEP_ALIVE, answered, sse, stream

router = APIRouter(prefix="/v1", route_class=StrictRoute)

_ITEMS = ("reasoning", "file_search_call")


class InputMessage(Strict):
    """A message of a conversation; one that was answered may come back as it was told."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Texts
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class InputItem(Strict, extra="allow"):
    """A step of an earlier answer, as it was told."""

    type: Literal["reasoning", "file_search_call"]


def _kind_of_item(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "(item)" if kind in _ITEMS else "(message)"


Item = Annotated[
    Annotated[InputMessage, Tag("(message)")] | Annotated[InputItem, Tag("(item)")],
    Discriminator(_kind_of_item),
]
Input = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[Annotated[list[Item], Field(min_length=1)], Tag("(list)")],
    Discriminator(text_or_list),
]


class FileSearch(Strict):
    """The tool that every question is answered with; it searches the one index there is."""

    type: Literal["file_search"]
    vector_store_ids: list[str] | None = None


class TextSettings(Strict):
    """How an answer is written."""

    format: PlainText | None = None
    verbosity: Verbosity | None = None


class ReasoningSettings(Strict):
    """How much is thought, and told of it."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(Strict):
    """How a stream is told."""

    include_obfuscation: bool | None = None


class ResponseAsked(Asked):
    """A request for a response."""

    input: Input
    stream_options: StreamOptions | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    include: list[Literal["file_search_call.results", "reasoning.encrypted_content"]] | None = None
    tools: list[FileSearch] | None = None
    tool_choice: Literal["auto", "required"] | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    background: Off | None = None
    max_output_tokens: Count | None = None
    truncation: Literal["auto", "disabled"] | None = None


class Deleted(BaseModel):
    """What is told of a response that was forgotten."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


@router.post(
    "/responses",
    response_model=Reply,
    responses={**STREAMED, **documented(404)},
)
async def respond(request: Request, asked: ResponseAsked) -> Reply | Response:
    """Answer the last text of the user."""
    check_model(request, asked.model)
    if asked.previous_response_id is not None:
        _find(request, asked.previous_response_id, 400, "previous_response_id")
    question = _question(asked)
    keep = asked.store is not False
    if asked.stream:
        return stream(
            request, question, lambda log: _events(request, log), param="input", keep=keep
        )
    return _reply(request, await answered(request, question, param="input", keep=keep))


@router.get("/responses/{id}", responses=documented(404))
async def get_response(
    request: Request,
    id: str,
    stream: Annotated[Literal["false"] | None, Query()] = None,
    include: Annotated[list[str] | None, Query()] = None,
) -> Reply:
    """A response again, as far as it has come."""
    return _reply(request, _find(request, id))


@router.delete("/responses/{id}", responses=documented(404))
async def delete_response(request: Request, id: str) -> Deleted:
    """Forget a response, and give it up where it is under way."""
    questions: Questions = request.app.state.questions
    questions.forget(_find(request, id).id)
    return Deleted(id=id)


def _find(request: Request, id: str, status: int = 404, param: str = "id") -> QuestionLog:
    questions: Questions = request.app.state.questions
    kind, _, name = id.partition("_")
    log = questions.find(name) if kind == "resp" else None
    if log is None:
        code = "previous_response_not_found" if status == 400 else "not_found"
        message = f"no response has the id {id[:100]!r}, or it is no longer remembered"
        raise Refusal(status, message, param=param, code=code)
    return log


def _question(asked: ResponseAsked) -> str:
    if isinstance(asked.input, str):
        return asked.input
    said = [i for i in asked.input if isinstance(i, InputMessage) and i.role == "user"]
    question = plain_text(said[-1].content) if said else ""
    if not question.strip():
        raise Refusal(400, "no text of the user; the last one is the question", param="input")
    return question


def _reply(request: Request, log: QuestionLog) -> Reply:
    telling = Telling(request, log)
    for event in log.events:
        list(telling.take(event))
    if log.ended:
        list(telling.end())
    return telling.reply


async def _events(request: Request, log: QuestionLog) -> AsyncIterator[bytes]:
    """The events of a stream, numbered without a gap."""
    telling, numbers = Telling(request, log), itertools.count()

    def framed(events: Iterable[dict[str, Any]]) -> bytes:
        frames = (sse({**e, "sequence_number": next(numbers)}, e["type"]) for e in events)
        return b"".join(frames)

    yield framed(telling.begin())
    async for event in log.follow(IDLE):
        yield KEEP_ALIVE if event is None else framed(telling.take(event))
    yield framed(telling.end())
