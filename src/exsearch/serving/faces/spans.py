"""OpenTelemetry's spans of a question: the agent, and within it each model call and each search.

Names are those of its conventions for generative AI. No text of a question, a passage or an answer
is in them. Where no tracing is set up in the process, the API makes nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from exsearch.agent.events import EventKind
from exsearch.serving.log import QuestionLog

_LASTING = {EventKind.BEGUN: "chat", EventKind.SEARCH: "retrieval"}  # both end with the next event


def tell_spans(log: QuestionLog, model: str, tracer: trace.Tracer | None = None) -> None:
    """Tell the spans of a question that has ended.

    Args:
        log: The log of the question.
        model: The name of the model.
        tracer: Takes the spans; None takes the one of the process.
    """
    tracer = tracer or trace.get_tracer("exsearch")
    common = {"gen_ai.provider.name": "exsearch", "gen_ai.request.model": model}
    ended = log.events[-1].at if log.events else log.began
    whole = tracer.start_span(
        "invoke_agent exsearch",
        kind=SpanKind.INTERNAL,
        start_time=_nanoseconds(log.began),
        attributes={
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "exsearch",
            "gen_ai.conversation.id": log.id,
            **common,
            **_outcome(log),
        },
    )
    if not whole.is_recording():  # no tracing, or a question that it leaves out
        return
    within = trace.set_span_in_context(whole)
    calls = log.trajectory.calls if log.trajectory else ()
    for event, after in zip(log.events, log.events[1:], strict=False):
        operation = _LASTING.get(event.kind)
        if operation is None:
            continue
        facts: dict[str, Any] = {"gen_ai.operation.name": operation, **common}
        if event.call is not None and event.call < len(calls):
            facts["gen_ai.usage.input_tokens"] = len(calls[event.call].prompt_ids)
            facts["gen_ai.usage.output_tokens"] = len(calls[event.call].output_ids)
        if event.action is not None:
            facts["exsearch.action"] = event.action.value
        if after.kind is EventKind.PASSAGES:
            facts["exsearch.passages"] = len(after.passages)
        name = f"chat {model}" if operation == "chat" else operation
        tracer.start_span(
            name, within, SpanKind.INTERNAL, facts, start_time=_nanoseconds(event.at)
        ).end(_nanoseconds(after.at))
    if log.error is not None:
        whole.set_status(Status(StatusCode.ERROR, type(log.error).__name__))
    whole.end(_nanoseconds(max(ended, log.began)))


def _outcome(log: QuestionLog) -> Mapping[str, Any]:
    trajectory = log.trajectory
    if trajectory is None:
        return {"error.type": type(log.error).__name__}
    return {
        "gen_ai.usage.input_tokens": trajectory.prompt_tokens,
        "gen_ai.usage.output_tokens": trajectory.output_tokens,
        "gen_ai.response.finish_reasons": [trajectory.stop_reason.value],
        "exsearch.searches": len(trajectory.steps),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
