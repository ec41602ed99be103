"""A teacher is asked what the student would be asked, and nothing that it finished is lost.

Mostly it is a real HTTP server on this machine that replies by a script.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_world import METHOD as SMALL_WORLD

from chat_server import (
    FACT,
    KEY,
    PASSAGE,
    Answer,
    Body,
    FakeServer,
    OnePassage,
    completion,
    good,
    questions,
)
from exsearch.agent.episode import begin
from exsearch.engines import load_engine
from exsearch.engines.scripted import ScriptedTokenizer
from exsearch.errors import (
    ConfigError,
    DataError,
    EngineError,
    ModelServerError,
    RetrieverError,
)
from exsearch.evaluation.metrics import exact_match
from exsearch.jobs.teacher import SYSTEM_MESSAGE, open_teacher
from exsearch.methods import open_method
from exsearch.methods.base import Method
from exsearch.methods.searcher import SearcherMethod
from exsearch.progress import Bars
from exsearch.records import CallKind, Passage, Question, to_json
from exsearch.training.recipe import Recipe, TeacherConfig, WarmUpConfig
from exsearch.training.teacher import teach
from exsearch.training.warm_up import WarmUpData, warm_up_data
from exsearch.trajectories import read_trajectories

TOKENIZER = ScriptedTokenizer()
METHOD = SearcherMethod(max_steps=4, passages=3)


def config(server: FakeServer, **settings: Any) -> TeacherConfig:
    quick = {"retries": 2, "backoff": 0.0, "timeout": 20.0}
    return TeacherConfig(server.url, "wise", **{**quick, **settings})


def taught(
    asked: Sequence[Question],
    file: Path,
    teacher: TeacherConfig,
    *,
    retriever: Any = None,
    tokenizer: Any = TOKENIZER,
    method: Method = METHOD,
    examples: int = 1,
    opened: Callable[[], Any] | None = None,
    **more: Any,
) -> WarmUpData:
    return teach(
        asked,
        teacher,
        opened or (lambda: open_teacher(teacher)),
        retriever or OnePassage(),
        tokenizer,
        method,
        examples=examples,
        file=file,
        **more,
    )


def lesson(
    server: FakeServer, file: Path, count: int = 1, examples: int = 1, **settings: Any
) -> WarmUpData:
    return taught(questions(count), file, config(server, **settings), examples=examples)


def about(body: Body, number: int) -> bool:
    """Whether a request puts this question; a record's request puts its query alone."""
    return f"lighthouse {number}?" in body["messages"][-1]["content"]


def failure(server: FakeServer, tmp_path: Path, **settings: Any) -> str:
    with pytest.raises((EngineError, ModelServerError)) as caught:
        lesson(server, tmp_path / "t.jsonl", **settings)
    message = str(caught.value)
    assert server.place in message
    assert "\n" not in message
    assert KEY not in message
    return message


def in_turn(*replies: Answer) -> Callable[[Body], Answer | str]:
    """These answers first, then good ones."""
    left = list(replies)
    return lambda body: left.pop(0) if left else good(body)


# --- what the student learns from ---


@pytest.mark.parametrize(
    "method",
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
    server: FakeServer, tmp_path: Path, sample_questions: Any, sample_retriever: Any, method: Any
) -> None:
    wanted = warm_up_data(sample_questions, sample_retriever, TOKENIZER, method, examples=6)
    replies = {
        TOKENIZER.chat_text(call.prompt_ids): TOKENIZER.decode(call.output_ids)
        for item in wanted.items
        for call in item.trajectory.calls
    }

    def script(body: Body) -> str:
        system, *turns = body["messages"]
        assert system == {"role": "system", "content": SYSTEM_MESSAGE}
        *_, last = turns
        head, forced, _ = last["content"].partition('\nYour reply must begin with "Answer:"')
        chat = TOKENIZER.encode_chat([*turns[:-1], {"role": "user", "content": head}])
        return replies[TOKENIZER.chat_text(chat) + ("Answer:" if forced else "")].strip()

    server.script = script
    chosen = [item.trajectory.question for item in wanted.items]
    made = taught(
        chosen,
        tmp_path / "t.jsonl",
        config(server),
        retriever=sample_retriever,
        method=method,
        examples=6,
    )

    def calls(data: WarmUpData) -> list[Any]:
        return [(i.trajectory.calls, i.trajectory.steps, i.answer_ids) for i in data.items]

    assert calls(made) == calls(wanted)
    assert {i.weight for i in made.items} == {1.0}
    kinds = {i.trajectory.calls[-1].kind for i in made.items}
    assert (CallKind.ANSWER in kinds) == (method.max_steps == 2)


