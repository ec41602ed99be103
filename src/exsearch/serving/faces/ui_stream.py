"""The AI SDK's UI message stream, version 7: what `useChat` and its kin in web front ends read.

The last message of the user is the question. Each search is a call of the tool `search`, what it
recorded is reasoning, and the answer is text with citations. Offsets count UTF-16 code units, as
JavaScript does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from exsearch.agent.cited import Mark, Source
from exsearch.agent.events import Event, EventKind
from exsearch.records import Passage, StopReason
from exsearch.runs import finite
from exsearch.serving.links import passage_url
from exsearch.serving.log import QuestionLog
from exsearch.serving.refusals import Refusal, failure_of
from exsearch.serving.requests import STREAMED
from exsearch.serving.streams import IDLE, KEEP_ALIVE, sse, stream

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
TOOL = "search"

router = APIRouter()


class _Loose(BaseModel):
    """A part of what a front end sends; it may send more than is read."""

    model_config = ConfigDict(extra="ignore", strict=True)


class UiPart(_Loose):
    """A part of a message.

    Attributes:
        type: The kind of the part; `text` is read, and nothing else.
        text: The text of one that has some.
    """

    type: str
    text: str | None = None


class UiMessage(_Loose):
    """A message of the conversation.

    Attributes:
        role: Who said it: `user`, `assistant` or `system`.
        parts: Its parts.
    """

    role: str
    parts: list[UiPart]


class UiAsked(_Loose):
    """A request as `DefaultChatTransport` sends it.

    Attributes:
        messages: The conversation so far.
    """

    messages: list[UiMessage]


@router.post("/ui/chat", responses=STREAMED)
async def ui_chat(asked: UiAsked, request: Request) -> Response:
    """Answer the last message of the user."""
    said = [message for message in asked.messages if message.role == "user"]
    parts = said[-1].parts if said else []
    question = "\n".join(part.text for part in parts if part.type == "text" and part.text)
    if not question.strip():
        raise Refusal(400, "no text of the user; the last one is the question", param="messages")
    return stream(
        request, question, lambda log: _told(request, log), param="messages", headers=HEADERS
    )


@router.get("/ui/chat/{id}/stream", status_code=204)
async def resume(id: str) -> Response:
    """Nothing to resume: a question whose client has gone was given up."""
    return Response(status_code=204)


async def _told(request: Request, log: QuestionLog) -> AsyncIterator[bytes]:
    """The stream: each search as a step of its own, then the answer, or what failed."""
    searches = _Searches(request)
    yield _part("start", messageId=log.id)
    async for event in log.follow(IDLE):
        yield KEEP_ALIVE if event is None else b"".join(searches.parts(event))
    if failure := failure_of(log, "messages"):
        last = [
            *searches.failed(failure.message),
            _part("error", errorText=failure.message),
            _part("finish", finishReason="error", messageMetadata=facts_of(log)),
        ]
    else:
        last = _answer(request, log)
    yield b"".join([*last, sse("[DONE]")])


class _Searches:
    """The steps of one stream: from a search to what was recorded of it."""

    def __init__(self, request: Request):
        self._request, self._count, self._open = request, 0, ""

    def parts(self, event: Event) -> list[bytes]:
        """What is sent of an event."""
        call = {"toolCallId": f"search-{self._count}"}
        match event.kind:
            case EventKind.SEARCH:
                self._count += 1
                self._open = call["toolCallId"] = f"search-{self._count}"
                call |= {"toolName": TOOL}
                return [
                    _part("start-step"),
                    _part("tool-input-start", **call, providerExecuted=True),
                    _part(
                        "tool-input-available",
                        **call,
                        input={"query": event.text},
                        providerExecuted=True,
                    ),
                ]
            case EventKind.PASSAGES:
                self._open = ""
                results = [result_of(self._request, passage) for passage in event.passages]
                output = {"results": results}
                return [
                    _part("tool-output-available", **call, output=output, providerExecuted=True)
                ]
            case EventKind.EVIDENCE:
                fact = event.step and event.step.evidence
                id = f"record-{self._count}"
                recorded = [
                    _part("reasoning-start", id=id),
                    _part("reasoning-delta", id=id, delta=fact.text if fact else "Nothing found."),
                    _part("reasoning-end", id=id),
                ]
                return [*recorded, _part("finish-step")]
        return []

    def failed(self, why: str) -> list[bytes]:
        """What is sent of a search that found nothing because it failed."""
        if not self._open:
            return []
        return [
            _part("tool-output-error", toolCallId=self._open, errorText=why, providerExecuted=True),
            _part("finish-step"),
        ]


def _answer(request: Request, log: QuestionLog) -> list[bytes]:
    """The last step: the sources, and the text that cites them."""
    answer = log.answer
    citations = [citation_of(request, mark, answer.text) for mark in answer.marks]
    assert log.trajectory is not None
    cut = log.trajectory.stop_reason is StopReason.MAX_TOKENS
    return [
        _part("start-step"),
        *(_part("source-url", **_source(request, source, "sourceId")) for source in answer.sources),
        _part("text-start", id="answer"),
        _part("text-delta", id="answer", delta=answer.text),
        _part("text-end", id="answer", citations=citations),
        _part("finish-step"),
        _part("finish", finishReason="length" if cut else "stop", messageMetadata=facts_of(log)),
    ]


def _part(type: str, **values: Any) -> bytes:
    return sse(finite({"type": type, **values}))


def result_of(request: Request, passage: Passage) -> dict[str, Any]:
    """A passage that a search found."""
    return {
        "id": passage.id,
        "title": passage.title,
        "text": passage.text,
        "url": passage_url(request, passage),
        "score": passage.score,
    }


def _source(request: Request, source: Source, id: str) -> dict[str, Any]:
    passage = source.passage
    return {
        id: str(source.number),
        "url": passage_url(request, passage),
        "title": passage.title or passage.id,
        "providerMetadata": {"exsearch": {"passageId": passage.id, "sentence": source.sentence}},
    }


def citation_of(request: Request, mark: Mark, text: str) -> dict[str, Any]:
    """A citation with the place of its number, and the span of the passage that it stands for."""
    cited = mark.citation
    source = {"type": "source", "sourceType": "url", **_source(request, mark.source, "id")}
    span = {"start": cited.start, "end": cited.end, "match": cited.match.value}
    source["providerMetadata"]["exsearch"] |= span
    return {
        "source": source,
        "startIndex": _units(text[: mark.start]),
        "endIndex": _units(text[: mark.end]),
        "citedText": mark.source.passage.text[cited.start : cited.end],
    }


def _units(text: str) -> int:
    """How long JavaScript has a text."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def facts_of(log: QuestionLog) -> dict[str, Any]:
    """What is told of a message beside its parts."""
    trajectory = log.trajectory
    if trajectory is None:
        return {"trace": log.id}
    return {
        "trace": log.id,
        "stopReason": trajectory.stop_reason.value,
        "seconds": trajectory.seconds,
        "usage": {
            "inputTokens": trajectory.prompt_tokens,
            "outputTokens": trajectory.output_tokens,
        },
    }
