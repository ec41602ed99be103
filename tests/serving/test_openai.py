"""OpenAI's own client gets answers, steps, sources and errors, streamed or not, in both APIs."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from answer_server import ANSWER, FACT, PASSAGES, QUESTION, SCRIPT, answer_server
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from chat_server import Answer, Body, FakeServer
from exsearch.engines.scripted import ScriptedEngine
from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.app import make_app
from exsearch.serving.faces import chat, responses
from started_server import StartedServer

KEY = "s3cret-key"
TEXT = f"{ANSWER} [1]\n- {FACT} [1]"
MARKS = [(12, 15), (len(TEXT) - 3, len(TEXT))]
STEPS = f"search: harbour builder\n  found: {PASSAGES[0].title}\n  record: {FACT}\n"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
ASKED = [{"role": "user", "content": QUESTION}]
PATHS = ("/v1/chat/completions", "/v1/responses")


@pytest.fixture
def model(world: Path) -> str:
    return "script.jsonl"


@pytest.fixture
def client(server: StartedServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as opened:
        yield opened


def client_of(server: StartedServer, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0, timeout=30)


def whole(value: BaseModel, type_: Any, *more: str) -> Any:
    """The value again, once it is clear that it has each field that must be, and no other one."""
    read = TypeAdapter(type_).validate_python(value.to_dict())  # type: ignore[attr-defined]
    assert unknown_fields(read) <= set(more)
    return read


def unknown_fields(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for each in value for name in unknown_fields(each)}
    if not isinstance(value, BaseModel):
        return set()
    inner = [unknown_fields(getattr(value, name)) for name in type(value).model_fields]
    return {*(value.model_extra or {})}.union(*inner)


def told_in_chat(chunks: list[ChatCompletionChunk]) -> dict[str, Any]:
    """The parts of a streamed message, put together."""
    told: dict[str, Any] = {"content": "", "reasoning_content": "", "annotations": []}
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta.to_dict()
            for name in told:
                told[name] += delta.get(name) or type(told[name])()
    return told


def test_a_chat_answers_with_steps_and_sources(client, model, server):
    reply = client.chat.completions.create(model=model, messages=ASKED)
    whole(reply, ChatCompletion, "reasoning_content")
    assert reply.id.startswith("chatcmpl-") and reply.model == model
    assert abs(reply.created - time.time()) < 60
    (choice,) = reply.choices
    assert choice.finish_reason == "stop" and choice.message.content == TEXT
    assert choice.message.reasoning_content == STEPS
    cited = [annotation.url_citation for annotation in choice.message.annotations]
    assert [(one.start_index, one.end_index) for one in cited] == MARKS
    assert {one.title for one in cited} == {PASSAGES[0].title}
    assert httpx2.get(cited[0].url).json()["text"] == PASSAGES[0].text
    usage = reply.usage
    assert usage.prompt_tokens > usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_chat_that_is_streamed_says_the_same(client, model):
    once = client.chat.completions.create(model=model, messages=ASKED)
    options = {"include_usage": True}
    with client.chat.completions.create(
        model=model, messages=ASKED, stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    for chunk in chunks:
        whole(chunk, ChatCompletionChunk, "reasoning_content", "annotations")
    assert {(chunk.id, chunk.created) for chunk in chunks} == {(chunks[0].id, chunks[0].created)}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage == once.usage
    ends = [c.finish_reason for chunk in chunks[:-1] for c in chunk.choices]
    assert ends == [None] * (len(ends) - 1) + ["stop"]
    thoughts = [c.choices[0].delta.to_dict().get("reasoning_content") for c in chunks[:-1]]
    assert len([one for one in thoughts if one]) == 3  # a step each
    message = once.choices[0].message.to_dict()
    assert told_in_chat(chunks) == {name: message[name] for name in told_in_chat([])}


def test_usage_is_streamed_where_it_is_asked_for(client, model):
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_response_holds_searches_records_and_the_answer(client, model, server):
    reply = client.responses.create(model=model, input=QUESTION)
    whole(reply, Response)
    assert reply.status == "completed" and reply.output_text == TEXT and reply.error is None
    search, record, message = reply.output
    assert search.queries == ["harbour builder"] and search.status == "completed"
    (result,) = search.results
    assert (result.file_id, result.filename) == (PASSAGES[0].id, PASSAGES[0].title)
    assert result.text == PASSAGES[0].text and result.score > 0
    assert [part.text for part in record.summary] == [FACT]
    annotations = message.content[0].annotations
    assert [(one.start_index, one.end_index) for one in annotations] == MARKS
    assert [TEXT[start:end] for start, end in MARKS] == ["[1]", "[1]"]
    assert httpx2.get(annotations[0].url).json()["id"] == PASSAGES[0].id
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0
    assert len({item.id for item in reply.output}) == 3


def test_a_response_that_is_streamed_says_the_same_in_the_events_of_the_api(client, model):
    once = client.responses.create(
        model=model, input=QUESTION, include=["file_search_call.results"]
    )
    with client.responses.create(model=model, input=QUESTION, stream=True) as stream:
        events = list(stream)
    for event in events:
        whole(event, ResponseStreamEvent)
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        "output_item.added",
        *(f"file_search_call.{state}" for state in ("in_progress", "searching", "completed")),
        *("output_item.done", "output_item.added"),
        *("reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
        *("output_item.done", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.annotation.added", "output_text.annotation.added"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    done = [event for event in events if event.type == "response.output_item.done"]
    assert [event.output_index for event in done] == [0, 1, 2]
    last = events[-1].response
    assert [event.item for event in done] == last.output
    ids = [(item.id, other.id) for item, other in zip(last.output, once.output, strict=True)]
    first, second = (json.dumps(reply.to_dict()) for reply in (last, once))
    for one, other in [(last.id, once.id), *ids]:
        first = first.replace(one, other)
    same = {"created_at": once.created_at}
    assert json.loads(first) | same == json.loads(second)


def test_the_client_puts_a_stream_together(client, model):
    with client.responses.stream(model=model, input=QUESTION) as stream:
        assert stream.get_final_response().output_text == TEXT
    with client.chat.completions.stream(model=model, messages=ASKED) as stream:
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_the_asynchronous_client_gets_the_same(server, model):
    async def ask() -> None:
        address = f"{server.address}/v1"
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            completion, reply = await asyncio.gather(
                client.chat.completions.create(model=model, messages=ASKED),
                client.responses.create(model=model, input=QUESTION),
            )
            assert completion.choices[0].message.content == reply.output_text == TEXT
            streamed = await client.chat.completions.create(
                model=model, messages=ASKED, stream=True
            )
            assert told_in_chat([chunk async for chunk in streamed])["content"] == TEXT
            events = await client.responses.create(model=model, input=QUESTION, stream=True)
            assert [event async for event in events][-1].response.output_text == TEXT

    asyncio.run(ask())


def test_the_one_model_is_listed(client, model):
    (only,) = client.models.list()
    whole(only, Model)
    assert only.id == model and client.models.retrieve(model) == only
    with pytest.raises(openai.NotFoundError, match="not served"):
        client.models.retrieve("another")


def test_a_response_is_remembered_until_it_is_deleted(client, model):
    reply = client.responses.create(model=model, input=QUESTION)
    assert client.responses.retrieve(reply.id) == reply
    after = client.responses.create(model=model, input=QUESTION, previous_response_id=reply.id)
    assert after.output_text == TEXT
    client.responses.delete(reply.id)
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError) as error:
            call(reply.id)
        assert error.value.param == "id"
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model=model, input=QUESTION, previous_response_id=reply.id)
    assert error.value.param == "previous_response_id"
    assert error.value.code == "previous_response_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_to_be_stored_is_forgotten_once_it_is_told(client, model, stream):
    reply = client.responses.create(model=model, input=QUESTION, store=False, stream=stream)
    id_ = list(reply)[-1].response.id if stream else reply.id
    chat = client.chat.completions.create(model=model, messages=ASKED, store=False, stream=stream)
    other = list(chat)[-1].id if stream else chat.id
    for one in (id_, other.replace("chatcmpl-", "resp_")):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(one)


def test_the_last_text_of_the_user_is_the_question(client, model):
    parts = [{"type": "text", "text": "Who built"}, {"type": "text", "text": "the harbour?"}]
    chat = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "system", "content": "Mumble"},
            {"role": "user", "content": "Mumble"},
            client.chat.completions.create(model=model, messages=ASKED).choices[0].message,
            {"role": "user", "content": parts},
        ],
    )
    assert chat.choices[0].message.content == TEXT
    before = client.responses.create(model=model, input="Mumble")
    asked = {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
    once = client.responses.create(model=model, input=QUESTION)
    reply = client.responses.create(
        model=model,
        instructions="Mumble",
        input=[{"role": "developer", "content": "Mumble"}, *before.output, *once.output, asked],
    )
    assert reply.output_text == TEXT


def test_known_parameters_change_nothing(client, model):
    both = {
        "temperature": 2,
        "top_p": 0.5,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "safety_identifier": "x",
        "service_tier": "auto",
        "store": True,
        "tools": [],
        "tool_choice": "auto",
        "user": "x",
    }
    chat = client.chat.completions.create(
        model=model,
        messages=ASKED,
        **both,
        n=1,
        seed=-7,
        max_tokens=1,
        max_completion_tokens=1,
        logprobs=False,
        modalities=["text"],
        frequency_penalty=-2.0,
        presence_penalty=2,
        reasoning_effort="low",
        verbosity="low",
        response_format={"type": "text"},
        stop=None,
    )
    assert chat.choices[0].message.content == TEXT
    del both["tools"]
    reply = client.responses.create(
        model=model,
        input=QUESTION,
        **both,
        tools=[{"type": "file_search", "vector_store_ids": ["any"]}],
        max_output_tokens=1,
        background=False,
        truncation="auto",
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "text"}, "verbosity": "low"},
    )
    assert reply.output_text == TEXT


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


FUNCTION = {"type": "function", "function": {"name": "f"}}
IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}
BAD_IN_BOTH = [
    ({"temperature": False}, "temperature"),
    ({"temperature": "0.5"}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"store": 0}, "store"),
    ({"user": 5}, "user"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"a": "b" * 513}}, "metadata.a"),
    ({"metadata": [["a", "b"]]}, "metadata"),
    ({"service_tier": "best"}, "service_tier"),
    ({"unheard_of": None}, "unheard_of"),
    ({"model": None}, "model"),
    ({"model": ["a"]}, "model"),
]
BAD_IN_CHAT = [
    ({"messages": []}, "messages"),
    ({"messages": "Who?"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "system", "content": "Who?"}]}, "messages"),
    ({"messages": [*ASKED, {"role": "user", "content": " "}]}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "a" * 20_001}]}, "messages"),
    ({"messages": [{"role": "robot", "content": "Who?"}]}, "messages[0].role"),
    ({"messages": [{"content": "Who?"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages[0].content"),
    ({"messages": ["Who?"]}, "messages[0]"),
    ({"messages": user(IMAGE)}, "messages[0].content[0].type"),
    ({"messages": user({"type": "text", "text": 5})}, "messages[0].content[0].text"),
    ({"messages": user({"type": "text", "text": "a", "b": 1})}, "messages[0].content[0].b"),
    ({"n": 2}, "n"),
    ({"n": "2"}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"seed": "7"}, "seed"),
    ({"tools": [FUNCTION]}, "tools"),
    ({"tool_choice": FUNCTION}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 0}, "logprobs"),
    ({"stop": "a"}, "stop"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"modalities": ["audio"]}, "modalities[0]"),
]
BAD_IN_RESPONSES = [
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": None}, "input"),
    ({"input": [{"role": "assistant", "content": "Who?"}]}, "input"),
    ({"input": user({"type": "input_image", "image_url": "x"})}, "input[0].content[0].type"),
    ({"input": user({"type": "input_file", "file_id": "x"})}, "input[0].content[0].type"),
    ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].type"),
    ({"input": [{"role": "user", "message": 5, "content": [5]}]}, "input[0].content[0]"),
    ({"input": {"(list)": 5, "str": [5]}}, "input"),
    ({"input": [{"type": "reasoning", "(item)": [], "role": 5}], "seed": 5}, "seed"),
    ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools[0].type"),
    ({"tools": [{"type": "file_search", "filters": {}}]}, "tools[0].filters"),
    ({"tool_choice": "none"}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.type"),
    ({"previous_response_id": "resp_0"}, "previous_response_id"),
    ({"background": True}, "background"),
    ({"include": ["message.output_text.logprobs"]}, "include[0]"),
    ({"max_tool_calls": 1}, "max_tool_calls"),
    ({"conversation": "c"}, "conversation"),
]
BAD = [
    *((path, *bad) for path in PATHS for bad in BAD_IN_BOTH),
    *((PATHS[0], *bad) for bad in BAD_IN_CHAT),
    *((PATHS[1], *bad) for bad in BAD_IN_RESPONSES),
]


@pytest.mark.parametrize(("path", "wrong", "param"), BAD)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_honoured_is_refused_by_its_name(server, model, path, wrong, param, stream):
    good = {"messages": ASKED} if "chat" in path else {"input": QUESTION}
    body = {"model": model, **good, "stream": stream, **wrong}
    reply = httpx2.post(f"{server.address}{path}", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param), error
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\0", b"{", b"[]", b'"a"', b"null", b'{"a": 1}}', b"\xff", b"{'a': 1}"),
        *(b'{"model": NaN}', b'{"temperature": -Infinity}', b'{"model": "a", "model": "b"}'),
        *(b"[" * 100_000, b'{"a":' * 50_000, b'{"seed": 1' + b"0" * 5000 + b"}"),
        *(b'{"model": "\\ud800"}', b'{"\\udfff": 1}', b'{"\\u0000": 1}', b'{"": 1}'),
    ],
)
def test_a_body_that_readers_disagree_about_is_refused(server, path, body):
    headers = {"Content-Type": "application/json"}
    reply = httpx2.post(f"{server.address}{path}", content=body, headers=headers)
    assert reply.status_code == 400 and reply.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
def test_other_bodies_methods_and_models_are_refused(server, model, path):
    address = f"{server.address}{path}"
    good = {"model": model, "messages": ASKED} if "chat" in path else {"model": model, "input": "?"}
    text = json.dumps(good)
    assert httpx2.post(address, content=text, headers={"Content-Type": "text/plain"}).is_error
    wrong = httpx2.get(address)
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    assert httpx2.post(address, content=b" " * (1 << 20) + text.encode()).status_code == 413
    reply = httpx2.post(address, json=good | {"model": "\0another"})
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "model_not_found"


def test_a_model_that_writes_nothing_usable_gives_no_answer_and_no_error(client, model):
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Mumble"}]
    )
    reply = client.responses.create(model=model, input="Mumble")
    assert chat.choices[0].message.content == reply.output_text
    assert reply.output_text.startswith("(no answer: ") and reply.status == "completed"


def found(body: Body) -> Answer:
    """What the search server finds, whatever it is asked."""
    hit = {"document": {"id": "h", "contents": f'"Harbour"\n{PASSAGES[0].text}'}, "score": 1.0}
    return 200, {}, json.dumps({"result": [[hit] for _ in body["queries"]]}).encode()


class Locked:
    """A server with a key that takes one question at once, over a search server that may hang."""

    def __init__(self, server: StartedServer, search: FakeServer):
        self.server, self.search, self.client = server, search, client_of(server, KEY)
        self.model = self.client.models.list().data[0].id
        self._numbers = itertools.count()

    def question(self) -> str:
        """A question that needs a search which nothing has asked for before."""
        return f"Is it slow {next(self._numbers)}?"

    def hang(self) -> tuple[threading.Event, threading.Event]:
        """Let searches hang from now on; gives what is set when one does, and what ends it."""
        hangs, end = threading.Event(), threading.Event()

        def script(body: Body) -> Answer:
            hangs.set()
            assert end.wait(30)
            return found(body)

        self.search.script = script
        return hangs, end

    def ask(self, path: str, text: str = "", **more: Any) -> Any:
        """Ask by one of both APIs."""
        text = text or self.question()
        if "chat" in path:
            asked = [{"role": "user", "content": text}]
            return self.client.chat.completions.create(model=self.model, messages=asked, **more)
        return self.client.responses.create(model=self.model, input=text, **more)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Iterator[Locked]:
    slow = [(f"slow {n}?\nNotes:\nnone", f"Search: harbour {n}") for n in range(50)]
    rules = [*slow, ("Endless", "word " * 3000), SCRIPT[3]]
    script = tmp_path_factory.mktemp("slow") / "slow.jsonl"
    lines = [json.dumps({"contains": part, "reply": reply}) for part, reply in rules]
    script.write_text("\n".join(lines), encoding="utf-8")
    search = FakeServer()
    options = ("--index", f"http://{search.place}?retries=0", "--model", script)
    environment = {"EXSEARCH_API_KEY": KEY}
    try:
        with answer_server(
            world, *options, "--max-questions", 1, environment=environment
        ) as running:
            opened = Locked(running, search)
            with opened.client:
                yield opened
    finally:
        search.close()


@pytest.fixture
def locked(started: Locked) -> Locked:
    started.search.script = found
    return started


def test_a_wrong_key_is_refused(locked):
    with client_of(locked.server, "wrong") as client:
        for call in (client.models.list, lambda: client.responses.retrieve("resp_a")):
            with pytest.raises(openai.AuthenticationError) as error:
                call()
            assert error.value.code == "invalid_api_key"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_refused(locked, path, stream):
    with pytest.raises(openai.NotFoundError) as error:
        locked.ask(path, stream=stream, extra_body={"model": "another"})
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_place_within_a_second(locked, path, stream):
    hangs, end = locked.hang()
    try:
        going = raw(locked, path, stream)
        assert hangs.wait(10)
        with pytest.raises(openai.RateLimitError) as busy:
            locked.ask(path, stream=True)
        assert busy.value.code == "busy" and int(busy.value.response.headers["retry-after"]) >= 1
        going.close()
        left = time.monotonic()
        while True:  # a stream that begins was taken in
            try:
                locked.ask(path, stream=True).close()
                break
            except openai.RateLimitError:
                assert time.monotonic() - left < 1
                time.sleep(0.01)
    finally:
        end.set()
    wait_until_free(locked)


def raw(locked: Locked, path: str, stream: bool) -> Any:
    """A connection on which a question was asked, and of which nothing was read."""
    good: dict[str, Any] = {"input": locked.question()}
    if "chat" in path:
        good = {"messages": [{"role": "user", "content": good["input"]}]}
    body = json.dumps({"model": locked.model, "stream": stream, **good})
    host = locked.server.address.removeprefix("http://")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    name, _, port = host.partition(":")
    connection = socket.create_connection((name, int(port)))
    connection.sendall((head + body).encode())
    return connection


def wait_until_free(locked: Locked) -> None:
    """Wait until no question is in hand."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            locked.ask(PATHS[0], "Endless")
            return
        except openai.RateLimitError:
            time.sleep(0.01)
    raise AssertionError("a question is left in hand")