def test_a_real_tokenizer_gives_trainable_sequences(
    server: FakeServer, tmp_path: Path, tiny_engine: Any
) -> None:
    from exsearch.training.batches import training_sequences

    server.script = good
    tokenizer = tiny_engine.tokenizer
    data = taught(questions(1), tmp_path / "t.jsonl", config(server), tokenizer=tokenizer)
    learned = [
        tokenizer.decode([i for i, w in zip(s.input_ids, s.loss_weights, strict=True) if w])
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
        ("all", "Search: " + "very " * 80 + "long", "too long, or no trajectory of this method"),
        ("all", "Answer: " + "very " * 80 + "long", "too long, or no trajectory of this method"),
    ],
)
def test_what_is_kept(
    server: FakeServer, tmp_path: Path, keep: Any, reply: str, reason: str | None
) -> None:
    server.script = lambda body: FACT if "Query:" in body["messages"][-1]["content"] else reply
    data = lesson(server, tmp_path / "t.jsonl", keep=keep)
    assert data.left_out == ({reason: ["q0"]} if reason else {})
    assert len(data.items) == (0 if reason else 1)


def test_a_reply_that_the_service_cuts_off_is_no_example(
    server: FakeServer, tmp_path: Path
) -> None:
    server.script = lambda body: completion("Answer: Ada Fenn", "length")
    data = lesson(server, tmp_path / "t.jsonl", keep="all")
    assert data.left_out == {"max_tokens": ["q0"]}


def test_a_reply_without_content_is_an_empty_one(server: FakeServer, tmp_path: Path) -> None:
    server.script = lambda body: completion(None)
    assert lesson(server, tmp_path / "t.jsonl").left_out == {"malformed: empty_thought": ["q0"]}


def test_a_question_without_an_answer_is_never_asked(server: FakeServer, tmp_path: Path) -> None:
    data = taught([Question("q", "Who?", (" ",))], tmp_path / "t.jsonl", config(server))
    assert data.left_out == {"no answer": ["q"]}
    assert server.bodies == []


