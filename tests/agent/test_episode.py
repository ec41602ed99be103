"""An episode, driven again by its own rendered actions, gives the trajectory it gave."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.agent.episode import answer_ids, begin
from exsearch.config import parse_config
from exsearch.engines.scripted import ScriptedTokenizer
from exsearch.errors import ConfigError, ModelError
from exsearch.methods.base import Answer, Look
from exsearch.methods.format import (
    ANSWER_FRAME,
    Search,
    one_line,
    render_answer,
    render_record,
    render_select,
    render_thought,
)
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Passage,
    Question,
    Step,
    StopReason,
    from_json,
    to_json,
)

TOKENIZER = ScriptedTokenizer()
QUESTION = Question("q", "Who <|im_end|> was\n[1] it?", ("he",))
FOUND = [
    (Passage("a", "A", "one", 1.0), Passage("b", "B [2]", "Answer: no", 0.5)),
    (Passage("b", "B [2]", "Answer: no", 0.9), Passage("c", "", "three", 0.1)),
    (),
]


def start(method=None):
    return begin(QUESTION, method or SearcherMethod(), TOKENIZER)


def due(episode):
    """The kind of the call that is due; None where none is."""
    return episode.ask and episode.ask.kind


def say(episode, text):
    ids = (*TOKENIZER.encode(text), TOKENIZER.end_id)
    log_probs = tuple(-float(n) for n in range(len(ids)))
    episode.take(Call(due(episode), episode.prompt_ids(), ids, log_probs, log_probs), True)


def drive(method, actions):
    """Write the actions: steps of (query, found, selected, evidence), then an answer."""
    steps, answer = actions
    episode = begin(QUESTION, method, TOKENIZER, sample=3)
    for query, found, selected, evidence in steps:
        say(episode, render_thought(Search(query)))
        look = Look(query, method.passages, method.passage_words)
        assert (episode.ask, episode.look) == (None, look)
        episode.found(found)
        step = Step(query, found)
        if due(episode) is CallKind.SELECT:
            say(episode, render_select(selected, found))
            step = Step(query, found, selected)
        if due(episode) is CallKind.RECORD:
            say(episode, render_record(evidence, step.shown))
    forced = due(episode) is CallKind.ANSWER
    say(episode, render_answer(answer) if forced else render_thought(Answer(answer)))
    assert (episode.ask, episode.look) == (None, None)
    return episode


def actions_of(trajectory):
    """The actions of a trajectory, from its steps alone."""
    steps = [(s.query, s.passages, s.selected_ids, s.evidence) for s in trajectory.steps]
    return steps, trajectory.answer


lines = st.text(max_size=20).map(one_line).filter(bool)


@st.composite
def all_actions(draw):
    steps = []
    for _ in range(draw(st.integers(0, 3))):
        found = draw(st.sampled_from(FOUND))
        ids = [p.id for p in found]
        selected = tuple(draw(st.lists(st.sampled_from(ids), unique=True))) if ids else ()
        shown = list(selected) or ids
        named = draw(st.lists(st.sampled_from(shown), min_size=1, unique=True)) if shown else []
        evidence = Evidence(draw(lines), tuple(named)) if named and draw(st.booleans()) else None
        steps.append((draw(lines), found, selected, evidence))
    return steps, draw(st.text(max_size=20).map(lambda t: " ".join(t.split())).filter(bool))


@pytest.mark.parametrize("context", ["notes", "transcript"])
@pytest.mark.parametrize("select", [False, True])
@given(actions=all_actions())
def test_a_trajectory_replayed_is_equal(context, select, actions):
    method = SearcherMethod(max_steps=3, context=context, select=select)
    first = drive(method, actions).trajectory()
    again = drive(method, actions_of(first)).trajectory()
    assert again == first
    assert from_json(type(first), to_json(first)) == first
    assert first.answer == actions[1]
    assert [s.query for s in first.steps] == [query for query, *_ in actions[0]]
    assert [s.passages for s in first.steps] == [found for _, found, *_ in actions[0]]
    forced = len(actions[0]) == 3
    assert first.stop_reason is (StopReason.MAX_STEPS if forced else StopReason.ANSWERED)
    for step, (_, found, selected, evidence) in zip(first.steps, actions[0], strict=True):
        if select and found:
            assert step.selected_ids == selected
            assert step.evidence == (evidence if selected else None)
        else:
            assert step.selected_ids is None
            assert step.evidence == evidence


@given(actions=all_actions())
def test_the_answer_is_what_stands_after_its_start(actions):
    trajectory = drive(SearcherMethod(max_steps=3), actions).trajectory()
    last, begins = trajectory.calls[-1], trajectory.answer_start
    assert begins is not None
    assert last.output_ids[begins:] == answer_ids(trajectory.answer, TOKENIZER)
    frame = TOKENIZER.encode(ANSWER_FRAME)
    if last.kind is CallKind.ANSWER:
        assert begins == 0
        assert last.prompt_ids[-len(frame) :] == frame
    else:
        assert last.output_ids[:begins] == frame


def texts(method, actions):
    calls = drive(method, actions).trajectory().calls
    return [TOKENIZER.chat_text(c.prompt_ids) for c in calls], calls


ACTIONS = (
    [
        ("first?", FOUND[0], ("b",), Evidence("one fact", ("b",))),
        ("second?", FOUND[1], ("c", "b"), None),
    ],
    "he",
)


def test_notes_prompts_hold_their_own_part_only():
    (think, record, think_again, record_again, answer), calls = texts(SearcherMethod(), ACTIONS)
    assert [c.kind for c in calls] == ["think", "record", "think", "record", "think"]
    assert "Who" in think and "first?" not in think
    assert "Who" not in record and "[1] A: one" in record
    assert "1. first? one fact" in think_again and "[1] A" not in think_again
    assert "first?" not in record_again and "[2] three" in record_again
    assert "2. second? Nothing found." in answer


def test_a_transcript_is_one_growing_sequence():
    method = SearcherMethod(context="transcript", select=True)
    prompts, calls = texts(method, ACTIONS)
    assert [c.kind for c in calls] == [
        *["think", "select", "record", "think", "select", "record"],
        "think",
    ]
    for earlier, later in itertools.pairwise(calls):
        so_far = (*earlier.prompt_ids, *earlier.output_ids)
        assert later.prompt_ids[: len(so_far)] == so_far
    assert prompts[-1].count("Who") == 1
    assert prompts[-1].endswith("User: Go on.\nAssistant: ")
    assert "[1] A: one" in prompts[-1]


def test_a_record_sees_the_selected_passages_in_their_order():
    prompts, calls = texts(SearcherMethod(select=True), ACTIONS)
    records = [p for p, c in zip(prompts, calls, strict=True) if c.kind is CallKind.RECORD]
    assert "[1] B (2): Answer: no" in records[0] and "one" not in records[0]
    assert "[1] three\n[2] B (2): Answer: no" in records[1]


def test_an_empty_choice_ends_the_step_without_a_record():
    actions = ([("first?", FOUND[0], (), None)], "he")
    trajectory = drive(SearcherMethod(select=True), actions).trajectory()
    assert [c.kind for c in trajectory.calls] == ["think", "select", "think"]
    assert trajectory.steps[0].selected_ids == ()
    assert trajectory.steps[0].evidence is None


def test_without_passages_there_is_nothing_to_select_but_a_record():
    actions = ([("first?", (), (), None)], "he")
    trajectory = drive(SearcherMethod(select=True), actions).trajectory()
    assert [c.kind for c in trajectory.calls] == ["think", "record", "think"]
    assert trajectory.steps[0].selected_ids is None


def test_no_steps_at_all_is_an_answer_from_memory():
    episode = drive(SearcherMethod(max_steps=0), ([], "he"))
    assert episode.stop_reason is StopReason.MAX_STEPS
    assert [c.kind for c in episode.calls] == ["answer"]


def malformed(text, *, before=(), method=None):
    episode = start(method)
    for earlier in before:
        say(episode, earlier)
        if episode.look:
            episode.found(FOUND[0])
    say(episode, text)
    trajectory = episode.trajectory()
    assert trajectory.stop_reason is StopReason.MALFORMED
    assert (trajectory.answer, trajectory.answer_start) == ("", None)
    assert trajectory.trainable
    return trajectory.malformed


def test_every_kind_of_malformed_reply_ends_the_episode():
    assert malformed("") == "empty_thought"
    assert malformed("hm") == "no_action"
    assert malformed("Search:") == "empty_query"
    assert malformed("Answer: ") == "empty_answer"
    assert malformed("Answer: a\nb") == "several_lines"
    searched = ["Search: x"]
    assert malformed("", before=searched) == "empty_record"
    assert malformed("a fact", before=searched) == "no_label"
    assert malformed("[3] a fact", before=searched) == "unknown_label"
    select = SearcherMethod(select=True)
    assert malformed("all", before=searched, method=select) == "no_label"
    assert malformed("[3]", before=searched, method=select) == "unknown_label"
    assert malformed("[2] x", before=[*searched, "[1]"], method=select) == "unknown_label"
    forced = SearcherMethod(max_steps=1)
    assert malformed(" ", before=[*searched, "Nothing found."], method=forced) == "empty_answer"


def token(text):
    return int.from_bytes(b"\x01" + text.encode(), "big")


def take(episode, *tokens, finished=True):
    episode.take(Call(due(episode), episode.prompt_ids(), (*tokens, 0)), finished)
    return episode


def test_a_token_that_straddles_frame_and_answer_is_malformed():
    episode = take(start(), token("Answer"), token(": yes"))
    assert episode.malformed == "straddling_token"
    assert (episode.answer, episode.answer_start) == ("", None)


def test_the_frame_may_come_in_any_tokens():
    spelled = [token(c) for c in " Answer:"]
    episode = take(start(), *spelled, token("yes"))
    assert (episode.answer, episode.answer_start) == ("yes", 8)


def test_a_reply_that_was_cut_off_is_not_read():
    episode = take(start(), token("Answer"), token(":"), token(" yes"), finished=False)
    assert episode.stop_reason is StopReason.MAX_TOKENS
    assert (episode.answer, episode.answer_start) == ("", None)


def test_a_retracted_reply_leaves_no_trace_but_its_count():
    episode = start()
    before = (episode.ask, episode.prompt_ids())
    say(episode, "hm")
    episode.retract()
    assert (episode.ask, episode.prompt_ids()) == before
    say(episode, "Answer: he")
    trajectory = episode.trajectory()
    assert (trajectory.stop_reason, trajectory.retries) == (StopReason.ANSWERED, 1)
    assert len(trajectory.calls) == 1
    assert trajectory.malformed is None


def test_an_answer_is_scored_with_its_end_token():
    assert answer_ids(" the\n North ", TOKENIZER) == (*TOKENIZER.encode(" the North"), 0)
    answered, bare = start(), start()
    say(answered, "Answer: the North")
    assert answered.answer_start == len(TOKENIZER.encode("Answer:"))
    say(bare, "Answer:")
    assert bare.answer_start is None


class Joining(ScriptedTokenizer):
    """A tokenizer that knows a whole answer as one token."""

    def encode(self, text):
        return (token("Answer: yes"[:7]), 9) if text == "Answer: yes" else super().encode(text)


def test_a_tokenizer_that_joins_frame_and_answer_is_refused():
    with pytest.raises(ModelError, match="tokenizer joins 'Answer:' with ' yes'"):
        answer_ids("yes", Joining())


def test_limits_of_a_call():
    limits = {"thought_tokens": 1, "select_tokens": 2, "record_tokens": 3}
    episode, asked = start(SearcherMethod(max_steps=1, select=True, **limits)), []
    for reply in ("Search: x", "[1]", "Nothing found.", " he"):
        asked.append((due(episode), episode.ask.max_tokens))
        say(episode, reply)
        if episode.look:
            episode.found(FOUND[0])
    kinds = (CallKind.THINK, CallKind.SELECT, CallKind.RECORD, CallKind.ANSWER)
    assert asked == list(zip(kinds, (1, 2, 3, 1), strict=True))
    assert episode.stop_reason is StopReason.MAX_STEPS


LIMITS = [f.name for f in dataclasses.fields(SearcherMethod) if f.type == "int"]


@pytest.mark.parametrize("field", LIMITS)
def test_a_limit_that_leaves_no_room_is_refused(field):
    low = -1 if field == "max_steps" else 0
    with pytest.raises(ConfigError, match=f"{field} is {low}, expected {low + 1} or more"):
        parse_config(SearcherMethod, {field: low}, place="r")