@pytest.mark.parametrize("path", PATHS)
def test_silence_is_filled_with_comments(path, world, monkeypatch):
    class Slow(Bm25Retriever):
        def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            time.sleep(0.2)
            return super().search(queries, k)

    for face in (chat, responses):
        monkeypatch.setattr(face, "IDLE", 0.05)

    async def ask(searcher: Searcher) -> str:
        app, _ = make_app(searcher, ServeConfig("m"))
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"model": "m", "messages": ASKED} if "chat" in path else {"input": QUESTION}
            return (await client.post(path, json={"model": "m", "stream": True, **body})).text

    with Searcher(ScriptedEngine(SCRIPT), Slow.open(world / "index")) as searcher:
        lines = asyncio.run(ask(searcher)).split("\n\n")
    assert 2 <= lines.count(": waiting") <= 5
    assert ANSWER in "".join(lines)


def test_a_response_under_way_is_told_as_far_as_it_has_come_and_can_be_deleted(locked):
    hangs, end = locked.hang()
    try:
        stream = iter(locked.ask(PATHS[1], stream=True))
        begun = next(stream).response
        assert hangs.wait(10)
        so_far = locked.client.responses.retrieve(begun.id)
        whole(so_far, Response)
        assert so_far.status == "in_progress" and so_far.usage is None
        (search,) = so_far.output
        assert search.queries[0].startswith("harbour") and search.status == "in_progress"
        locked.client.responses.delete(begun.id)
        failed = list(stream)[-1]
        assert failed.type == "response.failed" and failed.response.status == "failed"
    finally:
        end.set()
    wait_until_free(locked)