def test_a_malformed_reply_is_asked_for_once_more(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    server.script = in_turn(completion("I think Ada."), completion("Search: Who?"))
    (item,) = lesson(server, file).items
    assert item.trajectory.steps[0].query == "Who?"
    assert len(server.bodies) == 4
    assert server.bodies[1]["messages"] == server.bodies[0]["messages"]
    (told,) = read_trajectories(file)
    assert told.retries == 1
    # The student does not see the bad reply.
    first = begin(questions(1)[0], METHOD, TOKENIZER).prompt_ids()
    assert item.trajectory.calls[0].prompt_ids == first
    assert len(item.trajectory.calls) == 3


def test_a_reply_that_stays_malformed_is_left_out(server: FakeServer, tmp_path: Path) -> None:
    server.script = lambda body: "I think Ada."
    assert lesson(server, tmp_path / "t.jsonl").left_out == {"malformed: no_action": ["q0"]}
    assert len(server.bodies) == 2


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
    data = taught(
        questions(9),
        tmp_path / "t.jsonl",
        config(server, concurrency=2),
        examples=5,
        on_example=counts.append,
    )
    assert len(data.items) == sum(counts) == 5
    assert len(server.bodies) == 5 * 3
    assert most <= 2


def slow(number: int) -> Callable[[Body], str]:
    """Good replies, but this question takes one more search than the others."""

    def script(body: Body) -> str:
        once = about(body, number) and "\n2. " not in body["messages"][-1]["content"]
        return "Search: Who built the lighthouse?" if once else good(body)

    return script


def test_examples_come_in_the_order_of_the_questions(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    server.script = slow(0)
    data = lesson(server, file, count=3, examples=3, concurrency=3)
    assert [t.question.id for t in read_trajectories(file)] == ["q1", "q2", "q0"]
    assert [i.trajectory.question.id for i in data.items] == ["q0", "q1", "q2"]


# --- money: what was paid for is never asked again ---


def not_opened() -> Any:
    raise AssertionError("there is nothing to ask")


def test_what_is_finished_is_never_asked_again(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    server.script = lambda body: "Answer: Bo" if about(body, 1) else good(body)
    first = lesson(server, file, count=2, examples=2)
    assert first.left_out == {"wrong answer": ["q1"]}
    asked = len(server.bodies)
    assert lesson(server, file, count=2, examples=2) == first
    assert len(server.bodies) == asked
    taught(questions(2), file, config(server), examples=2, opened=not_opened)
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
    down = (503, {}, b"")
    script = slow(1)
    server.script = lambda body: (
        down if about(body, 1) and "\n2. " in body["messages"][-1]["content"] else script(body)
    )
    with pytest.raises(ModelServerError, match=r"HTTP 503 \(tried 3 times\)"):
        lesson(server, file, count=2, examples=2, concurrency=1)
    asked = len(server.bodies)
    assert [t.question.id for t in read_trajectories(file)] == ["q0"]
    server.script = good
    assert len(lesson(server, file, count=2, examples=2).items) == 2
    assert len(server.bodies) == asked + 3


def test_ctrl_c_keeps_what_is_finished(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    script = slow(8)
    server.script = script
    with pytest.raises(KeyboardInterrupt):
        taught(
            questions(9),
            file,
            config(server, concurrency=3),
            examples=9,
            on_example=lambda gained: signal.raise_signal(signal.SIGINT) if gained else None,
        )
    # All but the last end together: what the others wrote was paid for, too.
    assert [t.question.id for t in read_trajectories(file)] == [f"q{n}" for n in range(8)]
    server.bodies.clear()
    assert len(lesson(server, file, count=9, examples=9).items) == 9
    assert len(server.bodies) == 5


def test_a_search_that_fails_leaves_its_question_out_and_no_other(
    server: FakeServer, tmp_path: Path
) -> None:
    class Away(OnePassage):
        def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            if "never" in str(queries):
                raise RetrieverError("the search is away")
            return super().search(queries, k)

    file = tmp_path / "t.jsonl"
    server.script = lambda body: (
        "Search: never found"
        if about(body, 0) and "\n1. " in body["messages"][-1]["content"]
        else good(body)
    )
    data = taught(questions(2), file, config(server), retriever=Away(), examples=2)
    assert data.left_out == {"retriever_error": ["q0"]}
    assert [t.question.id for t in read_trajectories(file)] == ["q1"]
    server.script = lambda body: "Search: never found"
    for count in (1, 50):  # all of them: it is the search
        with pytest.raises(RetrieverError, match="the search is away"):
            taught(questions(count), tmp_path / "n", config(server), retriever=Away(), examples=50)
    assert not (tmp_path / "n").exists()


def test_a_corrected_gold_answer_counts_for_what_was_asked_before(
    server: FakeServer, tmp_path: Path
) -> None:
    server.script = good
    wrong = [Question("q0", "Who built lighthouse 0?", ("Bo",))]
    file = tmp_path / "t.jsonl"
    assert taught(wrong, file, config(server)).left_out == {"wrong answer": ["q0"]}
    asked = len(server.bodies)
    assert len(taught(questions(1), file, config(server)).items) == 1
    assert len(server.bodies) == asked


def test_a_file_of_another_student_is_taken_over(
    server: FakeServer, tmp_path: Path, tiny_engine: Any
) -> None:
    file = tmp_path / "t.jsonl"
    server.script = good
    (one,) = lesson(server, file).items
    asked = len(server.bodies)
    student = tiny_engine.tokenizer
    (other,) = taught(questions(1), file, config(server), tokenizer=student).items
    assert len(server.bodies) == asked
    assert other.trajectory.steps == one.trajectory.steps
    first = begin(questions(1)[0], METHOD, student).prompt_ids()
    assert other.trajectory.calls[0].prompt_ids == first
    # The file has none of the student's ids, and the teacher's only where it gives any.
    (told,) = read_trajectories(file)
    assert not any(call.prompt_ids or call.output_ids for call in told.calls)


def test_a_file_of_before_is_taken_over(server: FakeServer, tmp_path: Path) -> None:
    """Files of schema version 1 held the trajectory in the student's ids."""
    file = tmp_path / "t.jsonl"
    server.script = good
    (item,) = lesson(server, tmp_path / "new.jsonl").items
    values = json.loads(to_json(item.trajectory))
    del values["method"], values["truncated_sampling"]
    file.write_text(json.dumps({**values, "schema_version": 1}) + "\n")
    asked = len(server.bodies)
    assert lesson(server, file).items == [item]
    assert len(server.bodies) == asked


def test_a_file_of_another_method_is_taken_over_as_far_as_it_fits(
    server: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "t.jsonl"
    server.script = good
    lesson(server, file)
    asked = len(server.bodies)
    forced = SearcherMethod(max_steps=1)
    (item,) = taught(questions(1), file, config(server), method=forced).items
    assert item.trajectory.calls[-1].kind is CallKind.ANSWER
    for other in (
        SearcherMethod(max_steps=0),
        SearcherMethod(thought_tokens=2),
        open_method({"name": "direct"}),
        open_method({"name": "rag"}),  # it searches once, too, but for the question itself
    ):
        data = taught(questions(1), file, config(server), method=other)
        assert data.left_out == {"too long, or no trajectory of this method": ["q0"]}
    assert len(server.bodies) == asked


def test_passages_that_the_method_would_not_have_found_are_not_learned_from(
    server: FakeServer, tmp_path: Path
) -> None:
    class Two(OnePassage):
        def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            (found,) = super().search(queries, k)
            return [[*found, Passage("p2", "", "More.")][:k]]

    file = tmp_path / "t.jsonl"
    server.script = good
    settings: Any = {"retriever": Two(), "method": SearcherMethod(passages=2)}
    assert len(taught(questions(1), file, config(server), **settings).items) == 1
    settings["method"] = SearcherMethod(passages=1)
    data = taught(questions(1), file, config(server), **settings)
    assert data.left_out == {"too long, or no trajectory of this method": ["q0"]}


@pytest.mark.parametrize("name", ["searcher", "self-ask", "rag", "direct"])
def test_any_method_is_taught(
    server: FakeServer, tmp_path: Path, tiny_engine: Any, name: str
) -> None:
    server.script = lambda body: (
        "Answer: Ada Fenn" if "must begin with" in str(body["messages"]) else good(body)
    )
    method, student = open_method({"name": name}), tiny_engine.tokenizer
    data = taught(
        questions(1), tmp_path / "t.jsonl", config(server), tokenizer=student, method=method
    )
    (trajectory,) = [item.trajectory for item in data.items]
    assert (trajectory.method, trajectory.answer) == (name, "Ada Fenn")
    assert trajectory.trainable
    (told,) = read_trajectories(tmp_path / "t.jsonl")
    assert told.method == name
    assert told.steps == trajectory.steps


@pytest.mark.parametrize("line", ["[]", '{"question": 1}', "no json"])
def test_a_damaged_file_is_named(server: FakeServer, tmp_path: Path, line: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1: ") as caught:
        lesson(server, file)
    assert "\n" not in str(caught.value)


# --- the protocol ---


def test_the_request(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", f" {KEY}\n")
    server.script = good
    settings = {"temperature": 0.3, "max_tokens": 0, "extra": {"max_completion_tokens": 99}}
    lesson(server, tmp_path / "t.jsonl", api_key_env="MY_API_KEY", **settings)
    body = server.bodies[0]
    assert set(server.paths) == {"/v1/chat/completions"}
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert set(body) == {"model", "messages", "temperature", "seed", "max_completion_tokens"}
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("wise", 0.3, 99)
    ask = begin(questions(1)[0], METHOD, TOKENIZER).ask
    assert ask is not None
    assert body["messages"][1:] == [{"role": "user", "content": ask.prompt}]
    assert KEY not in (tmp_path / "t.jsonl").read_text()


def test_the_limit_of_tokens_and_the_temperature(server: FakeServer, tmp_path: Path) -> None:
    server.script = good
    lesson(server, tmp_path / "a.jsonl")
    lesson(server, tmp_path / "b.jsonl", max_tokens=0)
    lesson(server, tmp_path / "c.jsonl", max_tokens=300, temperature=0.0)
    think, record = METHOD.thought_tokens, METHOD.record_tokens
    sent = [(body["max_tokens"], body["temperature"]) for body in server.bodies]
    assert sent == [
        *[(512, 1.0)] * 3,
        *[(limit, 1.0) for limit in (think, record, think)],
        *[(300, 0.0)] * 3,
    ]


def test_a_service_that_takes_no_temperature_gets_none(server: FakeServer, tmp_path: Path) -> None:
    server.script = lambda body: (
        (400, {}, b"temperature is not supported") if "temperature" in body else good(body)
    )
    assert len(lesson(server, tmp_path / "t.jsonl").items) == 1
    assert ["temperature" in body for body in server.bodies] == [True, False, False, False]


def test_a_key_is_taken_from_the_named_variable_only(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = good
    lesson(server, tmp_path / "t.jsonl", api_key_env="OTHER_API_KEY")
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
    assert caplog.messages == [
        "teacher at teacher.example gets the key in OPENAI_API_KEY",
        "teacher at localhost:1 gets the key in OPENAI_API_KEY",
    ]
    ChatEndpoint(TeacherConfig("http://teacher.example/v1", "m"))
    assert "unencrypted" in caplog.text
    assert KEY not in caplog.text
    caplog.clear()
    monkeypatch.delenv("OPENAI_API_KEY")
    ChatEndpoint(TeacherConfig("http://teacher.example/v1", "m"))
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["HOME", "AWS_SECRET_ACCESS_KEY", "", "X_API_KEY\n", KEY])
def test_only_keys_of_services_are_ever_sent(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"teacher\.api_key_env must .* ends in _API_KEY"
    ) as caught:
        TeacherConfig("https://teacher.example/v1", "m", name)
    assert KEY not in str(caught.value)


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
        ((400, {}, b'{"error": "no such field"}'), 1, "HTTP 400.*no such field.*teacher"),
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
    server.script = lambda body: (400, {}, b"filtered") if about(body, 0) else good(body)
    file = tmp_path / "t.jsonl"
    data = lesson(server, file, count=3, examples=2)
    assert data.left_out == {"engine_error": ["q0"]}
    assert [i.trajectory.question.id for i in data.items] == ["q1", "q2"]
    server.script = good
    assert len(lesson(server, file, count=3, examples=3).items) == 3


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_refused_question_does_not_take_the_others_with_it(
    server: FakeServer, tmp_path: Path, refused: int
) -> None:
    server.script = lambda body: (400, {}, b"filtered") if about(body, refused) else good(body)
    data = lesson(server, tmp_path / "t.jsonl", count=3, examples=3)
    assert data.left_out == {"engine_error": [f"q{refused}"]}
    assert len(data.items) == 2


def test_a_question_that_is_refused_late_does_not_take_the_others_with_it(
    server: FakeServer, tmp_path: Path
) -> None:
    script = slow(0)
    server.script = lambda body: (
        (400, {}, b"filtered")
        if about(body, 0) and "\n2. " in body["messages"][-1]["content"]
        else script(body)
    )
    data = lesson(server, tmp_path / "t.jsonl", count=3, examples=3)
    assert data.left_out == {"engine_error": ["q0"]}
    assert [i.trajectory.question.id for i in data.items] == ["q1", "q2"]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_when_every_question_is_refused_it_is_the_settings(
    server: FakeServer, tmp_path: Path, concurrency: int
) -> None:
    server.script = lambda body: (400, {}, b"unknown field")
    settings = {"count": 50, "examples": 50, "concurrency": concurrency}
    assert "unknown field" in failure(server, tmp_path, **settings)
    assert len(server.bodies) <= 5


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

    server.script = lambda body: "Answer: Bo" if about(body, 1) else good(body)
    teacher = config(server, concurrency=1)
    recipe = Recipe(
        "taught",
        method=METHOD,
        warm_up=WarmUpConfig(examples=3, source="teacher"),
        gem=GemConfig(iterations=0),
        teacher=teacher,
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
            open_teacher=lambda: open_teacher(teacher),
            bars=Bars(False),
        ).run()

    assert run()["model"] == "warm_up/model"
    assert is_complete(tmp_path / "warm_up" / "model")
    event = next(read_jsonl(tmp_path / "metrics.jsonl"))
    assert (event["event"], event["examples"]) == ("data", 3)
    assert set(event["left_out"]) <= {"wrong answer"}
    asked = len(server.bodies)
    run()
    assert len(server.bodies) == asked


# --- a teacher that runs here ---


@pytest.fixture
def local(tmp_path: Path) -> TeacherConfig:
    """A teacher whose engine replies by a script, without a server."""
    rules = [
        {"contains": "Query:", "reply": FACT},
        {"contains": "\n1. ", "reply": "Answer: Ada Fenn"},
        {"contains": "Notes:", "reply": "Search: Who built the lighthouse?"},
    ]
    file = tmp_path / "script.jsonl"
    file.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    return TeacherConfig(model=str(file), engine="scripted")


def test_a_teacher_may_be_an_engine_of_this_machine(
    local: TeacherConfig, tmp_path: Path, tiny_engine: Any
) -> None:
    file, student = tmp_path / "t.jsonl", tiny_engine.tokenizer
    data = taught(questions(2), file, local, tokenizer=student, examples=2)
    assert [i.trajectory.question.id for i in data.items] == ["q0", "q1"]
    calls = data.items[0].trajectory.calls
    assert [student.decode(call.output_ids) for call in calls] == [
        "Search: Who built the lighthouse?",
        FACT,
        "Answer: Ada Fenn",
    ]
    assert calls[0].prompt_ids == begin(questions(1)[0], METHOD, student).prompt_ids()
    # It gives ids, but its own: they stand in the file, and the student never sees them.
    for told, item in zip(read_trajectories(file), data.items, strict=True):
        assert told.trainable
        assert told.calls[0].prompt_ids == begin(told.question, METHOD, TOKENIZER).prompt_ids()
        assert not any(call.log_probs for call in item.trajectory.calls)
    Path(local.model).unlink()
    assert taught(questions(2), file, local, tokenizer=student, examples=2) == data


def test_a_model_teaches_with_its_own_tokens(
    fluent_folder: Path, world: Any, world_retriever: Any, tmp_path: Path, tiny_engine: Any
) -> None:
    """The teacher's model spells otherwise than the student's, and is asked in its own words."""
    # Its few words have no system message, so it is opened without.
    teacher = TeacherConfig(model=str(fluent_folder), engine="transformers", temperature=0.0)
    student = tiny_engine.tokenizer
    method = dataclasses.replace(SMALL_WORLD, thought_tokens=64, record_tokens=96)
    file = tmp_path / "t.jsonl"
    data = taught(
        world.questions[:20],
        file,
        teacher,
        retriever=world_retriever,
        tokenizer=student,
        method=method,
        examples=2,
        opened=lambda: load_engine(fluent_folder, device="cpu"),
    )
    assert data.items
    told = {t.question.id: t for t in read_trajectories(file)}
    for item in data.items:
        trajectory = told[item.trajectory.question.id]
        assert exact_match(trajectory.answer, trajectory.question.answers) == 1
        assert item.trajectory.steps == trajectory.steps
        for ours, theirs in zip(item.trajectory.calls, trajectory.calls, strict=True):
            assert ours.output_ids != theirs.output_ids
            assert theirs.log_probs


def test_a_recipe_names_a_teacher_of_this_machine(
    local: TeacherConfig, tmp_path: Path, tiny_model_folder: Path
) -> None:
    from exsearch.jobs.train import train
    from exsearch.runs import is_complete

    passage = {"id": PASSAGE.id, "title": PASSAGE.title, "text": PASSAGE.text}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(passage) + "\n")
    (tmp_path / "questions.jsonl").write_text(
        "".join(to_json(question) + "\n" for question in questions(2))
    )
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "r"\n[model]\nname = "{tiny_model_folder}"\ndevice = "cpu"\n'
        '[data]\ncorpus = ["corpus.jsonl"]\ntrain = "questions.jsonl"\ndev = "questions.jsonl"\n'
        '[warm_up]\nexamples = 2\nsource = "teacher"\n'
        f'[teacher]\nengine = "scripted"\nmodel = "{local.model}"\n'
        "[gem]\niterations = 0\ndev_questions = 1\n"
    )
    folder, best = train(recipe, out=tmp_path / "run", bars=Bars(False))
    assert best["stage"] == "warm_up"
    assert is_complete(folder / "warm_up" / "model")
    told = list(read_trajectories(folder / "warm_up" / "teacher.jsonl"))
    assert {t.answer for t in told} == {"Ada Fenn"}
