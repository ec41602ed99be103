"""The teacher is a real HTTP server on this machine that replies by a script."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_server import (
    FACT,
    KEY,
    Answer,
    Body,
    FakeServer,
    OnePassage,
    completion,
    good,
    questions,
)
from exsearch.agent.episode import begin
from exsearch.methods.searcher import SearcherMethod
from exsearch.engines.scripted import ScriptedTokenizer
from exsearch.errors import ConfigError, EngineError, ModelServerError, RunError
from exsearch.records import CallKind, Question, Trajectory, from_json
from exsearch.training.recipe import Recipe, TeacherConfig, WarmUpConfig
from exsearch.training.teacher import teach
from exsearch.training.warm_up import WarmUpData, warm_up_data

TOKENIZER = ScriptedTokenizer()
AGENT = SearcherMethod(max_steps=4, passages=3)


def config(server: FakeServer, **settings: Any) -> TeacherConfig:
    quick = {"retries": 2, "backoff": 0.0, "timeout": 20.0}
    return TeacherConfig(server.url, "wise", **{**quick, **settings})


def lesson(
    server: FakeServer, file: Path, count: int = 1, examples: int = 1, **settings: Any
) -> WarmUpData:
    return teach(
        questions(count),
        config(server, **settings),
        OnePassage(),
        TOKENIZER,
        AGENT,
        examples=examples,
        file=file,
    )


def failure(server: FakeServer, tmp_path: Path, **settings: Any) -> str:
    with pytest.raises((EngineError, ModelServerError)) as caught:
        lesson(server, tmp_path / "t.jsonl", **settings)
    message = str(caught.value)
    assert server.place in message
    assert "\n" not in message
    assert KEY not in message
    return message


# --- what the student learns from ---


@pytest.mark.parametrize(
    "agent",
    [
        SearcherMethod(max_steps=4, passages=3),
        SearcherMethod(max_steps=4, passages=3, select=True),
        SearcherMethod(max_steps=4, passages=3, context="transcript"),
        SearcherMethod(max_steps=2, passages=3),  # the answer is forced
        SearcherMethod(max_steps=2, passages=3, context="transcript", select=True),
    ],
    ids=["notes", "select", "transcript", "forced", "all"],
)
def test_a_teacher_that_writes_the_annotation_gives_the_annotation_as_data(
    server: FakeServer, tmp_path: Path, sample_questions: Any, sample_retriever: Any, agent: Any
) -> None:
    wanted = warm_up_data(sample_questions, sample_retriever, TOKENIZER, agent, examples=6)
    replies = {
        TOKENIZER.chat_text(call.prompt_ids): TOKENIZER.decode(call.output_ids)
        for item in wanted.items
        for call in item.trajectory.calls
    }

    def script(body: Body) -> str:
        system, *turns = body["messages"]
        assert system["role"] == "system"
        *_, last = turns
        head, forced, _ = last["content"].partition("\nNo search is left.")
        chat = TOKENIZER.encode_chat([*turns[:-1], {"role": "user", "content": head}])
        return replies[TOKENIZER.chat_text(chat) + ("Answer:" if forced else "")].strip()

    server.script = script
    chosen = [item.trajectory.question for item in wanted.items]
    made = teach(
        chosen,
        config(server),
        sample_retriever,
        TOKENIZER,
        agent,
        examples=6,
        file=tmp_path / "t.jsonl",
    )

    def calls(data: WarmUpData) -> list[Any]:
        return [(i.trajectory.calls, i.trajectory.steps, i.answer_ids) for i in data.items]

    assert calls(made) == calls(wanted)
    assert {i.weight for i in made.items} == {1.0}
    kinds = {i.trajectory.calls[-1].kind for i in made.items}
    assert (CallKind.ANSWER in kinds) == (agent.max_steps == 2)


def test_a_real_tokenizer_gives_trainable_sequences(
    server: FakeServer, tmp_path: Path, tiny_engine: Any
) -> None:
    from exsearch.training.batches import training_sequences

    server.script = good
    data = teach(
        questions(1),
        config(server),
        OnePassage(),
        tiny_engine.tokenizer,
        AGENT,
        examples=1,
        file=tmp_path / "t.jsonl",
    )
    learned = [
        tiny_engine.tokenizer.decode(
            [i for i, w in zip(s.input_ids, s.loss_weights, strict=True) if w]
        )
        for s in training_sequences(data.items[0])
    ]
    assert learned == [
        "Search: Who built the lighthouse?",
        FACT,
        "Answer: Ada Fenn",
    ]


def test_the_gold_answer_is_the_target_also_where_the_teacher_wrote_it_otherwise(
    server: FakeServer, tmp_path: Path
) -> None:
    server.script = lambda body: good(body).replace("Answer: Ada Fenn", "Answer: the ADA FENN.")
    item = lesson(server, tmp_path / "t.jsonl").items[0]
    assert item.trajectory.answer == "the ADA FENN."
    assert TOKENIZER.decode(item.answer_ids[0]) == " Ada Fenn"


def test_reasoning_before_a_reply_is_left_out(server: FakeServer, tmp_path: Path) -> None:
    server.script = lambda body: f"<think>\nHm.\nSearch: no\n</think>\n\n{good(body)}"
    trajectory = lesson(server, tmp_path / "t.jsonl").items[0].trajectory
    assert trajectory.steps[0].query == "Who built the lighthouse?"


def test_worked_examples_are_shown_to_the_teacher_only(server: FakeServer, tmp_path: Path) -> None:
    from exsearch.agent.replay import worked_examples

    server.script = good
    first = lesson(server, tmp_path / "a.jsonl").items[0].trajectory
    server.bodies.clear()
    data = teach(
        questions(1),
        config(server),
        OnePassage(),
        TOKENIZER,
        AGENT,
        examples=1,
        file=tmp_path / "b.jsonl",
        worked=worked_examples([first], AGENT),
    )
    roles = [m["role"] for m in server.bodies[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert data.items[0].trajectory.calls == first.calls


# --- what is kept, what is left out ---


@pytest.mark.parametrize(
    ("keep", "reply", "reason"),
    [
        ("correct", "Answer: Bo Fenn", "wrong answer"),
        ("correct", "Answer: Ada Fenn", "answered without a search"),
        ("all", "Answer: Bo Fenn", None),
        ("all", "Answer: Ada Fenn", None),
        ("all", "Ada Fenn", "malformed: no_action"),
        ("all", "", "malformed: empty_thought"),
        ("all", "Search: " + "very " * 80 + "long", "max_tokens"),
    ],
)
def test_what_is_kept(
    server: FakeServer, tmp_path: Path, keep: Any, reply: str, reason: str | None
) -> None:
    server.script = lambda body: reply
    data = lesson(server, tmp_path / "t.jsonl", keep=keep)
    assert data.left_out == ({reason: ["q0"]} if reason else {})
    assert len(data.items) == (0 if reason else 1)


def test_a_reply_without_content_is_an_empty_one(server: FakeServer, tmp_path: Path) -> None:
    server.script = lambda body: completion(None)
    assert lesson(server, tmp_path / "t.jsonl").left_out == {"malformed: empty_thought": ["q0"]}


def test_a_question_without_an_answer_is_never_asked(server: FakeServer, tmp_path: Path) -> None:
    data = teach(
        [Question("q", "Who?", (" ",))],
        config(server),
        OnePassage(),
        TOKENIZER,
        AGENT,
        examples=1,
        file=tmp_path / "t.jsonl",
    )
    assert data.left_out == {"no answer": ["q"]}
    assert server.bodies == []


def test_a_malformed_reply_is_asked_for_once_more(server: FakeServer, tmp_path: Path) -> None:
    def script(body: Body) -> str:
        text = good(body)
        return "I think Ada." if text.startswith("Search") and len(body["messages"]) == 2 else text

    def mend(body: Body) -> str:
        last = body["messages"][-1]["content"]
        return "Search: Who?" if last.startswith("That is not in the form") else script(body)

    server.script = mend
    trajectory = lesson(server, tmp_path / "t.jsonl").items[0].trajectory
    assert trajectory.retries == 1
    assert trajectory.steps[0].query == "Who?"
    assert server.bodies[1]["messages"][-2] == {"role": "assistant", "content": "I think Ada."}
    # The student sees neither the bad reply nor the request to mend it.
    first = Episode(questions(1)[0], 0, AGENT, TOKENIZER).prompt_ids()
    assert trajectory.calls[0].prompt_ids == first
    assert len(trajectory.calls) == 3


def test_no_more_is_asked_than_is_missing(server: FakeServer, tmp_path: Path) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def script(body: Body) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        text = good(body)
        with lock:
            at_once -= 1
        return text

    server.script = script
    counts: list[int] = []
    data = teach(
        questions(9),
        config(server, concurrency=2),
        OnePassage(),
        TOKENIZER,
        AGENT,
        examples=5,
        file=tmp_path / "t.jsonl",
        on_example=counts.append,
    )
    assert len(data.items) == sum(counts) == 5
    assert len(server.bodies) == 5 * 3
    assert most <= 2


def test_examples_come_in_the_order_of_the_questions(server: FakeServer, tmp_path: Path) -> None:
    wait = threading.Event()

    def script(body: Body) -> str:
        if "lighthouse 0?" in body["messages"][-1]["content"]:
            assert wait.wait(20)
        elif "lighthouse 2?" in body["messages"][-1]["content"]:
            wait.set()
        return good(body)

    server.script = script
    data = lesson(server, tmp_path / "t.jsonl", count=3, examples=3, concurrency=3)
    assert [i.trajectory.question.id for i in data.items] == ["q0", "q1", "q2"]


# --- money: what was paid for is never asked again ---


def test_what_is_finished_is_never_asked_again(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    server.script = lambda body: (
        "Answer: Bo" if "lighthouse 1?" in body["messages"][-1]["content"] else good(body)
    )
    first = lesson(server, file, count=2, examples=2)
    assert first.left_out == {"wrong answer": ["q1"]}
    asked = len(server.bodies)
    assert lesson(server, file, count=2, examples=2) == first
    assert len(server.bodies) == asked
    with file.open("a") as out:
        out.write('{"torn')
    more = lesson(server, file, count=3, examples=2)
    assert [i.trajectory.question.id for i in more.items] == ["q0", "q2"]
    assert len(server.bodies) == asked + 3
    lines = file.read_text().splitlines()
    assert sorted(json.loads(line)["question"]["id"] for line in lines) == ["q0", "q1", "q2"]
    assert lesson(server, file, count=3, examples=1).items == more.items[:1]
    assert len(server.bodies) == asked + 3


def test_what_is_finished_stays_when_the_endpoint_fails(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    server.script = lambda body: (
        (503, {}, b"") if "lighthouse 1?" in body["messages"][-1]["content"] else good(body)
    )
    with pytest.raises(ModelServerError, match=r"HTTP 503 \(tried 3 times\)"):
        lesson(server, file, count=2, examples=2, concurrency=1)
    asked = len(server.bodies)
    assert from_json(Trajectory, file.read_bytes()).question.id == "q0"
    server.script = good
    assert len(lesson(server, file, count=2, examples=2).items) == 2
    assert len(server.bodies) == asked + 3


def test_ctrl_c_keeps_what_is_finished(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    server.script = good
    with pytest.raises(KeyboardInterrupt):
        teach(
            questions(9),
            config(server, concurrency=3),
            OnePassage(),
            TOKENIZER,
            AGENT,
            examples=9,
            file=file,
            on_example=lambda gained: signal.raise_signal(signal.SIGINT) if gained else None,
        )
    finished = len(file.read_text().splitlines())
    assert 1 <= finished < 9
    server.bodies.clear()
    assert len(lesson(server, file, count=9, examples=9).items) == 9
    assert len(server.bodies) == 3 * (9 - finished)


def test_a_corrected_gold_answer_counts_for_what_was_asked_before(
    server: FakeServer, tmp_path: Path
) -> None:
    server.script = good
    wrong = [Question("q0", "Who built lighthouse 0?", ("Bo",))]
    args = (config(server), OnePassage(), TOKENIZER, AGENT)
    file = tmp_path / "t.jsonl"
    assert teach(wrong, *args, examples=1, file=file).left_out == {"wrong answer": ["q0"]}
    asked = len(server.bodies)
    assert len(teach(questions(1), *args, examples=1, file=file).items) == 1
    assert len(server.bodies) == asked


def test_a_file_for_another_student_is_refused(
    server: FakeServer, tmp_path: Path, tiny_engine: Any
) -> None:
    file = tmp_path / "t.jsonl"
    server.script = good
    lesson(server, file)
    with pytest.raises(RunError, match=r"t\.jsonl:1: .*'q0'.*another"):
        teach(
            questions(1),
            config(server),
            OnePassage(),
            tiny_engine.tokenizer,
            AGENT,
            examples=1,
            file=file,
        )


@pytest.mark.parametrize("line", ["[]", '{"question": 1}', "no json"])
def test_a_damaged_file_is_named(server: FakeServer, tmp_path: Path, line: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(RunError, match=r"t\.jsonl:1: ") as caught:
        lesson(server, file)
    assert "\n" not in str(caught.value)


# --- the protocol ---


def test_the_request(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    server.script = good
    settings = {"temperature": 0.3, "max_tokens": 0, "extra": {"max_completion_tokens": 99}}
    lesson(server, tmp_path / "t.jsonl", api_key_env="MY_KEY", **settings)
    body = server.bodies[0]
    assert set(server.paths) == {"/v1/chat/completions"}
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert set(body) == {"model", "messages", "temperature", "max_completion_tokens"}
    assert body["model"] == "wise"
    prompt = Episode(questions(1)[0], 0, AGENT, TOKENIZER).prompt()
    assert body["messages"][1:] == [{"role": "user", "content": prompt}]
    assert KEY not in (tmp_path / "t.jsonl").read_text()


def test_a_key_is_taken_from_the_named_variable_only(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = good
    lesson(server, tmp_path / "t.jsonl", api_key_env="OTHER_KEY")
    assert "authorization" not in server.headers[0]
    assert KEY not in json.dumps(server.headers)


def test_a_key_that_no_header_can_hold(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nx")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        lesson(server, tmp_path / "t.jsonl")
    assert KEY not in str(caught.value)


def test_a_key_on_an_open_line_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from exsearch.engines.server.endpoint import ChatEndpoint

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ChatEndpoint(TeacherConfig("https://teacher.example/v1", "m"))
    ChatEndpoint(TeacherConfig("http://localhost:1/v1", "m"))
    assert caplog.messages == []
    ChatEndpoint(TeacherConfig("http://teacher.example/v1", "m"))
    assert "unencrypted" in caplog.text
    assert KEY not in caplog.text


def in_turn(*replies: Answer) -> Callable[[Body], Answer | str]:
    """These answers first, then good ones."""
    left = list(replies)
    return lambda body: left.pop(0) if left else good(body)


@pytest.mark.parametrize(
    "first",
    [
        (429, {"Retry-After": "0"}, b""),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""),
        (429, {"Retry-After": "soon"}, b""),
        (429, {}, b"{}"),
        (500, {}, b"<html>oops</html>"),
        (503, {}, b""),
        (408, {}, b""),
        (200, {}, b"not json"),
        (200, {}, b'{"error": "busy"}'),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": 7}}]}'),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (200, {"Content-Length": "1000"}, b""),  # and the connection closes: see below
    ],
)
def test_a_passing_fault_is_passed_over(server: FakeServer, tmp_path: Path, first: Answer) -> None:
    closing = (first[0], {**first[1], "Connection": "close"}, first[2])
    server.script = in_turn(closing)
    assert len(lesson(server, tmp_path / "t.jsonl").items) == 1
    assert len(server.bodies) == 4


@pytest.mark.parametrize(
    ("reply", "requests", "words"),
    [
        ((429, {}, b""), 3, "HTTP 429.*credit"),
        ((500, {}, b""), 3, "HTTP 500.*base_url"),
        ((200, {}, b"not json"), 3, "not a chat completion"),
        ((200, {}, b'{"choices": 1}'), 3, "not a chat completion"),
        ((429, {"Retry-After": "7200"}, b""), 1, "7200 s.*later"),
        ((401, {}, b'{"error": "bad key sk-very-***34"}'), 1, "401; check the key.*OPENAI_API_KEY"),
        ((403, {}, b""), 1, "HTTP 403.*OPENAI_API_KEY"),
        ((404, {}, b'{"error": "no model \\n wise"}'), 1, "HTTP 404.*no model.*base_url.*model"),
        ((418, {}, f"tea for {KEY}".encode()), 1, r"HTTP 418 \('tea for \*\*\*'\)"),
        ((400, {}, b'{"error": "no temperature"}'), 1, "HTTP 400.*no temperature.*teacher"),
    ],
)  # fmt: skip
def test_a_lasting_fault_is_one_clear_line(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: Answer,
    requests: int,
    words: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = lambda body: reply
    message = failure(server, tmp_path)
    assert re.search(words, message), message
    assert "34" not in message.replace(server.place, "")
    assert len(server.bodies) == requests


def test_a_redirect_is_not_followed(server: FakeServer, tmp_path: Path) -> None:
    address = f"http://{server.place}/elsewhere"
    server.script = lambda body: (307, {"Location": address}, b"")
    assert "redirect" in failure(server, tmp_path)
    assert server.paths == ["/v1/chat/completions"]


def test_a_reply_beyond_the_size_limit_is_refused(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exsearch.engines.server.endpoint.MAX_RESPONSE_BYTES", 1000)
    server.script = lambda body: "x" * 2000
    assert "more than 1,000 bytes" in failure(server, tmp_path)
    assert len(server.bodies) == 1


def test_a_server_that_hangs_is_left(server: FakeServer, tmp_path: Path) -> None:
    def hang(body: Body) -> None:
        server.released.wait(60)

    server.script = hang
    message = failure(server, tmp_path, timeout=0.2, retries=1)
    assert "no reply within 0.2 s (tried 2 times)" in message


def test_a_server_that_is_not_there(server: FakeServer, tmp_path: Path) -> None:
    server.server.server_close()
    assert "can't be reached (ConnectError) (tried 3 times)" in failure(server, tmp_path)


def test_a_refused_question_is_left_out_and_asked_again_later(
    server: FakeServer, tmp_path: Path
) -> None:
    server.script = lambda body: (
        (400, {}, b"filtered") if "lighthouse 0?" in str(body["messages"]) else good(body)
    )
    file = tmp_path / "t.jsonl"
    data = lesson(server, file, count=3, examples=2)
    assert data.left_out == {"engine_error": ["q0"]}
    assert [i.trajectory.question.id for i in data.items] == ["q1", "q2"]
    server.script = good
    assert len(lesson(server, file, count=3, examples=3).items) == 3


def test_when_every_question_is_refused_it_is_the_settings(
    server: FakeServer, tmp_path: Path
) -> None:
    server.script = lambda body: (400, {}, b"unknown field")
    assert "unknown field" in failure(server, tmp_path, count=50, examples=50, concurrency=1)
    assert len(server.bodies) == 5


def test_a_passage_names_no_address_that_is_asked(server: FakeServer, tmp_path: Path) -> None:
    other = FakeServer()
    try:
        server.script = lambda body: good(body).replace(
            "Quillmoor.", f"Quillmoor, see http://{other.place}/v1/chat/completions"
        )
        assert len(lesson(server, tmp_path / "t.jsonl").items) == 1
        assert other.bodies == []
    finally:
        other.close()


def test_it_works_where_an_event_loop_is_running(server: FakeServer, tmp_path: Path) -> None:
    server.script = good

    async def notebook() -> WarmUpData:
        return lesson(server, tmp_path / "t.jsonl")

    assert len(asyncio.run(notebook()).items) == 1


def test_the_wait_grows_and_is_limited() -> None:
    from exsearch.engines.server.endpoint import ChatEndpoint, _retry_after, _Unanswered

    config = TeacherConfig("http://localhost/v1", "m", backoff=1.0, max_wait=10.0)
    endpoint = ChatEndpoint(config)
    for attempt, (low, high) in enumerate([(0.5, 1.5), (1, 3), (2, 6), (4, 10), (8, 10)]):
        assert low <= endpoint._wait(_Unanswered("busy"), attempt) <= high
    assert endpoint._wait(_Unanswered("busy", 429, 7.0), 0) == 7.0
    import httpx2

    now = datetime.datetime.now(datetime.UTC)
    later = email.utils.format_datetime(now + datetime.timedelta(seconds=60))
    seconds = _retry_after(httpx2.Headers({"Retry-After": later}))
    assert seconds is not None
    assert 50 < seconds <= 60
    assert _retry_after(httpx2.Headers({})) is None


# --- settings ---


@pytest.mark.parametrize(
    "values",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "host/v1"},
        {"base_url": "http://user:secret@host/v1"},
        {"base_url": "http://host/v1?key=secret"},
        {"base_url": "http://host:99999/v1"},
        {"base_url": "http://[::1/v1"},
        {"extra": {"messages": []}},
        {"concurrency": 0},
        {"retries": -1},
        {"timeout": 0},
        {"backoff": float("nan")},
    ],
)
def test_settings_that_cannot_be_used(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"teacher.{next(iter(values))}") as caught:
        TeacherConfig(**{"base_url": "http://host/v1", "model": "m", **values})
    assert "secret" not in str(caught.value)


def test_a_recipe_that_asks_a_teacher_names_one() -> None:
    with pytest.raises(ConfigError, match=r"add a section \[teacher\]"):
        Recipe("r", warm_up=WarmUpConfig(examples=1, source="teacher"))


def test_a_recipe_loads_neither_torch_nor_an_http_client() -> None:
    code = (
        "import sys, exsearch.training.recipe, exsearch.training.teacher;"
        "sys.exit(bool({'torch', 'httpx2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_is_warmed_up_by_a_teacher(
    server: FakeServer, tmp_path: Path, tiny_model_folder: Path
) -> None:
    import torch

    from exsearch.engines.local.engine import TransformersEngine
    from exsearch.runs import is_complete, read_jsonl
    from exsearch.training.loop import Loop
    from exsearch.training.recipe import GemConfig

    server.script = lambda body: (
        "Answer: Bo" if "lighthouse 1?" in body["messages"][-1]["content"] else good(body)
    )
    recipe = Recipe(
        "taught",
        agent=AGENT,
        warm_up=WarmUpConfig(examples=3, source="teacher"),
        gem=GemConfig(iterations=0),
        teacher=config(server, concurrency=1),
    )

    def run() -> dict[str, Any]:
        return Loop(
            recipe,
            tmp_path,
            train=questions(4),
            dev=[],
            retriever=OnePassage(),
            engine=TransformersEngine(tiny_model_folder, device="cpu"),
            start=tiny_model_folder,
            device=torch.device("cpu"),
            progress=False,
        ).run()

    assert run()["model"] == "warm_up/model"
    assert is_complete(tmp_path / "warm_up" / "model")
    event = next(read_jsonl(tmp_path / "metrics.jsonl"))
    assert (event["event"], event["examples"]) == ("data", 3)
    assert set(event["left_out"]) <= {"wrong answer"}
    asked = len(server.bodies)
    run()
    assert len(server.bodies) == asked