def test_an_answer_that_is_cut_says_so(locked):
    chat = locked.ask(PATHS[0], "Endless")
    assert chat.choices[0].finish_reason == "length"
    assert "max_tokens" in chat.choices[0].message.content
    assert (
        list(locked.ask(PATHS[0], "Endless", stream=True))[-1].choices[0].finish_reason == "length"
    )
    reply = locked.ask(PATHS[1], "Endless")
    whole(reply, Response)
    assert reply.status == "incomplete" and reply.incomplete_details.reason == "max_output_tokens"
    *_, last = locked.ask(PATHS[1], "Endless", stream=True)
    assert last.type == "response.incomplete"


@pytest.mark.parametrize("path", PATHS)
def test_a_search_that_fails_is_told_whatever_the_form(locked, path):
    locked.search.script = lambda body: (400, {}, b"no")
    with pytest.raises(openai.InternalServerError) as error:
        locked.ask(path)
    assert (error.value.status_code, error.value.code) == (502, "search_failed")
    if "chat" in path:
        with pytest.raises(openai.APIError) as error:
            list(locked.ask(path, stream=True))
        assert error.value.code == "search_failed"
        return
    events = list(locked.ask(path, stream=True))
    for event in events:
        whole(event, ResponseStreamEvent)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    failed = events[-1].response
    assert events[-1].type == "response.failed" and failed.error.code == "server_error"
    assert failed.output[-1].status == "failed" == events[-2].item.status
    assert locked.client.responses.retrieve(failed.id) == failed


@pytest.mark.parametrize("path", PATHS)
def test_a_model_that_fails_is_no_reason_to_ask_again(locked, path):
    with pytest.raises(openai.UnprocessableEntityError) as error:
        locked.ask(path, "Unheard of")
    assert error.value.code == "model_failed"
    assert error.value.param == ("messages" if "chat" in path else "input")


def test_what_the_page_shows_works(server, model):
    page = Path(__file__).parents[2].joinpath("docs", "serving.md").read_text(encoding="utf-8")
    section = page.partition("## OpenAI's API\n")[2].partition("\n## ")[0]
    section = section.replace("http://127.0.0.1:8000", server.address)
    section = section.replace("exsearch-smollm2-135m", model)
    curl, python = re.findall(r"(?:^    .*\n|(?<=\n)\n(?=    ))+", section, re.MULTILINE)
    for command in (["bash", "-c", curl], [sys.executable, "-c", textwrap.dedent(python)]):
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stderr
        assert FACT in told.stdout
    assert "searched: ['harbour builder']" in told.stdout
