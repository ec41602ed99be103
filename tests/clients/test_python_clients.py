"""Programs of other people that speak OpenAI's API or MCP ask the server, and are answered."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asked_server import Asked

pytestmark = pytest.mark.clients


def test_curl_streams_an_answer(asked: Asked):
    body = f'{{"model": "{asked.model}", "input": "{asked.question}", "stream": true}}'
    command = ["curl", "-sN", f"{asked.address}/v1/responses", "-d", body]
    command += ["-H", "Content-Type: application/json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "event: response.created" in told and "event: response.completed" in told
    assert asked.says in told


@pytest.mark.parametrize("stream", [True, False])
def test_llm_prints_the_answer(stream: bool, asked: Asked, tmp_path: Path):
    models = f"""
- model_id: mine
  model_name: {asked.model}
  api_base: {asked.address}/v1
"""
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    command = [sys.executable, "-m", "llm", "-m", "mine", "--key", "none", asked.question]
    result = subprocess.run(
        command + ([] if stream else ["--no-stream"]),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(asked.says)


def test_an_agent_framework_asks_by_both_apis(asked: Asked):
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(True)

    async def ask(kind: type[agents.Model]) -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{asked.address}/v1", api_key="none") as client:
            model = kind(model=asked.model, openai_client=client)
            agent = agents.Agent(name="searcher", instructions="Be short.", model=model)
            whole = await agents.Runner.run(agent, asked.question)
            streamed = agents.Runner.run_streamed(agent, asked.question)
            async for _ in streamed.stream_events():
                pass
            return whole.final_output, streamed.final_output

    for kind in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel):
        whole, streamed = asyncio.run(ask(kind))
        assert whole.startswith(asked.says) and streamed == whole, kind


def test_an_agent_framework_uses_the_tools_of_mcp(asked: Asked):
    from agents.mcp import MCPServerStreamableHttp

    async def ask() -> str:
        place = {"url": f"{asked.address}/mcp"}
        async with MCPServerStreamableHttp(place, client_session_timeout_seconds=120) as tools:
            names = [tool.name for tool in await tools.list_tools()]
            assert names == ["search", "fetch", "ask"]
            result = await tools.call_tool("ask", {"question": asked.question})
            return result.content[0].text

    assert f'"answer": "{asked.answer}"' in asyncio.run(ask())


def test_openais_own_client_asks_by_both_apis(asked: Asked):
    import openai

    client = openai.OpenAI(base_url=f"{asked.address}/v1", api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": asked.question}]
    chat = client.chat.completions.create(model=asked.model, messages=messages)
    said = chat.choices[0].message.content
    assert said.startswith(asked.says)
    chunks = client.chat.completions.create(model=asked.model, messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert client.responses.create(model=asked.model, input=asked.question).output_text == said
    with client.responses.stream(model=asked.model, input=asked.question) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == said


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
def test_mcps_own_client_asks_in_both_eras(era: str, asked: Asked):
    from mcp import Client

    async def ask() -> tuple[str, str]:
        address = f"{asked.address}/mcp"
        async with Client(address, mode=era, read_timeout_seconds=120) as client:
            told = await client.call_tool("ask", {"question": asked.question})
            source = told.structured_content["sources"][0]
            fetched = await client.call_tool("fetch", {"id": source["id"]})
            return told.structured_content["answer"], fetched.structured_content["text"]

    answer, text = asyncio.run(ask())
    assert answer == asked.answer and text
