"""Chat Completions of OpenAI's API: a question's steps as reasoning, then the cited answer.

The last message of the user is the question; earlier ones don't steer it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from exsearch.records import StopReason
from exsearch.serving.links import url_citation
from exsearch.serving.log import QuestionLog
from exsearch.serving.refusals import Refusal, documented, failure_of
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
)
from exsearch.serving.streams import IDLE, KEEP_ALIVE, answered, sse, stream
from exsearch.show.traces import event_text

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class ChatMessage(Strict):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Texts | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    audio: None = None
    function_call: None = None


class StreamOptions(Strict):
    """How a stream is told."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatAsked(Asked):
    """A request for a chat completion."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    response_format: PlainText | None = None
    modalities: list[Literal["text"]] | None = None
    logprobs: Off | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    stop: None = None
    logit_bias: None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: int | None = None
    reasoning_effort: Effort | None = None
    verbosity: Verbosity | None = None


class UrlCitation(BaseModel):
    """Where in the content a passage's number stands."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    """What is said of a part of the content."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class Answer(BaseModel):
    """The message that answers."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]
    reasoning_content: str


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: Answer
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens that the engine read and wrote, over all calls."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


@router.post(
    "/chat/completions",
    response_model=Completion,
    responses={**STREAMED, **documented(404)},
)
async def complete(request: Request, asked: ChatAsked) -> Completion | Response:
    """Answer the last message of the user."""
    check_model(request, asked.model)
    said = [plain_text(message.content) for message in asked.messages if message.role == "user"]
    if not said or not said[-1].strip():
        raise Refusal(400, "no text of the user; the last one is the question", param="messages")
    keep = asked.store is not False
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return stream(
            request, said[-1], lambda log: _chunks(request, log, usage), param="messages", keep=keep
        )
    log = await answered(request, said[-1], param="messages", keep=keep)
    return Completion(
        id=_id(log),
        created=int(log.began),
        model=asked.model,
        choices=[Choice(message=_answer(request, log), finish_reason=_finish(log))],
        usage=_usage(log),
    )


async def _chunks(request: Request, log: QuestionLog, usage: bool) -> AsyncIterator[bytes]:
    """The events of a stream: one with each step as it happens, then the answer in one."""

    def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
        return sse(
            {
                "id": _id(log),
                "object": "chat.completion.chunk",
                "created": int(log.began),
                "model": request.app.state.config.model,
                "choices": choices,
                **({"usage": None} if usage else {}),
                **more,
            }
        )

    def delta(finish: str | None = None, **said: Any) -> bytes:
        return chunk({"index": 0, "delta": said, "logprobs": None, "finish_reason": finish})

    yield delta(role="assistant", content="")
    async for event in log.follow(IDLE):
        if event is None:
            yield KEEP_ALIVE
        elif text := event_text(event):
            yield delta(reasoning_content=f"{text}\n")
    if failure := failure_of(log, "messages"):
        yield sse({"error": failure.values})
        return
    told = [chunk(usage=_usage(log).model_dump())] if usage else []
    yield b"".join([delta(**_said(request, log)), delta(_finish(log)), *told, sse("[DONE]")])


def _answer(request: Request, log: QuestionLog) -> Answer:
    steps = "".join(f"{text}\n" for event in log.events if (text := event_text(event)))
    return Answer(**_said(request, log), reasoning_content=steps)


def _said(request: Request, log: QuestionLog) -> dict[str, Any]:
    """The cited answer as plain values: what a stream sends is not checked once more."""
    cited = [{"url_citation": url_citation(request, mark)} for mark in log.answer.marks]
    annotations = [{"type": "url_citation", **each} for each in cited]
    return {"content": log.answer.text, "annotations": annotations}


def _id(log: QuestionLog) -> str:
    return f"chatcmpl-{log.id}"


def _finish(log: QuestionLog) -> Literal["stop", "length"]:
    cut = log.trajectory and log.trajectory.stop_reason is StopReason.MAX_TOKENS
    return "length" if cut else "stop"


def _usage(log: QuestionLog) -> Usage:
    assert log.trajectory is not None
    read, written = log.trajectory.prompt_tokens, log.trajectory.output_tokens
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
