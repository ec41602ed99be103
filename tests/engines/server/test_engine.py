"""The openai engine asks a real HTTP server on this machine, which replies by a script."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from exsearch.agent.replay import worked_examples
from exsearch.agent.rollout import rollout
from exsearch.engines import load_engine
from exsearch.engines.base import GREEDY, Generation, Message, Request, Sampling
from exsearch.engines.server.config import EndpointConfig
from exsearch.engines.server.endpoint import ChatEndpoint
from exsearch.engines.server.engine import OpenAIEngine
from exsearch.engines.text import TextTokenizer
from exsearch.errors import ConfigError, EngineError, ModelError, ModelServerError
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import CallKind, StopReason, Trajectory, from_json, to_json
from exsearch.searcher import Searcher
from exsearch.training.e_step import EStepConfig, sample_and_weigh, weigh
from exsearch.training.warm_up import warm_up_data

TOKENIZER = TextTokenizer()


def engine(server: FakeServer, **settings: Any) -> OpenAIEngine:
    own = {k: settings.pop(k) for k in ("system_prompt", "template_kwargs") if k in settings}
    quick = {"max_tokens": 0, "retries": 2, "backoff": 0.0, "timeout": 20.0}
    return OpenAIEngine(EndpointConfig(server.url, "served", **{**quick, **settings}), **own)


def user(content: str) -> Message:
    return Message(role="user", content=content)


def request(content: str = "x", max_tokens: int = 9, key: int = 0) -> Request:
    return Request(TOKENIZER.encode_chat([user(content)]), max_tokens, key)


def text(reply: Generation | EngineError) -> str:
    assert isinstance(reply, Generation), reply
    return TOKENIZER.decode(reply.output_ids)


def failure(asking: OpenAIEngine, requests: int = 1) -> str:
    with pytest.raises(ModelServerError) as caught:
        asking.generate([request(str(n)) for n in range(requests)], GREEDY)
    message = str(caught.value)
    assert "\n" not in message
    assert KEY not in message
    return message


# --- ids that stand for messages ---


@given(st.lists(st.text(), min_size=1, max_size=4), st.text())
def test_a_prompt_reads_back_as_the_messages_it_was_made_of(contents: list[str], forced: str):
    roles: Any = ["user", "assistant"]
    chat = [Message(role=roles[n % 2], content=c) for n, c in enumerate(contents)]
    ids = (*TOKENIZER.encode_chat(chat), *TOKENIZER.encode(forced))
    assert TOKENIZER.messages(ids) == (chat, forced)


@pytest.mark.parametrize("end", [(), (TOKENIZER.end_id,)])
def test_a_chat_that_went_on_reads_back(end: tuple[int, ...]):
    prompt = TOKENIZER.encode_chat([user("a")])
    ids = TOKENIZER.extend_chat(prompt, (*TOKENIZER.encode("b"), *end), "c")
    said = [user("a"), Message(role="assistant", content="b"), user("c")]
    assert TOKENIZER.messages(ids) == (said, "")


# --- the request ---


def test_the_request(server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_API_KEY", KEY)
    server.script = lambda body: "yes"
    asking = engine(server, api_key_env="MY_API_KEY", system_prompt="Be brief.")
    asking.generate([request("Who?", 7, key=2**31 + 5)], Sampling(0.5, 0.9))
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.bodies == [
        {
            "model": "served",
            "messages": [{"role": "system", "content": "Be brief."}, user("Who?")],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 7,
            "seed": 5,
        }
    ]


def test_a_greedy_request_says_no_more_than_it_must(server: FakeServer):
    server.script = lambda body: "yes"
    engine(server).generate([request()], GREEDY)
    assert server.bodies[0].keys() == {"model", "messages", "temperature", "max_tokens"}
    assert "authorization" not in server.headers[0]


def test_variables_of_the_chat_template_are_sent(server: FakeServer):
    server.script = lambda body: "yes"
    engine(server, template_kwargs={"enable_thinking": False}).generate([request()], GREEDY)
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_server_that_wants_other_fields_gets_them(
    server: FakeServer, caplog: pytest.LogCaptureFixture
):
    def script(body: Body) -> Answer | str:
        if "max_tokens" in body:
            return 400, {}, b"'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        return (422, {}, b"extra fields not permitted: seed") if "seed" in body else "yes"

    server.script = script
    asking = engine(server)
    assert [text(r) for r in asking.generate([request()] * 3, Sampling())] == ["yes"] * 3
    assert len(server.bodies) == 5
    assert server.bodies[-1]["max_completion_tokens"] == 9
    assert caplog.text.count("no seed") == 1


# --- the reply ---


@pytest.mark.parametrize(
    ("reply", "wanted", "reason"),
    [
        (completion("yes"), "yes", "stop"),
        (completion("yes", "length"), "yes", "length"),
        (completion("yes", None), "yes", "stop"),
        (completion("<think>\nno\n</think>\n\nyes"), "yes", "stop"),
        (completion(None), "", "stop"),
        (completion("", "length"), "", "length"),
    ],
)
def test_replies(server: FakeServer, reply: Answer, wanted: str, reason: str):
    server.script = lambda body: reply
    (generation,) = engine(server).generate([request()], GREEDY)
    assert text(generation) == wanted
    assert isinstance(generation, Generation)
    assert generation.finish_reason == reason
    assert (generation.output_ids[-1:] == (TOKENIZER.end_id,)) == (reason == "stop")
    assert generation.log_probs == generation.proposal_log_probs == ()


def test_replies_come_in_the_order_of_requests_a_few_at_once(server: FakeServer):
    now, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def script(body: Body) -> str:
        nonlocal now, most
        said = body["messages"][-1]["content"]
        with lock:
            now += 1
            most = max(most, now)
        if said != "0":  # the first goes alone
            together.wait(20)
        with lock:
            now -= 1
        return said

    server.script = script
    asking = engine(server, concurrency=3)
    replies = asking.generate([request(str(n)) for n in range(10)], GREEDY)
    assert [text(r) for r in replies] == [str(n) for n in range(10)]
    assert most == 3
    assert asking.generate([], GREEDY) == []


def test_it_works_where_an_event_loop_is_running(server: FakeServer):
    server.script = lambda body: "yes"
    asking = engine(server)

    async def notebook() -> str:
        return text(asking.generate([request()], GREEDY)[0])

    assert asyncio.run(notebook()) == "yes"


def test_a_reply_that_must_begin_somehow_is_asked_for_in_the_last_turn(server: FakeServer):
    server.script = lambda body: "Answer: Brno"
    forced = (*request("Who?").prompt_ids, *TOKENIZER.encode("Answer:"))
    (reply,) = engine(server).generate([Request(forced, 9)], GREEDY)
    assert text(reply) == " Brno"
    wanted = 'Who?\nYour reply must begin with "Answer:"'
    assert server.bodies[0]["messages"] == [user(wanted)]


# --- trajectories ---


@pytest.mark.parametrize("context", ["notes", "transcript"])
@pytest.mark.parametrize("max_steps", [3, 1])
def test_a_rollout(server: FakeServer, context: Any, max_steps: int):
    def script(body: Body) -> str:
        last = body["messages"][-1]["content"]
        done = last.startswith("Go on.") or "must begin" in last
        return "Answer: Ada Fenn" if done else good(body)

    server.script = script
    method = SearcherMethod(max_steps=max_steps, passages=1, context=context)
    (t,) = rollout(questions(1), engine(server), OnePassage(), method=method)
    assert t.answer == "Ada Fenn"
    assert t.stop_reason is (StopReason.MAX_STEPS if max_steps == 1 else StopReason.ANSWERED)
    assert [e.text for e in t.evidence] == ["Ada Fenn built the lighthouse of Quillmoor."]
    kinds = [CallKind.THINK, CallKind.RECORD, CallKind.ANSWER if max_steps == 1 else CallKind.THINK]
    assert [call.kind for call in t.calls] == kinds
    assert not any(call.prompt_ids or call.output_ids for call in t.calls)
    assert not t.trainable
    assert t.answer_start is None
    assert from_json(Trajectory, to_json(t)) == t
    roles = [m["role"] for m in server.bodies[-1]["messages"]]
    assert roles == (["user", "assistant"] * 2 if context == "transcript" else []) + ["user"]
    if context == "transcript":
        assert server.bodies[-1]["messages"][3]["content"] == FACT


@pytest.mark.parametrize("answer", ['Answer:"Ada Fenn"', "Answer:Ada Fenn", "Answer: 'Ada' (F.)"])
def test_no_token_straddles_frame_and_answer(server: FakeServer, answer: str):
    server.script = lambda body: answer
    (t,) = rollout(questions(1), engine(server), OnePassage())
    assert t.answer == answer.removeprefix("Answer:").strip()


def test_worked_examples_are_sent_as_turns(
    server: FakeServer, sample_questions: Any, sample_retriever: Any
):
    server.script = good
    method = SearcherMethod(max_steps=3, passages=1)
    asking = engine(server, system_prompt="")
    data = warm_up_data(sample_questions, sample_retriever, asking.tokenizer, method, examples=1)
    solved = [item.trajectory for item in data.items]
    examples = worked_examples(solved, method, asking.tokenizer)
    rollout(questions(1), asking, OnePassage(), method=method, examples=examples)
    system, shown, said, asked = server.bodies[0]["messages"]
    assert [m["role"] for m in (system, shown, said, asked)] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert said["content"].startswith("Search: ")


def test_what_it_wrote_can_not_be_weighed(server: FakeServer, tmp_path: Path):
    server.script = good
    asking = engine(server)
    trajectories = rollout(questions(1), asking, OnePassage())
    with pytest.raises(ValueError, match=r"'q0#0' carries no token ids.*--engine transformers"):
        weigh(trajectories, asking)
    file = tmp_path / "t.jsonl"
    args = (asking, OnePassage(), file, EStepConfig(samples=2), SearcherMethod())
    sample_and_weigh(questions(2), *args, seed=0, iteration=0)
    lines = file.read_text().splitlines()
    assert [from_json(Trajectory, line).answer for line in lines] == ["Ada Fenn"] * 4
    assert not any('"weight"' in line for line in lines)


def test_there_are_neither_log_probs_nor_weights(server: FakeServer, tmp_path: Path):
    with pytest.raises(EngineError, match=r"gives no log-probs.*--engine transformers"):
        engine(server).log_prob([(1,)], [(2,)])
    with pytest.raises(ModelError, match="has no weights to replace"):
        engine(server).load_weights(tmp_path)


def test_samples_differ_by_their_seeds(server: FakeServer):
    server.script = good
    rollout(questions(2), engine(server), OnePassage(), samples=2, seed=7)
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == len(seeds) == 12
    server.bodies.clear()
    rollout(questions(2), engine(server), OnePassage(), samples=2, seed=7)
    assert sorted(body["seed"] for body in server.bodies) == sorted(seeds)


# --- faults ---


@pytest.mark.parametrize(
    ("reply", "requests", "words"),
    [
        ((401, {}, b"bad key"), 1, r"model at 127.*HTTP 401; check the key.*OPENAI_API_KEY"),
        ((404, {}, b"no such model"), 1, "HTTP 404 .'no such model'.*base_url.*model's name"),
        ((429, {}, b""), 3, "HTTP 429 .tried 3 times.*run the same command again later"),
        ((503, {}, b""), 3, "HTTP 503 .tried 3 times.*server is up"),
        ((307, {"Location": "http://127.0.0.1:1/"}, b""), 1, "a redirect, which is not followed"),
        ((200, {}, b"<html>"), 3, "not a chat completion"),
        ((200, {}, b'{"choices": []}'), 3, "not a chat completion"),
        (
            (400, {}, b"no such field"),
            5,
            "HTTP 400 .'no such field'.; check --base-url .*, --model",
        ),
    ],
)
def test_a_server_that_can_not_be_used(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, reply: Answer, requests: int, words: str
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = lambda body: reply
    message = failure(engine(server), requests=50)
    assert re.search(words, message), message
    assert len(server.bodies) == requests


def test_a_server_that_is_not_there(server: FakeServer):
    server.server.server_close()
    message = failure(engine(server), requests=50)
    assert "can't be reached (ConnectError) (tried 3 times)" in message


def test_a_server_that_goes_away_ends_the_rollout_without_a_flood(server: FakeServer):
    asked = 0

    def script(body: Body) -> Answer | str:
        nonlocal asked
        asked += 1
        return good(body) if asked <= 40 else (503, {}, b"")

    server.script = script
    with pytest.raises(ModelServerError, match="HTTP 503"):
        rollout(questions(40), engine(server, concurrency=16, retries=5), OnePassage())
    assert len(server.bodies) <= 40 + 16 + 4 * 5


def test_few_ask_again_at_once(server: FakeServer):
    now, most, lock = 0, 0, threading.Lock()
    failed: set[str] = set()

    def script(body: Body) -> Answer | str:
        nonlocal now, most
        said = body["messages"][-1]["content"]
        if said != "0" and said not in failed:
            failed.add(said)
            return 503, {}, b""
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.01)
        with lock:
            now -= 1
        return said

    server.script = script
    replies = engine(server, concurrency=16).generate([request(str(n)) for n in range(17)], GREEDY)
    assert [text(r) for r in replies] == [str(n) for n in range(17)]
    assert most <= 4


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_ends_its_own_trajectory(server: FakeServer, status: int):
    server.script = lambda body: (
        (status, {}, b"too long") if "lighthouse 3?" in str(body["messages"]) else good(body)
    )
    trajectories = rollout(questions(6), engine(server), OnePassage())
    reasons = [t.stop_reason for t in trajectories]
    assert reasons.count(StopReason.ANSWERED) == 5
    assert reasons[3] is StopReason.ENGINE_ERROR
    assert "too long" in str(trajectories[3].error)
    assert len(server.bodies) == 5 * 3 + 1


def test_a_filtered_reply_ends_its_own_trajectory(server: FakeServer):
    server.script = lambda body: (
        completion("", "content_filter") if "lighthouse 0?" in str(body["messages"]) else good(body)
    )
    first, second = rollout(questions(2), engine(server), OnePassage())
    assert "filtered" in str(first.error)
    assert second.answer == "Ada Fenn"


def test_one_refused_question_is_an_error_of_its_own(server: FakeServer):
    server.script = lambda body: (400, {}, b"too long")
    with pytest.raises(EngineError, match=r"HTTP 400.*too long"):
        Searcher(engine(server), OnePassage()).ask("Who?")
    assert len(server.bodies) == 1


# --- settings ---


def test_an_engine_by_its_address(server: FakeServer):
    server.script = lambda body: "yes"
    asking = load_engine("served", engine="openai", base_url=server.url, batch_size=3)
    assert text(asking.generate([request()], GREEDY)[0]) == "yes"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "openai"}, r"model.base_url must be http.*see --base-url"),
        ({"base_url": "http://localhost/v1"}, "is for engine openai, not transformers"),
        ({"engine": "openai", "base_url": "localhost/v1"}, "model.base_url must be http"),
        ({"engine": "openai", "base_url": "http://me:secret@host/v1"}, "without user, key or"),
    ],
)
def test_addresses_that_can_not_be_used(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        load_engine("served", **settings)
    assert "secret" not in str(caught.value)


def test_no_control_token_is_sent(server: FakeServer):
    server.script = lambda body: "<|im_end|> [INST]"
    asking = engine(server, system_prompt="Write <think> first.")
    chat = TOKENIZER.extend_chat(
        TOKENIZER.encode_chat([user("a <|im_end|> b")]), TOKENIZER.encode("</s>"), "\uff1c|x|\uff1e"
    )
    asking.generate([Request(chat, 9)], GREEDY)
    sent = [message["content"] for message in server.bodies[0]["messages"]]
    assert sent == ["Write <think> first.", "a < |im_end|> b", "< /s>", "\uff1c |x|\uff1e"]


@pytest.mark.parametrize("address", ["http://a..b/v1", "http://x/\ud800", "http://[zz]", "http://"])
def test_an_address_that_is_none(address):
    with pytest.raises(ConfigError, match="base_url"):
        ChatEndpoint(EndpointConfig(address, "m"))
