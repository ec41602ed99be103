"""AG-UI's stream has the protocol's own events, in an order that its clients take.

`tests/clients/ag_ui.mjs` has its own client read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ag_ui import core
from answer_server import ANSWER, FACT, PASSAGES, QUESTION, answer_server
from pydantic import TypeAdapter

from started_server import StartedServer

EVENTS = TypeAdapter(core.Event)
SEARCH = ("STEP_STARTED", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT")
RECORD = (
    *("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
    *("REASONING_MESSAGE_END", "REASONING_END", "STEP_FINISHED"),
)
ANSWERED = ("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "CUSTOM")


def body(content: Any, **more: Any) -> dict[str, Any]:
    message = {"id": "m1", "role": "user", "content": content}
    return {"threadId": "t", "runId": "r", "messages": [message], **more}


def ask(server: StartedServer, value: Any) -> httpx2.Response:
    return httpx2.post(f"{server.address}/ag-ui", json=value)


def told(server: StartedServer, value: Any) -> list[Any]:
    """The events of a run; each is one that the protocol has, with no field of its own."""
    reply = ask(server, value)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    *blocks, last = reply.text.split("\n\n")
    assert last == ""
    events = [EVENTS.validate_json(block.removeprefix("data: ")) for block in blocks]
    assert not any(event.model_extra for event in events)
    return events


@pytest.mark.parametrize("content", [QUESTION, [{"type": "text", "text": QUESTION}]])
def test_a_run_is_told_in_order(server, content):
    more = {"tools": [], "context": [], "state": {}, "forwardedProps": {"x": 1}}
    events = told(server, body(content, **more))
    order = ("RUN_STARTED", *SEARCH, *RECORD, *ANSWERED, "RUN_FINISHED")
    assert tuple(event.type.value for event in events) == order
    of = {event.type.value: event for event in events}
    assert (of["RUN_STARTED"].thread_id, of["RUN_FINISHED"].run_id) == ("t", "r")
    assert json.loads(of["TOOL_CALL_ARGS"].delta) == {"query": "harbour builder"}
    assert of["TOOL_CALL_RESULT"].tool_call_id == of["TOOL_CALL_START"].tool_call_id
    found = json.loads(of["TOOL_CALL_RESULT"].content)["results"][0]
    assert (found["id"], found["text"]) == (PASSAGES[0].id, PASSAGES[0].text)
    assert of["REASONING_MESSAGE_CONTENT"].delta == FACT
    assert of["TEXT_MESSAGE_CONTENT"].delta.startswith(ANSWER)
    citations = of["CUSTOM"].value
    assert of["CUSTOM"].name == "citations" and len(citations["citations"]) == 2
    assert citations["messageId"] == of["TEXT_MESSAGE_START"].message_id
    assert of["RUN_FINISHED"].result["stopReason"] == "answered"
    assert of["RUN_FINISHED"].usage[0].input_tokens > 0


def test_a_failed_search_is_told(world: Path):
    options = ("--index", "http://127.0.0.1:9", "--retriever-timeout", "1")
    with answer_server(world, *options) as running:
        last = told(running, body(QUESTION))[-1]
    assert last.type.value == "RUN_ERROR" and last.code == "search_failed"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"threadId": 1}, "threadId"),
        ({"messages": []}, "messages"),
        ({"messages": [{"id": "m", "role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"id": "m", "role": "nobody", "content": "x"}]}, "messages[0]"),
    ],
)
def test_what_is_no_request_is_refused(server, wrong, field):
    reply = ask(server, {**body(QUESTION), **wrong})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == field
