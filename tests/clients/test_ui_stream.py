"""The AI SDK's own transport and reader (the npm package `ai`) take the stream unmodified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from answer_server import ANSWER, FACT, QUESTION, answer_server
from asked_server import Asked, told_by_node

from started_server import StartedServer

pytestmark = pytest.mark.clients


def read(server: StartedServer | Asked, question: str) -> dict[str, Any]:
    return told_by_node("ui_stream.mjs", server.address, question)


def test_an_answer_is_read(server):
    told = read(server, QUESTION)
    assert told["errors"] == [] and told["resumed"] is None
    message = told["message"]
    assert [part["type"] for part in message["parts"]] == [
        *("step-start", "tool-search", "reasoning"),
        *("step-start", "source-url", "text"),
    ]
    search, record, source, text = (message["parts"][n] for n in (1, 2, 4, 5))
    assert search["state"] == "output-available" and search["output"]["results"]
    assert record["text"] == FACT and record["state"] == "done"
    assert text["text"].startswith(ANSWER) and text["state"] == "done"
    for cited in text["citations"]:
        assert text["text"][cited["startIndex"] : cited["endIndex"]] == "[1]"
        assert cited["source"]["url"] == source["url"]
    assert message["metadata"]["stopReason"] == "answered"


def test_an_answer_and_its_sources_are_read_whoever_answers(asked: Asked):
    told = read(asked, asked.question)
    assert told["errors"] == [] and told["kinds"][0] == "start" and told["kinds"][-1] == "finish"
    text = told["message"]["parts"][-1]
    assert text["text"].startswith(asked.says) and text["citations"]
    for cited in text["citations"]:
        assert re.fullmatch(r"\[\d+\]", text["text"][cited["startIndex"] : cited["endIndex"]])
        assert httpx2.get(cited["source"]["url"]).status_code == 200


def test_no_answer_is_read(server):
    told = read(server, "Mumble")
    assert told["errors"] == []
    assert told["message"]["parts"][-1]["text"] == "(no answer: no_action)"


def test_a_failure_is_read(world: Path):
    options = ("--index", "http://127.0.0.1:9", "--retriever-timeout", "1")
    with answer_server(world, *options) as running:
        told = read(running, QUESTION)
    assert len(told["errors"]) == 1
    assert told["message"]["parts"][1]["state"] == "output-error"
