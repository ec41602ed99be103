"""AG-UI's own client (the npm package `@ag-ui/client`) takes the stream unmodified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answer_server import ANSWER, FACT, QUESTION, answer_server
from asked_server import told_by_node

from started_server import StartedServer

pytestmark = pytest.mark.clients


def read(server: StartedServer, question: str) -> dict[str, Any]:
    return told_by_node("ag_ui.mjs", server.address, question)


def test_an_answer_is_read(server):
    told = read(server, QUESTION)
    assert told["errors"] == []
    assert told["kinds"][0] == "RUN_STARTED" and told["kinds"][-1] == "RUN_FINISHED"
    roles = [message["role"] for message in told["messages"]]
    assert roles == ["user", "assistant", "tool", "reasoning", "assistant"]
    _, call, result, record, answer = told["messages"]
    (asked,) = call["toolCalls"]
    assert json.loads(asked["function"]["arguments"]) == {"query": "harbour builder"}
    assert result["toolCallId"] == asked["id"] and json.loads(result["content"])["results"]
    assert record["content"] == FACT and answer["content"].startswith(ANSWER)
    for cited in told["citations"]:
        assert answer["content"][cited["startIndex"] : cited["endIndex"]] == "[1]"
    assert len(told["citations"]) == 2


def test_a_failure_is_read(world: Path):
    options = ("--index", "http://127.0.0.1:9", "--retriever-timeout", "1")
    with answer_server(world, *options) as running:
        told = read(running, QUESTION)
    assert told["kinds"][-1] == "RUN_ERROR" and len(told["errors"]) == 1
