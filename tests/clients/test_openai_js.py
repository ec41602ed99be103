"""OpenAI's client for JavaScript takes the answers of both APIs, streamed and not, unmodified."""

from __future__ import annotations

import re

import pytest
from asked_server import Asked, told_by_node

pytestmark = pytest.mark.clients


def test_both_apis_answer_it_streamed_and_not(asked: Asked):
    told = told_by_node("openai.mjs", asked.address, asked.model, asked.question)
    assert told["models"] == [asked.model]

    message = told["chat"]["choices"][0]["message"]
    assert message["content"].startswith(asked.says)
    assert told["streamed"] == message["content"]
    assert told["thought"] == message["reasoning_content"]
    assert told["usage"] == told["chat"]["usage"]
    for note in message["annotations"]:
        cited = note["url_citation"]
        mark = message["content"][cited["start_index"] : cited["end_index"]]
        assert re.fullmatch(r"\[\d+\]", mark)

    assert told["response"]["output_text"] == told["final"]["output_text"] == message["content"]
    assert told["again"]["output"] == told["response"]["output"]
    assert told["events"][0] == "response.created" and told["events"][-1] == "response.completed"
    assert told["refused"] == {"status": 404, "code": "model_not_found", "param": "model"}
