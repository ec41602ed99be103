"""A scripted engine keeps the engine's contract, and its own tokenizer's ids are reversible."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.engines import load_engine
from exsearch.engines.base import GREEDY, Message, Request, Sampling
from exsearch.engines.scripted import ASSISTANT, END, USER, ScriptedEngine, ScriptedTokenizer
from exsearch.errors import DataError, EngineError, ModelError

TOKENIZER = ScriptedTokenizer()


def user(content):
    return Message(role="user", content=content)


def request(content, *, max_tokens=64, key=0):
    return Request(TOKENIZER.encode_chat([user(content)]), max_tokens, key)


def reply(engine, content, sampling=GREEDY, **options):
    return engine.generate([request(content, **options)], sampling)[0]


@given(st.text())
def test_ids_are_reversible_and_never_marks_of_turns(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert not {END, USER, ASSISTANT} & set(ids)
    assert all(0 <= i < 2**63 for i in ids)


def test_a_lone_surrogate_is_replaced():
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"


@given(st.binary(max_size=20))
def test_any_ids_decode(data):
    ids = [int.from_bytes(b"\x01" + data[i : i + 7], "big") for i in range(0, len(data), 7)]
    assert TOKENIZER.decode([USER, *ids, END]) == data.decode(errors="replace")


def test_a_reply_takes_about_a_token_a_word():
    assert len(TOKENIZER.encode("Search: In which city did Gregor Mendel grow his peas?")) == 12


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_turns_stand_where_the_chat_has_them(contents):
    roles = ["user", "assistant"]
    chat = [Message(role=roles[n % 2], content=c) for n, c in enumerate(contents)]
    ids = TOKENIZER.encode_chat(chat)
    marks = [i for i in ids if i in (END, USER, ASSISTANT)]
    assert marks == [m for n in range(len(chat)) for m in ([USER, ASSISTANT][n % 2], END)] + [
        ASSISTANT
    ]


@pytest.mark.parametrize("end", [(), (END,)])
def test_a_longer_chat_keeps_the_ids_before_it(end):
    prompt, output = TOKENIZER.encode_chat([user("a")]), TOKENIZER.encode("b")
    longer = TOKENIZER.extend_chat(prompt, (*output, *end), "c")
    assert longer == TOKENIZER.encode_chat(
        [user("a"), Message(role="assistant", content="b"), user("c")]
    )


def test_the_first_rule_that_fits_the_last_turn_replies():
    engine = ScriptedEngine([("peas", "first"), ("pea", "second"), ("Assistant: Answer:", "third")])
    assert engine.tokenizer.decode(reply(engine, "green peas").output_ids) == "first"
    assert engine.tokenizer.decode(reply(engine, "a pea").output_ids) == "second"
    earlier = [user("peas"), Message(role="assistant", content="pea"), user("x")]
    forced = (*TOKENIZER.encode_chat(earlier), *TOKENIZER.encode("Answer:"))
    assert engine.generate([Request(forced, 9)], GREEDY)[0].output_ids == (
        *TOKENIZER.encode("third"),
        END,
    )


def test_a_function_sees_the_whole_chat():
    seen = []
    engine = ScriptedEngine(lambda chat: seen.append(chat) or "ok")
    reply(engine, "one\ntwo")
    assert seen == ["User: one\ntwo\nAssistant: "]


def test_a_prompt_without_a_reply_is_named():
    with pytest.raises(EngineError, match="no reply for the prompt 'green beans"):
        reply(ScriptedEngine({"peas": "yes"}), "green beans")


def test_several_replies_are_samples_by_key():
    engine = ScriptedEngine({"": ["a", "b", "c"]})
    texts = {
        TOKENIZER.decode(reply(engine, "x", Sampling(), key=key).output_ids) for key in range(6)
    }
    assert texts == {"a", "b", "c"}
    assert TOKENIZER.decode(reply(engine, "x", GREEDY, key=1).output_ids) == "a"


def test_a_long_reply_is_cut():
    generation = reply(ScriptedEngine({"": "one two three"}), "x", max_tokens=2)
    assert TOKENIZER.decode(generation.output_ids) == "one two"
    assert generation.finish_reason == "length"
    assert reply(ScriptedEngine({"": "one"}), "x", max_tokens=2).finish_reason == "stop"


def test_log_probs_are_those_of_a_uniform_model_of_bytes():
    engine = ScriptedEngine({"": "héllo you"})
    generation = reply(engine, "x")
    assert sum(generation.log_probs) == pytest.approx(
        -(len("héllo you".encode()) + 1) * math.log(257)
    )
    assert generation.proposal_log_probs == generation.log_probs
    assert engine.log_prob([request("x").prompt_ids], [generation.output_ids]) == [
        generation.log_probs
    ]


def test_a_function_sets_the_likelihood_of_an_answer():
    engine = ScriptedEngine(
        {}, lambda chat, text: -1.5 if "peas" in chat and text == " yes" else -9
    )
    ids = (*TOKENIZER.encode(" yes"), END)
    scores = engine.log_prob([request("peas").prompt_ids, request("x").prompt_ids], [ids, ids])
    assert scores == [(0.0, -1.5), (0.0, -9.0)]


def test_there_are_no_weights_to_load(tmp_path):
    with pytest.raises(ModelError, match="no weights"):
        ScriptedEngine({}).load_weights(tmp_path)


def test_a_script_file_is_a_model(tmp_path):
    file = tmp_path / "script.jsonl"
    rules = [{"contains": "pea", "reply": "green"}, {"contains": "", "reply": ["a", "b"]}]
    file.write_text("\n".join(map(json.dumps, rules)) + "\n\n")
    engine = load_engine(file, engine="scripted")
    assert TOKENIZER.decode(reply(engine, "a pea").output_ids) == "green"
    assert TOKENIZER.decode(reply(engine, "x").output_ids) == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"s\.jsonl: no rule in it"),
        ('{"contains": "a"}', r"s\.jsonl:1: expected .* got {'contains': 'a'}"),
        ('{"contains": "a", "reply": "b"}\n{"contains": 1, "reply": "b"}', r"s\.jsonl:2: expected"),
        ('{"contains": "a", "reply": []}', "expected"),
        ("[]", r"s\.jsonl:1: expected"),
        ("{", r"s\.jsonl:1: not JSON"),
    ],
)
def test_a_bad_script_is_named_by_line(tmp_path, text, message):
    file = tmp_path / "s.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        ScriptedEngine.from_file(file)


def test_a_script_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: no such script of the engine"):
        ScriptedEngine.from_file(tmp_path / "none.jsonl")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        ScriptedEngine.from_file(tmp_path / "latin")
