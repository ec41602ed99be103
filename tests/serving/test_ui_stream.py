"""The AI SDK's stream tells a question's log in the order and the form that front ends read.

`tests/clients/ui_stream.mjs` has the SDK itself read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from answer_server import ANSWER, FACT, PASSAGES, QUESTION, answer_server

from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever
from started_server import StartedServer


def body(question: str, **more: Any) -> dict[str, Any]:
    """What `DefaultChatTransport` sends."""
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": question}]}
    return {"id": "chat-1", "messages": [message], "trigger": "submit-message", **more}


def ask(server: StartedServer, value: Any) -> httpx2.Response:
    return httpx2.post(f"{server.address}/ui/chat", json=value)


def parts(server: StartedServer, value: Any) -> list[dict[str, Any]]:
    reply = ask(server, value)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"
    blocks = reply.text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def test_a_question_is_told_in_order(server):
    told = parts(server, body(QUESTION, webSearch=True, messageId=None))
    search = "tool-input-start tool-input-available tool-output-available"
    record = "reasoning-start reasoning-delta reasoning-end"
    text = "text-start text-delta text-end"
    order = f"start start-step {search} {record} finish-step start-step source-url {text}"
    assert [part["type"] for part in told] == [*order.split(), "finish-step", "finish"]
    of = {part["type"]: part for part in told}
    assert of["tool-input-available"]["toolName"] == "search"
    assert of["tool-input-available"]["input"] == {"query": "harbour builder"}
    assert of["tool-output-available"]["toolCallId"] == of["tool-input-start"]["toolCallId"]
    result = of["tool-output-available"]["output"]["results"][0]
    assert result["id"] == PASSAGES[0].id and result["text"] == PASSAGES[0].text
    assert of["reasoning-delta"]["delta"] == FACT
    assert of["source-url"]["url"] == result["url"]
    assert httpx2.get(result["url"]).json()["text"] == PASSAGES[0].text
    assert of["finish"]["finishReason"] == "stop"
    trace = httpx2.get(f"{server.address}/traces/{of['finish']['messageMetadata']['trace']}").json()
    assert trace["text"] == of["text-delta"]["delta"]


def test_citations_fit_the_text_and_the_passage(server):
    told = {part["type"]: part for part in parts(server, body(QUESTION))}
    text = told["text-delta"]["delta"]
    assert text.startswith(f"{ANSWER} [1]")
    citations = told["text-end"]["citations"]
    assert [cited["citedText"] for cited in citations] == [ANSWER, FACT]
    for cited in citations:
        assert text[cited["startIndex"] : cited["endIndex"]] == "[1]"
        own = cited["source"]["providerMetadata"]["exsearch"]
        assert PASSAGES[0].text[own["start"] : own["end"]] == cited["citedText"]
        assert cited["source"]["url"] == told["source-url"]["url"]
        assert cited["source"]["id"] == told["source-url"]["sourceId"]


def test_places_count_as_javascript_does(tmp_path: Path):
    fact = "The \U0001f682 station was built by Ada \U0001f682 Fenwick"
    rules = (("Copy the fact", f"[1] {fact}"), ("Notes:\nnone", "Search: station builder"))
    answer = ("Notes:", "Answer: Ada \U0001f682 Fenwick")
    lines = [json.dumps({"contains": part, "reply": said}) for part, said in (*rules, answer)]
    (tmp_path / "script.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Bm25Retriever.build([Passage("s", "Station", f"{fact}.")], tmp_path / "index", progress=False)
    with answer_server(tmp_path) as running:
        told = {part["type"]: part for part in parts(running, body("Who built it?"))}
    units = told["text-delta"]["delta"].encode("utf-16-le")
    marks = [units[2 * c["startIndex"] : 2 * c["endIndex"]] for c in told["text-end"]["citations"]]
    assert [mark.decode("utf-16-le") for mark in marks] == ["[1]", "[1]"]


def test_the_last_text_of_the_user_is_the_question(server):
    early = {"role": "user", "parts": [{"type": "text", "text": "Mumble"}]}
    said = {"role": "assistant", "parts": [{"type": "text", "text": "x"}, {"type": "step-start"}]}
    file = {"type": "file", "mediaType": "text/plain", "url": "data:,x"}
    last = {"role": "user", "parts": [file, {"type": "text", "text": QUESTION}]}
    told = parts(server, {"messages": [early, said, last]})
    assert told[-4]["delta"].startswith(ANSWER)


def test_no_answer_is_no_error(server):
    told = parts(server, body("Mumble"))
    assert [part["type"] for part in told][-1] == "finish"
    assert "error" not in [part["type"] for part in told]
    assert told[-4]["delta"] == "(no answer: no_action)"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "user", "parts": []}]},
        {"messages": [{"role": "user", "parts": [{"type": "text", "text": " "}]}]},
        {"messages": [{"role": "assistant", "parts": [{"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "user", "parts": [{"type": "text", "text": 3}]}]},
        {"messages": "x"},
    ],
)
def test_a_body_without_a_question_is_refused(server, value):
    reply = ask(server, value)
    assert reply.status_code == 400
    assert "messages" in reply.json()["error"]["message"] + str(reply.json()["error"]["param"])


def test_a_search_that_fails_is_told_as_an_error(world: Path):
    options = ("--index", "http://127.0.0.1:9", "--retriever-timeout", "1")  # where nobody listens
    with answer_server(world, *options) as running:
        told = parts(running, body(QUESTION))
        kinds = [part["type"] for part in told]
        assert kinds[-4:] == ["tool-output-error", "finish-step", "error", "finish"]
        assert told[-2]["errorText"] and told[-1]["finishReason"] == "error"


def test_there_is_nothing_to_resume(server):
    assert httpx2.get(f"{server.address}/ui/chat/chat-1/stream").status_code == 204
