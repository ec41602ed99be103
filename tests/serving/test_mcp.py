"""Chat assistants search, fetch and ask by MCP: both eras of it, over HTTP and standard input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from answer_server import ANSWER, FACT, PASSAGES, QUESTION, answer_server
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ResourceLink, TextContent, TextResourceContents
from starlette.applications import Starlette
from starlette.routing import Route

from chat_server import FakeServer, good
from exsearch.engines.scripted import ScriptedEngine
from exsearch.retrievers import open_retriever
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig, mcp_http
from exsearch.serving.questions import Questions
from started_server import StartedServer

ELDER, NEWER = "legacy", "2026-07-28"
KEY = "s3cret-key"
MCP = ("-m", "exsearch", "mcp")
ENVIRONMENT = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "NO_PROXY": "127.0.0.1"}
BOTH = {"Accept": "application/json, text/event-stream"}

anyio_test = pytest.mark.anyio
Open = Callable[[], Client]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def options(world: Path) -> list[str]:
    script = str(world / "script.jsonl")
    return ["--index", str(world / "index"), "--engine", "scripted", "--model", script]


def over_stdio(mode: str, *options: str) -> Client:
    command = StdioServerParameters(
        command=sys.executable, args=[*MCP, *options], env=ENVIRONMENT, encoding="utf-8"
    )
    return Client(command, mode=mode, read_timeout_seconds=120)


def over_http(mode: str, server: StartedServer) -> Client:
    return Client(f"{server.address}/mcp", mode=mode, read_timeout_seconds=120)


@pytest.fixture(params=[f"{way} {mode}" for way in ("http", "stdio") for mode in (ELDER, NEWER)])
def open_(request: pytest.FixtureRequest, world: Path, server: StartedServer) -> Open:
    way, mode = request.param.split()
    if way == "http":
        return lambda: over_http(mode, server)
    return lambda: over_stdio(mode, *options(world))


def value(result: CallToolResult) -> Any:
    """The structured content of a tool's result, which its first block has as JSON, too."""
    assert not result.is_error
    text = result.content[0]
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == result.structured_content
    return result.structured_content


def fault(result: CallToolResult) -> str:
    """The one line that tells what is wrong."""
    assert result.is_error and result.structured_content is None
    (text,) = result.content
    assert isinstance(text, TextContent) and "\n" not in text.text
    return text.text


@anyio_test
async def test_tools_tell_what_they_take_and_give(open_: Open) -> None:
    async with open_() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["search", "fetch", "ask"]
    takes = {"search": "query", "fetch": "id", "ask": "question"}
    for name, tool in tools.items():
        assert tool.input_schema["required"] == [takes[name]]
        assert not tool.input_schema["additionalProperties"]
        assert tool.output_schema and tool.annotations and tool.annotations.read_only_hint
    assert tools["search"].output_schema["required"] == ["results"]
    assert tools["fetch"].output_schema["required"] == ["id", "title", "text", "url", "metadata"]
    needed = ["answer", "text", "claims", "sources", "stop_reason", "error"]
    assert tools["ask"].output_schema["required"] == needed


@anyio_test
async def test_what_is_found_can_be_fetched_and_read(open_: Open) -> None:
    first = PASSAGES[0]
    async with open_() as client:
        found = await client.call_tool("search", {"query": "harbour"})
        assert len(found.content) == 1  # which is what connectors expect
        (hit,) = value(found)["results"]
        assert (hit["id"], hit["title"]) == (first.id, first.title) and len(hit) == 3
        fetched = await client.call_tool("fetch", {"id": hit["id"]})
        assert len(fetched.content) == 1
        assert value(fetched) == {**hit, "text": first.text, "metadata": {}}
        (template,) = (await client.list_resource_templates()).resource_templates
        assert template.uri_template.replace("{id}", "h%201%2F%C3%A4") == hit["url"]
        assert (await client.list_resources()).resources == []
        (read,) = (await client.read_resource(hit["url"])).contents
        assert isinstance(read, TextResourceContents)
        assert (read.uri, read.text, read.mime_type) == (hit["url"], first.text, "text/plain")


