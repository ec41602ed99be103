"""AG-UI, version 1: the events that agent front ends such as CopilotKit's read.

The last message of the user is the question. Each search is a step with a call of the tool
`search`, what it recorded is reasoning, and the answer is a text message, whose citations follow as
a custom event in the form of the AI SDK's stream (`ui_stream`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

from ag_ui import core
from fastapi import APIRouter, Request, Response

from exsearch.agent.events import Event, EventKind
from exsearch.runs import finite
from exsearch.serving.faces.ui_stream import TOOL, citation_of, facts_of, result_of
from exsearch.serving.log import QuestionLog
from exsearch.serving.refusals import Refusal, failure_of
from exsearch.serving.requests import STREAMED, StrictRoute
from exsearch.serving.streams import IDLE, KEEP_ALIVE, sse, stream

CITATIONS = "citations"  # the name of the custom event

router = APIRouter(route_class=StrictRoute)


@router.post("/ag-ui", responses=STREAMED)
async def ag_ui(asked: core.RunAgentInput, request: Request) -> Response:
    """Answer the last message of the user."""
    said = [message for message in asked.messages if isinstance(message, core.UserMessage)]
    question = _text(said[-1]) if said else ""
    if not question.strip():
        raise Refusal(400, "no text of the user; the last one is the question", param="messages")
    return stream(request, question, lambda log: _told(request, asked, log), param="messages")


def _text(message: core.UserMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, core.TextPart))


async def _told(
    request: Request, asked: core.RunAgentInput, log: QuestionLog
) -> AsyncIterator[bytes]:
    """The stream of one run: its steps, then the answer, or what failed."""
    thread, run = asked.thread_id, asked.run_id
    version = core.PROTOCOL_VERSION
    yield _framed(core.RunStartedEvent(thread_id=thread, run_id=run, protocol_version=version))
    searches = 0
    async for event in log.follow(IDLE):
        if event is None:
            yield KEEP_ALIVE
            continue
        searches += event.kind is EventKind.SEARCH
        for part in _step(request, event, f"{log.id}-{searches}", f"search {searches}"):
            yield _framed(part)
    if failure := failure_of(log, "messages"):
        yield _framed(core.RunErrorEvent(message=failure.message, code=failure.code))
        return
    for part in _answer(request, log):
        yield _framed(part)
    facts = facts_of(log)
    used = facts.pop("usage")
    usage = core.TokenUsage(input_tokens=used["inputTokens"], output_tokens=used["outputTokens"])
    end = core.RunFinishedEvent(thread_id=thread, run_id=run, result=facts, usage=[usage])
    yield _framed(end)


def _step(request: Request, event: Event, id: str, name: str) -> Iterator[core.BaseEvent]:
    """The events that tell of one of the log's, within the step of a search.

    Args:
        request: The request that is answered.
        event: The event of the log.
        id: The id of the search.
        name: The name of its step.
    """
    match event.kind:
        case EventKind.SEARCH:
            yield core.StepStartedEvent(step_name=name)
            yield core.ToolCallStartEvent(tool_call_id=id, tool_call_name=TOOL)
            yield core.ToolCallArgsEvent(tool_call_id=id, delta=json.dumps({"query": event.text}))
            yield core.ToolCallEndEvent(tool_call_id=id)
        case EventKind.PASSAGES:
            results = [result_of(request, passage) for passage in event.passages]
            yield core.ToolCallResultEvent(
                message_id=f"{id}-result",
                tool_call_id=id,
                content=json.dumps(finite({"results": results})),
                role="tool",
            )
        case EventKind.EVIDENCE:
            fact, own = event.step and event.step.evidence, f"{id}-record"
            yield core.ReasoningStartEvent(message_id=own)
            yield core.ReasoningMessageStartEvent(message_id=own)
            said = fact.text if fact else "Nothing found."
            yield core.ReasoningMessageContentEvent(message_id=own, delta=said)
            yield core.ReasoningMessageEndEvent(message_id=own)
            yield core.ReasoningEndEvent(message_id=own)
            yield core.StepFinishedEvent(step_name=name)
        case _:
            pass


def _answer(request: Request, log: QuestionLog) -> Iterator[core.BaseEvent]:
    """The answer as a message, and what it cites."""
    answer, own = log.answer, f"{log.id}-answer"
    yield core.TextMessageStartEvent(message_id=own, role="assistant")
    yield core.TextMessageContentEvent(message_id=own, delta=answer.text)
    yield core.TextMessageEndEvent(message_id=own)
    citations = [citation_of(request, mark, answer.text) for mark in answer.marks]
    value = {"messageId": own, CITATIONS: citations}
    yield core.CustomEvent(name=CITATIONS, value=value)


def _framed(event: core.BaseEvent) -> bytes:
    return sse(event.model_dump(mode="json", by_alias=True))
