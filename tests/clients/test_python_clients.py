"""Programs of other people that speak OpenAI's API or MCP ask the server, and are answered."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from answer_server import ANSWER, QUESTION

from started_server import StartedServer

pytestmark = pytest.mark.clients


def test_curl_streams_an_answer(server: StartedServer):
    body = f'{{"model": "script.jsonl", "input": "{QUESTION}", "stream": true}}'
    command = ["curl", "-sN", f"{server.address}/v1/responses", "-d", body]
    command += ["-H", "Content-Type: application/json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "event: response.created" in told and "event: response.completed" in told
    assert ANSWER in told


@pytest.mark.parametrize("stream", [True, False])
def test_llm_prints_the_answer(stream: bool, server: StartedServer, tmp_path: Path):
    models = f"""
- model_id: mine
  model_name: script.jsonl
  api_base: {server.address}/v1
"""
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    command = [sys.executable, "-m", "llm", "-m", "mine", "--key", "none", QUESTION]
    result = subprocess.run(
        command + ([] if stream else ["--no-stream"]),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{ANSWER} [1]")


def test_an_agent_framework_asks_by_both_apis(server: StartedServer):
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(True)

    async def ask(kind: type[agents.Model]) -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key="none") as client:
            model = kind(model="script.jsonl", openai_client=client)
            agent = agents.Agent(name="searcher", instructions="Be short.", model=model)
            whole = await agents.Runner.run(agent, QUESTION)
            streamed = agents.Runner.run_streamed(agent, QUESTION)
            async for _ in streamed.stream_events():
                pass
            return whole.final_output, streamed.final_output

    for kind in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel):
        whole, streamed = asyncio.run(ask(kind))
        assert whole.startswith(f"{ANSWER} [1]") and streamed == whole, kind


def test_an_agent_framework_uses_the_tools_of_mcp(server: StartedServer):
    from agents.mcp import MCPServerStreamableHttp

    async def ask() -> str:
        async with MCPServerStreamableHttp({"url": f"{server.address}/mcp"}) as tools:
            names = [tool.name for tool in await tools.list_tools()]
            assert names == ["search", "fetch", "ask"]
            result = await tools.call_tool("ask", {"question": QUESTION})
            return result.content[0].text

    assert f'"answer": "{ANSWER}"' in asyncio.run(ask())