@anyio_test
async def test_an_answer_has_its_citations_and_its_steps_are_told_in_order(open_: Open) -> None:
    told: list[tuple[float, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    first = PASSAGES[0]
    async with open_() as client:
        result = await client.call_tool("ask", {"question": QUESTION}, progress_callback=tell)
        answered = value(result)
        link = result.content[1]
        assert isinstance(link, ResourceLink) and len(result.content) == 2
        (read,) = (await client.read_resource(link.uri)).contents
        assert isinstance(read, TextResourceContents) and read.text == first.text
    assert told == [
        (1, "search: harbour builder"),
        (2, f"found: {first.title}"),
        (3, f"record: {FACT}"),
    ]
    assert answered["answer"] == ANSWER and answered["stop_reason"] == "answered"
    assert answered["text"] == f"{ANSWER} [1]\n- {FACT} [1]" and not answered["error"]
    (source,) = answered["sources"]
    assert (source["number"], source["id"], source["url"]) == (1, first.id, link.uri)
    assert source["sentence"] in first.text
    assert [claim["text"] for claim in answered["claims"]] == [FACT, ANSWER]
    for claim in answered["claims"]:
        (citation,) = claim["citations"]
        span = first.text[citation["start"] : citation["end"]]
        assert span.lower() == claim["text"].lower() and citation["source"] == 1
        assert (citation["passage_id"], citation["url"]) == (first.id, link.uri)
    assert [c["citations"][0]["match"] for c in answered["claims"]] == ["normalised", "exact"]


@anyio_test
async def test_a_question_without_an_answer_is_no_failure(open_: Open) -> None:
    async with open_() as client:
        answered = value(await client.call_tool("ask", {"question": "Mumble"}))
    assert (answered["answer"], answered["stop_reason"]) == ("", "malformed")
    assert answered["error"] and answered["claims"] == answered["sources"] == []


@anyio_test
async def test_what_is_wrong_is_told_in_one_line(open_: Open) -> None:
    async with open_() as client:
        for tool, field in (("search", "query"), ("fetch", "id"), ("ask", "question")):
            for arguments in ({}, {field: 3}, {field: None}, {field: "x", "more": 1}):
                said = fault(await client.call_tool(tool, arguments))
                assert ("'more'" if "more" in arguments else f"'{field}'") in said
            for text in ("", " \n", "x" * 20_001):
                said = fault(await client.call_tool(tool, {field: text}))
                assert field in said
        assert "'nothing'" in fault(await client.call_tool("fetch", {"id": "nothing"}))
        with pytest.raises(MCPError, match="no tool is called 'guess'"):
            await client.call_tool("guess", {})
        (hit,) = value(await client.call_tool("search", {"query": "harbour"}))["results"]
        base = hit["url"].removesuffix("h%201%2F%C3%A4")
        strange = ("http://evil.example/passages/b", "file:///etc/passwd", f"x{base}b")
        for uri in (f"{base}nothing", base, *strange):
            with pytest.raises(MCPError, match="no passage has the address"):
                await client.read_resource(uri)
        assert value(await client.call_tool("ask", {"question": QUESTION}))["answer"] == ANSWER


@anyio_test
async def test_a_client_may_find_out_the_era_by_itself(world: Path, server: StartedServer) -> None:
    for client in (over_http("auto", server), over_stdio("auto", *options(world))):
        async with client:
            assert client.protocol_version == NEWER
            assert client.server_info and client.server_info.name == "exsearch"
            assert client.instructions and client.server_capabilities.tools


@pytest.fixture
def model() -> Iterator[FakeServer]:
    """A model's server that does not reply once it is to copy a fact, until it is released."""
    fake = FakeServer()

    def reply(body: dict[str, Any]) -> str:
        if "Query:" in body["messages"][-1]["content"]:
            fake.released.wait(60)
        return good(body)

    fake.script = reply
    yield fake
    fake.close()


def slow(world: Path, model: FakeServer) -> list[str]:
    options = ["--engine", "openai", "--base-url", model.url, "--model", "fake"]
    return [*options, "--index", str(world / "index")]


class Searched:
    """Waits until a question's search is told, so that the question is in hand."""

    def __init__(self) -> None:
        self._told = anyio.Event()

    async def wait(self) -> None:
        with anyio.fail_after(120):
            await self._told.wait()

    async def tell(self, progress: float, total: float | None, message: str | None) -> None:
        assert message
        if message.startswith("found: "):
            self._told.set()


async def given_up(address: str) -> None:
    """Wait until the one question that was asked has been given up."""
    async with httpx2.AsyncClient() as client:
        with anyio.fail_after(60):
            while 'exsearch_questions_total{end="given_up"} 1.0' not in (
                (await client.get(f"{address}/metrics")).text
            ):
                await anyio.sleep(0.02)


@anyio_test
@pytest.mark.parametrize("mode", [ELDER, NEWER])
async def test_a_cancelled_question_is_given_up(world: Path, model: FakeServer, mode: str) -> None:
    with answer_server(world, *slow(world, model)) as server:
        async with over_http(mode, server) as client, anyio.create_task_group() as group:
            searched = Searched()
            question = {"question": "Who built the lighthouse?"}
            group.start_soon(client.call_tool, "ask", question, None, searched.tell)
            await searched.wait()
            group.cancel_scope.cancel()
        await given_up(server.address)
        model.released.set()


@anyio_test
@pytest.mark.parametrize("mode", [ELDER, NEWER])
async def test_a_question_cancelled_over_stdio_makes_room_for_the_next(
    world: Path, model: FakeServer, mode: str
) -> None:
    ask = ("ask", {"question": "Who built the lighthouse?"})
    async with over_stdio(mode, *slow(world, model), "--max-questions", "1") as client:
        async with anyio.create_task_group() as group:
            searched = Searched()
            group.start_soon(client.call_tool, *ask, None, searched.tell)
            await searched.wait()
            assert "more than 1 questions" in fault(await client.call_tool(*ask))
            group.cancel_scope.cancel()
        model.released.set()
        with anyio.fail_after(60):
            while (result := await client.call_tool(*ask)).is_error:
                assert "more than 1 questions" in fault(result)
                await anyio.sleep(0.02)
        assert value(result)["answer"] == "Ada Fenn"


def request(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def initialize() -> dict[str, Any]:
    me = {"name": "test", "version": "1"}
    return request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=me)


@asynccontextmanager
async def session(http: httpx2.AsyncClient, url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A session of the elder era by hand."""
    begun = await http.post(url, json=initialize(), headers=BOTH)
    assert begun.status_code == 200
    http.headers.update({**BOTH, "Mcp-Session-Id": begun.headers["mcp-session-id"]})
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await http.post(url, json=ready)).status_code == 202
    yield http


@anyio_test
async def test_a_question_is_given_up_where_the_client_goes_without_a_word(
    world: Path, model: FakeServer
) -> None:
    with answer_server(world, *slow(world, model)) as server:
        url = f"{server.address}/mcp"
        async with httpx2.AsyncClient() as http, session(http, url):
            meta = {"progressToken": 7}
            ask = request("tools/call", name="ask", arguments={"question": "Who?"}, _meta=meta)
            async with http.stream("POST", url, json=ask) as reply:
                async for line in reply.aiter_lines():
                    if "found: " in line:
                        break
        await given_up(server.address)
        model.released.set()


@anyio_test
async def test_a_server_that_is_to_stop_answers_first_and_then_lets_listeners_go(
    world: Path, model: FakeServer
) -> None:
    with answer_server(world, *slow(world, model)) as server:
        url, answers = f"{server.address}/mcp", []

        async def ask(client: Client, searched: Searched) -> None:
            question = {"question": "Who built the lighthouse?"}
            answers.append(await client.call_tool("ask", question, None, searched.tell))

        async with (
            httpx2.AsyncClient(timeout=60) as http,
            session(http, url),
            http.stream("GET", url) as listening,
            over_http(ELDER, server) as elder,
            over_http(NEWER, server) as newer,
            anyio.create_task_group() as group,
        ):
            for client in (elder, newer):
                await client.list_tools()  # or the client does it to check the answer
                searched = Searched()
                group.start_soon(ask, client, searched)
                await searched.wait()
            server.process.send_signal(signal.SIGTERM)
            await anyio.sleep(1)  # longer than a stream takes to notice the signal
            model.released.set()
            with anyio.fail_after(60):
                assert await anyio.to_thread.run_sync(server.process.wait) == 0
                assert not [line async for line in listening.aiter_lines() if "data" in line]
        assert [value(answer)["answer"] for answer in answers] == ["Ada Fenn"] * 2


@anyio_test
async def test_a_failed_search_is_told(world: Path) -> None:
    nowhere = ("--index", "http://127.0.0.1:9?retries=0")
    async with over_stdio(NEWER, *options(world)[2:], *nowhere) as client:
        for tool, field in (("search", "query"), ("fetch", "id"), ("ask", "question")):
            assert "127.0.0.1:9" in fault(await client.call_tool(tool, {field: QUESTION}))


@anyio_test
async def test_a_key_and_a_known_name_are_needed(world: Path) -> None:
    environment = {"EXSEARCH_API_KEY": KEY}
    names = ("--host-name", "ask.example")
    with answer_server(world, *names, environment=environment) as server:
        url = f"{server.address}/mcp"
        key = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(headers=BOTH) as http:
            for method in ("GET", "POST", "DELETE"):
                assert (await http.request(method, url)).status_code == 401
            for host, status in (("evil.example", 403), ("ask.example", 200)):
                headers = {**key, "Host": host}
                reply = await http.post(url, json=initialize(), headers=headers)
                assert reply.status_code == status
            large = {**initialize(), "more": "x" * (1 << 20)}
            assert (await http.post(url, json=large, headers=key)).status_code == 413
        for mode in (ELDER, NEWER):
            async with httpx2.AsyncClient(headers=key) as http:
                transport = streamable_http_client(url, http_client=http)
                async with Client(transport, mode=mode) as client:
                    assert value(await client.call_tool("search", {"query": "bread"}))["results"]


@anyio_test
async def test_sessions_are_bounded_and_end_where_nobody_uses_them(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_http, "MAX_SESSIONS", 2)
    monkeypatch.setattr(mcp_http, "IDLE", 0.3)
    engine = ScriptedEngine.from_file(world / "script.jsonl")
    with Searcher(engine, open_retriever(world / "index")) as searcher:
        questions = Questions(searcher, ServeConfig("scripted"))
        mcp = mcp_http.McpOverHttp(questions, lambda _, id: f"x://{id}")
        transport = httpx2.ASGITransport(Starlette(routes=[Route("/mcp", mcp)]))
        async with mcp.running(), httpx2.AsyncClient(transport=transport, headers=BOTH) as http:
            url, statuses = "http://localhost/mcp", []
            for _ in range(3):
                reply = await http.post(url, json=initialize())
                statuses.append(reply.status_code)
            assert statuses == [200, 200, 503]
            await anyio.sleep(0.6)
            async with session(http, url):
                await anyio.sleep(0.6)
                assert (await http.post(url, json=request("tools/list"))).status_code == 404


def test_nothing_but_the_protocol_is_printed_and_a_signal_ends_it_well(world: Path) -> None:
    command = [sys.executable, *MCP, *options(world), "-v"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write("no JSON\n" + json.dumps(initialize()) + "\n")
        process.stdin.flush()
        reply = json.loads(process.stdout.readline())
        assert reply["result"]["serverInfo"]["name"] == "exsearch"
        process.send_signal(signal.SIGTERM)  # while standard input stays open
        assert process.wait(60) == 0
        assert process.stdout.read() == ""


def test_it_ends_where_its_input_ends(world: Path) -> None:
    command = [sys.executable, *MCP, *options(world)]
    result = subprocess.run(command, input="", capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
