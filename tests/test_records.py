"""Records survive JSON, also -inf; older lines still load and newer ones are refused."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.records import (
    SCHEMA_VERSION,
    Call,
    CallKind,
    Evidence,
    Hop,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
    from_json,
    to_json,
)
from exsearch.records.question import is_web_address

texts = st.text(max_size=12)
floats = st.floats(allow_nan=False)
counts = st.integers(0, 2**40)


def tuples(items, size=3):
    return st.lists(items, max_size=size).map(tuple)


passages = st.builds(Passage, texts, texts, texts, st.none() | floats)
hops = st.builds(Hop, texts, texts, st.none() | texts, st.none() | texts)
questions = st.builds(
    Question, texts, texts, tuples(texts), tuples(texts), tuples(hops), st.none() | texts
)
evidence = st.builds(Evidence, texts, tuples(texts))
steps = st.builds(Step, texts, tuples(passages), st.none() | tuples(texts), st.none() | evidence)
calls = st.builds(
    Call, st.sampled_from(CallKind), tuples(counts), tuples(counts), tuples(floats), tuples(floats)
)
trajectories = st.builds(
    Trajectory,
    questions,
    tuples(steps, 2),
    tuples(calls, 2),
    texts,
    st.sampled_from(StopReason),
    counts,
    counts,
    st.none() | counts,
    st.none() | texts,
    counts,
    st.none() | texts,
    floats,
    texts,
    st.booleans(),
)
weighted = st.builds(
    WeightedTrajectory, trajectories, floats, tuples(floats), tuples(tuples(counts))
)
every_record = st.one_of(passages, hops, questions, evidence, steps, calls, trajectories, weighted)

QUESTION = Question("q", "Who?", ("a", "b"))


def trajectory(**fields):
    values = {"steps": (), "calls": (), "answer": "", "stop_reason": StopReason.ANSWERED}
    return Trajectory(QUESTION, **(values | fields))


@given(every_record)
def test_json_round_trip(record):
    line = to_json(record)
    assert "\n" not in line
    assert json.loads(line)["schema_version"] == SCHEMA_VERSION
    assert from_json(type(record), line) == record
    assert from_json(type(record), line.encode()) == record


def test_every_record_is_in_the_round_trip():
    import exsearch.records as module

    kinds = {v for v in vars(module).values() if dataclasses.is_dataclass(v)}
    assert kinds == {Passage, Hop, Question, Evidence, Step, Call, Trajectory, WeightedTrajectory}


@given(trajectories, st.sampled_from([-math.inf, math.inf]))
def test_infinite_scores_are_json_that_any_reader_takes(z, score):
    line = to_json(WeightedTrajectory(z, 0.0, (score,), ((1,),)))

    def refuse(text):
        raise AssertionError(f"not JSON: {text}")

    json.loads(line, parse_constant=refuse)
    assert from_json(WeightedTrajectory, line).answer_log_probs == (score,)


def version_1(record):
    """A line as version 1 wrote it: there was one method, and nothing on how tokens were drawn."""
    fields = json.loads(to_json(record)) | {"schema_version": 1}
    trajectory_fields = fields.get("trajectory", fields)
    del trajectory_fields["method"], trajectory_fields["truncated_sampling"]
    return json.dumps(fields)


def version_0(record):
    """A line as version 0 wrote it: evidence as plain text, and no version."""
    fields = json.loads(version_1(record))
    del fields["schema_version"]
    for step in fields.get("trajectory", fields)["steps"]:
        step["evidence"] = step["evidence"] and step["evidence"]["text"]
    return json.dumps(fields)


@given(trajectories)
def test_version_1_still_loads(z):
    expected = dataclasses.replace(z, method="searcher", truncated_sampling=False)
    assert from_json(Trajectory, version_1(z)) == expected
    w = WeightedTrajectory(z, 0.5, (-1.0,), ((1,),))
    assert from_json(WeightedTrajectory, version_1(w)) == dataclasses.replace(
        w, trajectory=expected
    )


@given(trajectories)
def test_version_0_still_loads(z):
    def without_sources(step):
        return dataclasses.replace(
            step, evidence=step.evidence and Evidence(step.evidence.text, ())
        )

    expected = dataclasses.replace(
        z,
        steps=tuple(map(without_sources, z.steps)),
        method="searcher",
        truncated_sampling=False,
    )
    assert from_json(Trajectory, version_0(z)) == expected
    w = WeightedTrajectory(z, 0.5, (-1.0,), ((1,),))
    assert from_json(WeightedTrajectory, version_0(w)) == dataclasses.replace(
        w, trajectory=expected
    )


def test_a_url_is_kept_and_costs_nothing_where_there_is_none():
    quoting = Passage("a", 'T","url":""', ',"url":""')
    assert '"url":' not in to_json(quoting) and from_json(Passage, to_json(quoting)) == quoting
    linked = dataclasses.replace(quoting, url="https://a.example/b?c=d#e")
    assert from_json(Passage, to_json(linked)) == linked
    assert linked.fields["url"] == linked.url and "url" not in quoting.fields


@pytest.mark.parametrize(
    "url", ["http://a.b", "HTTPS://[::1]:8000/(x)'", "https://bücher.example/ä"]
)
def test_what_is_a_web_address(url):
    assert is_web_address(url) and Passage("a", "", "", url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "javascript:alert(1)",
            "ftp://a.b",
            "/wiki/A",
            "a.b",
            "http://",
            "https:///a",
            "http://[a",
        ),
        *(
            "http://a.b/ c",
            "http://a.b/\n",
            "http://a.b/\u202e",
            "\x00http://a.b",
            None,
            7,
            ["http://a"],
        ),
        *("http://bank.example@a.b", "http://a.b:x", "http://a.b:0", f"http://a.b/{'a' * 2000}"),
        *("http://a.b/<b>", 'http://a.b/"', "http://a.b/\\c"),
    ],
)
def test_what_is_none_becomes_empty(url):
    assert not is_web_address(url) and Passage("a", "", "", url=url).url == ""
    if isinstance(url, str):
        line = json.dumps({"id": "a", "title": "", "text": "", "url": url})
        assert from_json(Passage, line).url == ""


def test_a_newer_version_is_refused():
    line = to_json(Passage("1", "t", "x")).replace('"schema_version":2', '"schema_version":3')
    with pytest.raises(ValueError, match="schema version 3 is newer than 2: update exsearch"):
        from_json(Passage, line)


def test_a_field_of_the_future_is_passed_over():
    fields = json.loads(to_json(QUESTION)) | {"difficulty": 3}
    assert from_json(Question, json.dumps(fields)) == QUESTION


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff",
        "{}",
        '{"schema_version": "1", "id": "a"}',
        '{"schema_version": null}',
        '{"steps": 3}',
        '{"steps": [3]}',
        '{"steps": [{"evidence": 3}]}',
        '{"trajectory": 3}',
        '{"trajectory": [{"steps": []}]}',
    ],
)
@pytest.mark.parametrize("record_type", [Trajectory, WeightedTrajectory])
def test_what_is_no_record_is_a_value_error(record_type, line):
    with pytest.raises(ValueError):
        from_json(record_type, line)


def test_distinct_answers():
    assert Question("q", "?", (" b", "a", "b ", " ", "")).distinct_answers == ("b", "a")
    # What differs in blanks alone is one answer, of whatever kind they are.
    blanks = ("New York", "New  York", "New\tYork ", "New\u00a0York", "NewYork")
    assert Question("q", "?", blanks).distinct_answers == ("New York", "NewYork")


def test_passages_are_named_once_in_the_order_of_first_appearance():
    a, b, c = (Passage(i, i, i) for i in "abc")
    z = trajectory(steps=(Step("1", (b, a)), Step("2", (a, c, b))))
    assert [p.id for p in z.passages] == ["b", "a", "c"]


def test_a_record_is_shown_what_was_selected_in_its_order():
    a, b, c = (Passage(i, i, i) for i in "abc")
    assert Step("q", (a, b, c)).shown == (a, b, c)
    assert Step("q", (a, b, c), ("c", "a")).shown == (c, a)
    assert Step("q", (a, b, c), ()).shown == ()


def test_the_latent_part_ends_where_the_answer_begins():
    think = Call(CallKind.THINK, (1,), (2, 3), (-1.0, -2.0), (-3.0, -4.0))
    answer = Call(CallKind.THINK, (1,), (4, 5, 6), (-0.5, -8.0, -8.0), (-0.25, -8.0, -8.0))
    z = trajectory(calls=(think, answer), answer_start=1)
    assert [n for _, n in z.latent_calls] == [2, 1]
    assert (z.latent_log_prob, z.latent_proposal_log_prob) == (-3.5, -7.25)
    forced = trajectory(calls=(think, answer), answer_start=0)
    assert [n for _, n in forced.latent_calls] == [2, 0]
    cut_off = trajectory(calls=(think, answer), stop_reason=StopReason.MAX_TOKENS)
    assert [n for _, n in cut_off.latent_calls] == [2, 3]


def test_a_weight_is_exact_where_log_p_and_log_q_are_known_and_nothing_was_left_out():
    def sampled(log_p, log_q, **fields):
        return trajectory(calls=(Call(CallKind.THINK, (1,), (2, 3), log_p, log_q),), **fields)

    own, other = ((-1.0, -2.0),) * 2, ((-1.0, -2.0), (-0.5, -2.0))
    assert sampled(*own).drawn_from_model and sampled(*own).has_exact_weight
    assert not sampled(*other).drawn_from_model and sampled(*other).has_exact_weight
    assert sampled(*own, truncated_sampling=True).has_exact_weight
    assert not sampled(*other, truncated_sampling=True).has_exact_weight
    assert not sampled(*own, retries=1).has_exact_weight
    for p, q in (((), ()), (own[0], ()), ((-1.0,), (-1.0,))):
        assert not sampled(p, q).has_exact_weight
    assert sampled(*other).latent_log_ratio == -0.5
    assert sampled(*own).latent_log_ratio == sampled((), own[0]).latent_log_ratio == 0.0
    # What is drawn after z, the answer, needs no ratio.
    assert sampled((-1.0, -2.0), (-1.0, -9.0), answer_start=1).drawn_from_model


def test_token_counts():
    calls_ = (Call(CallKind.THINK, (1, 2), (3,)), Call(CallKind.RECORD, (1,), (3, 4, 5)))
    z = trajectory(calls=calls_)
    assert (z.prompt_tokens, z.output_tokens) == (3, 4)


def test_only_a_trajectory_with_ids_and_without_an_error_is_trainable():
    full, bare = Call(CallKind.THINK, (1,), (2,)), Call(CallKind.THINK, (), (2,))
    assert trajectory(calls=(full,)).trainable
    assert trajectory(calls=(full,), stop_reason=StopReason.MALFORMED).trainable
    assert not trajectory(calls=(full, bare)).trainable
    assert not trajectory(calls=()).trainable
    for reason in (StopReason.RETRIEVER_ERROR, StopReason.ENGINE_ERROR):
        assert not trajectory(calls=(full,), stop_reason=reason).trainable


def test_stop_reasons_are_told_apart():
    assert {r for r in StopReason if r.is_error} == {
        StopReason.RETRIEVER_ERROR,
        StopReason.ENGINE_ERROR,
    }
    assert {r for r in StopReason if r.has_answer} == {StopReason.ANSWERED, StopReason.MAX_STEPS}


@given(st.lists(st.floats(-700, 0) | st.just(-math.inf), min_size=1, max_size=4))
def test_the_answers_likelihoods_add_up_and_are_shared(scores):
    w = WeightedTrajectory(trajectory(), 1.0, tuple(scores), tuple((1,) for _ in scores))
    total = math.fsum(map(math.exp, scores))
    assert math.exp(w.answer_log_prob) == pytest.approx(total)
    if total:
        assert sum(w.answer_shares) == pytest.approx(1)


def test_hopeless_answers():
    assert WeightedTrajectory(trajectory(), 0.0).answer_log_prob == -math.inf
    far = WeightedTrajectory(trajectory(), 1.0, (-9000.0, -9000.0), ((1,), (2,)))
    assert far.answer_log_prob == pytest.approx(-9000 + math.log(2))
    assert far.answer_shares == pytest.approx((0.5, 0.5))
    lost = WeightedTrajectory(trajectory(), 0.0, (-math.inf, -math.inf), ((1,), (2,)))
    assert lost.answer_shares == (0.0, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Question("q", "Who?", answers="Paris"),
        lambda: Question("q", "Who?", supporting="p1"),
        lambda: Evidence("A fact.", passage_ids="p1"),
        lambda: Step("query", (), selected_ids="p1"),
    ],
)
def test_one_text_is_not_taken_for_its_letters(make):
    with pytest.raises(TypeError, match=r"is one text, expected a list of texts: write \['[pP]"):
        make()
