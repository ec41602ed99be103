"""A rollout samples every question in order, and a failure stays with the one who failed."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from exsearch.agent.replay import UnreplayableError, worked_examples
from exsearch.agent.rollout import rollout
from exsearch.engines.base import GREEDY, Request, Sampling, TooLongError
from exsearch.engines.scripted import ScriptedEngine, ScriptedTokenizer
from exsearch.engines.session import InTurns
from exsearch.errors import EngineError, RetrieverError
from exsearch.methods.format import ANSWER_FRAME
from exsearch.methods.rag import RagMethod
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import CallKind, Passage, Question, StopReason
from exsearch.retrievers.cached import CachedRetriever

TOKENIZER = ScriptedTokenizer()
QUESTIONS = [Question(str(n), f"What is fact {n}?", ("x",)) for n in range(4)]
# Searches once, notes the first passage, answers; the number in the question runs through.
SCRIPT = [
    ("Notes:\nnone", ["Search: fact", "Search: another fact"]),
    ("Assistant: Answer:", " forced"),
    ("Notes:\n1.", "Answer: known"),
    ("[1] ", "[1] found it"),
]


class Facts:
    """A retriever that gives two passages a query, and fails where it is told to."""

    def __init__(self, fail=lambda query: False):
        self.batches = []
        self.fail = fail

    def search(self, queries, k):
        self.batches.append(list(queries))
        bad = [q for q in queries if self.fail(q)]
        if bad:
            raise RetrieverError(f"no luck with {bad[0]}")
        return [
            [Passage(f"{q}/{n}", q, f"text {n}", 1.0 / n) for n in range(1, k + 1)] for q in queries
        ]


def by_number(chat):
    """A script that searches for the number in its question, and then answers with it."""
    turn = chat.rpartition("User: ")[2]
    if "Notes:\nnone" in turn:
        return "Search: fact " + turn.split("fact ")[1][0]
    if "Notes:\n1." in turn:
        return "Answer: " + turn.split("fact ")[1][0]
    return "[1] it is so"


def plain(trajectories):
    return [dataclasses.replace(t, seconds=0.0) for t in trajectories]


def run(script=SCRIPT, retriever=None, questions=QUESTIONS, **options):
    engine = script if hasattr(script, "generate") else ScriptedEngine(script)
    return rollout(questions, engine, retriever or Facts(), **options)


def test_questions_come_back_in_order_with_their_samples():
    trajectories = run(by_number, samples=3, iteration=7)
    assert [(t.question.id, t.sample) for t in trajectories] == [
        (str(q), k) for q in range(4) for k in range(3)
    ]
    assert [t.answer for t in trajectories] == [str(q) for q in range(4) for _ in range(3)]
    assert {t.stop_reason for t in trajectories} == {StopReason.ANSWERED}
    assert {t.iteration for t in trajectories} == {7}
    for t in trajectories:
        assert t.trainable
        assert t.evidence[0].passage_ids == (f"fact {t.question.id}/1",)
        assert t.seconds >= 0


def test_no_questions_no_trajectories():
    assert run(questions=[]) == []


def test_searches_go_in_batches_and_repeated_ones_to_the_cache():
    inner = Facts()
    cached = CachedRetriever(inner)
    run(by_number, cached, samples=3)
    assert inner.batches == [[f"fact {n}" for n in range(4)]]
    assert (cached.hits, cached.misses) == (8, 4)
    run(by_number, cached, samples=3)
    assert len(inner.batches) == 1


def test_a_call_holds_the_ids_that_were_seen_and_written():
    (t,) = run(by_number, questions=QUESTIONS[:1])
    engine = ScriptedEngine(by_number)
    for call in t.calls:
        (again,) = engine.generate([Request(call.prompt_ids, 99)], GREEDY)
        assert call.output_ids == again.output_ids
        assert call.log_probs == again.log_probs
        assert call.proposal_log_probs == again.proposal_log_probs


def test_at_the_step_limit_the_answer_frame_is_forced():
    script = [("Assistant: Answer:", " forced"), ("Notes:", "Search: more"), ("", "Nothing found.")]
    trajectories = run(script, method=SearcherMethod(max_steps=2))
    for t in trajectories:
        assert t.stop_reason is StopReason.MAX_STEPS
        assert (t.answer, t.answer_start, len(t.steps)) == ("forced", 0, 2)
        last = t.calls[-1]
        assert last.kind is CallKind.ANSWER
        frame = TOKENIZER.encode(ANSWER_FRAME)
        assert last.prompt_ids[-len(frame) :] == frame
        assert TOKENIZER.decode(last.output_ids) == " forced"
        assert t.latent_calls[-1] == (last, 0)  # neither frame nor answer is in z


def test_a_reply_that_does_not_end_is_cut():
    trajectories = run({"": "Search: " + "word " * 99}, method=SearcherMethod(thought_tokens=9))
    for t in trajectories:
        assert t.stop_reason is StopReason.MAX_TOKENS
        assert len(t.calls[-1].output_ids) == 9
        assert t.answer_start is None
        assert t.trainable


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("", "empty_thought"),
        ("Hm", "no_action"),
        ("Search: ", "empty_query"),
        ("Answer:", "empty_answer"),
        ("Answer: a\n", None),
        ("Search: a\nb", "several_lines"),
    ],
)
def test_a_malformed_reply_is_classified_and_ends_its_trajectory(reply, kind):
    good = "What is fact 0?"
    script = [(good, "Answer: fine"), ("", reply)]
    first, *others = run(script)
    assert (first.answer, first.stop_reason) == ("fine", StopReason.ANSWERED)
    for t in others:
        assert t.malformed == kind
        assert t.stop_reason is (StopReason.MALFORMED if kind else StopReason.ANSWERED)
        assert t.retries == 0


def test_a_straddling_token_is_malformed():
    class Straddling(ScriptedEngine):
        def generate(self, requests, sampling):
            joined = int.from_bytes(b"\x01: yes", "big")
            return [
                dataclasses.replace(g, output_ids=(g.output_ids[0], joined, 0))
                for g in super().generate(requests, sampling)
            ]

    for t in run(Straddling({"": "Answer: yes"})):
        assert (t.malformed, t.answer) == ("straddling_token", "")


def test_a_failed_search_ends_only_its_own_trajectories():
    retriever = Facts(fail=lambda query: query == "fact 2")
    trajectories = run(by_number, retriever, samples=2)
    for t in trajectories:
        if t.question.id == "2":
            assert t.stop_reason is StopReason.RETRIEVER_ERROR
            assert t.error == "no luck with fact 2"
            assert not t.trainable
        else:
            assert (t.stop_reason, t.answer) == (StopReason.ANSWERED, t.question.id)


def test_a_retriever_that_gives_too_few_lists_has_failed():
    class Short(Facts):
        def search(self, queries, k):
            return super().search(queries, k)[:-1]

    for t in run(by_number, Short()):
        assert t.stop_reason is StopReason.RETRIEVER_ERROR
        assert t.error == "Short gave 0 lists for 1 queries"


def test_a_failed_call_ends_only_its_own_trajectory():
    class Failing(ScriptedEngine):
        calls = 0

        def generate(self, requests, sampling):
            self.calls += 1
            if any("fact 2" in TOKENIZER.decode(r.prompt_ids) for r in requests):
                raise EngineError("too long")
            return super().generate(requests, sampling)

    engine = Failing(by_number)
    many = [Question(str(n), f"What is fact {n}?") for n in range(10)]
    trajectories = run(engine, questions=many)
    for t in trajectories:
        if t.question.id == "2":
            assert (t.stop_reason, t.error) == (StopReason.ENGINE_ERROR, "too long")
            assert not t.trainable
        else:
            assert (t.stop_reason, t.answer) == (StopReason.ANSWERED, t.question.id)
    assert engine.calls < 2 * len(many)  # by halves, not one by one


def test_an_unknown_prompt_of_a_script_is_an_engine_error():
    trajectories = run([("fact 1", "Answer: x")])
    assert [t.stop_reason is StopReason.ENGINE_ERROR for t in trajectories] == [
        *[True, False, True],
        True,
    ]
    assert "no reply for the prompt" in (trajectories[0].error or "")


class Stumbling(ScriptedEngine):
    """Writes nonsense the first so many times that it is asked about a prompt."""

    def __init__(self, times):
        super().__init__(by_number)
        self.times = times
        self.keys = {}

    def generate(self, requests, sampling):
        replies = []
        for request in requests:
            keys = self.keys.setdefault(request.prompt_ids, [])
            keys.append((request.key, sampling))
            engine = ScriptedEngine({"": "hm"}) if len(keys) <= self.times else super()
            replies += engine.generate([request], sampling)
        return replies


def test_a_malformed_reply_is_not_retried_unless_asked():
    assert {t.stop_reason for t in run(Stumbling(1))} == {StopReason.MALFORMED}


def test_a_malformed_reply_is_sampled_once_more_where_asked():
    engine = Stumbling(1)
    # greedily, since a greedy reply would come out the same
    trajectories = run(engine, retry_malformed=True, sampling=GREEDY, questions=QUESTIONS[:2])
    for keys in itertools.islice(engine.keys.values(), 2):
        (first, greedy), (second, again) = keys
        assert first != second
        assert (greedy, again) == (GREEDY, Sampling())
    for t in trajectories:
        # the first thought was retried; the record's nonsense came after that one retry
        assert (t.retries, t.stop_reason, t.malformed) == (1, StopReason.MALFORMED, "no_label")
    (t,) = run(Stumbling(2), retry_malformed=True, questions=QUESTIONS[:1])
    assert (t.retries, t.stop_reason, t.malformed) == (1, StopReason.MALFORMED, "no_action")
    assert len(t.calls) == 1


class Steered:
    """The tiny model's engine, made to begin every reply as the format asks; the rest is drawn."""

    trains, scores, streams, device = False, False, False, None
    rows = 5

    def __init__(self, inner):
        self.inner, self.tokenizer = inner, inner.tokenizer

    def open(self):
        session = self.inner.open()
        submit = session.submit

        def steered(request, sampling):
            text = self.tokenizer.decode(request.prompt_ids)
            start = "[1] fact" if "Query:" in text.rpartition("user")[2] else "Search: fact"
            forced = (*self.tokenizer.encode(start), self.tokenizer.end_id)
            cut = len(forced) - (request.key % 4 == 0)  # some go on by themselves
            return submit(dataclasses.replace(request, forced_ids=forced[:cut]), sampling)

        session.submit = steered
        return session


class FailsEvery:
    """A retriever that is down for every nth query, whatever it is."""

    def __init__(self, n):
        self.n, self.queries = n, 0

    def search(self, queries, k):
        if len(queries) > 1:
            raise RetrieverError("one by one, please")
        self.queries += 1
        if self.queries % self.n == 0:
            raise RetrieverError("down")
        return Facts().search(queries, k)


class Slow:
    """A retriever that takes its time now and then."""

    def __init__(self, inner, every):
        self.inner, self.every, self.searches = inner, every, 0

    def search(self, queries, k):
        self.searches += 1
        if self.every and self.searches % self.every == 0:
            sum(range(300_000))
        return self.inner.search(queries, k)


def test_how_fast_a_search_is_changes_no_bit(tiny_engine):
    """Searches run beside generation, but a batch is never made of who came first."""
    method = SearcherMethod(max_steps=3, thought_tokens=12, record_tokens=12)
    runs = []
    for every in (0, 1, 2):
        engine = Steered(tiny_engine)
        runs.append(rollout(QUESTIONS, engine, Slow(Facts(), every), samples=3, method=method))
    assert any(t.steps for t in runs[0])
    assert plain(runs[0]) == plain(runs[1]) == plain(runs[2])


@pytest.mark.parametrize("every", [0, 1, 2])
def test_failing_searches_lose_no_trajectory(tiny_engine, every):
    """With fewer rows than episodes, failures and ends fall together."""
    method = SearcherMethod(max_steps=3, thought_tokens=12, record_tokens=12)
    flaky = Slow(FailsEvery(3), every)
    trajectories = rollout(QUESTIONS, Steered(tiny_engine), flaky, samples=5, method=method, seed=1)
    assert [t.id for t in trajectories] == [f"{q}#{k}" for q in range(4) for k in range(5)]
    failed = [t for t in trajectories if t.stop_reason is StopReason.RETRIEVER_ERROR]
    assert failed and all(t.error == "down" for t in failed)


def test_finished_trajectories_are_reported():
    counts = []
    script = [("fact 0", "Answer: x"), *SCRIPT]
    run(script, samples=2, on_finished=lambda ended: counts.append([t.id for t in ended]))
    assert counts == [["0#0", "0#1"], [f"{q}#{n}" for q in (1, 2, 3) for n in (0, 1)]]


METHODS = [
    SearcherMethod(max_steps=2, thought_tokens=12, record_tokens=12),
    SearcherMethod(max_steps=1, context="transcript", thought_tokens=12),
]


@pytest.mark.parametrize("method", [SearcherMethod(), SearcherMethod(context="transcript")])
def test_scripted_samples_do_not_depend_on_the_batch(method):
    whole = plain(run(samples=4, method=method, seed=3))
    assert len({t.steps[0].query for t in whole}) == 2  # the samples differ
    parts = [plain(run(questions=[q], samples=4, method=method, seed=3)) for q in QUESTIONS]
    assert [t for part in parts for t in part] == whole
    assert plain(run(samples=2, method=method, seed=3)) == [t for t in whole if t.sample < 2]
    assert plain(run(samples=4, method=method, seed=4)) != whole


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_sampled_trajectories_are_the_same_in_any_order_of_chunks(
    tiny_engine, sample_retriever, sample_questions, order
):
    """Test 6: one worker or two, any order of completion: the same set of trajectories."""
    chunks = [sample_questions[0:2], sample_questions[2:3], sample_questions[3:6]]

    def sampled(questions):
        return rollout(
            questions,
            tiny_engine,
            CachedRetriever(sample_retriever),
            samples=2,
            method=METHODS[0],
            seed=5,
            iteration=1,
        )

    whole = {t.id: t for t in sampled(sample_questions[:6])}
    parts = {t.id: t for n in order for t in sampled(chunks[n])}
    assert parts.keys() == whole.keys()
    for id_, t in whole.items():
        assert [c.output_ids for c in parts[id_].calls] == [c.output_ids for c in t.calls]
        assert [c.prompt_ids for c in parts[id_].calls] == [c.prompt_ids for c in t.calls]
        for mine, theirs in zip(t.calls, parts[id_].calls, strict=True):
            assert mine.log_probs == pytest.approx(theirs.log_probs, abs=1e-4)
        assert (parts[id_].steps, parts[id_].stop_reason) == (t.steps, t.stop_reason)


class Led(InTurns):
    """The tiny model, led: its first tokens are an action, so that it takes every turn there is.

    What follows a frame is the model's own sampling, up to a few tokens and the end.
    """

    trains, scores = False, False

    def __init__(self, engine):
        self.inner = engine
        self.tokenizer = engine.tokenizer
        self.seen = []

    def generate(self, requests, sampling):
        leads = [self.tokenizer.encode(self.lead(r.prompt_ids)) for r in requests]
        free = [
            Request((*r.prompt_ids, *lead), 3, r.key)
            for r, lead in zip(requests, leads, strict=True)
        ]
        self.seen += [r.prompt_ids for r in requests]
        ended = []
        for lead, g in zip(leads, self.inner.generate(free, sampling), strict=True):
            ids = (*lead, *(i for i in g.output_ids if i not in self.inner.stop_ids), 2)
            zeros = (0.0,) * len(ids)
            ended.append(
                dataclasses.replace(g, output_ids=ids, log_probs=zeros, finish_reason="stop")
            )
        return ended

    def lead(self, prompt_ids):
        text = self.tokenizer.decode(prompt_ids)
        turn = text.rpartition("user\n")[2]
        if turn.rstrip().endswith(ANSWER_FRAME):
            return " it is"
        if "Query:" in turn:
            return "[1] it is"
        return "Search: city river"


@pytest.mark.parametrize("method", METHODS)
def test_a_real_model_goes_the_whole_way(tiny_engine, sample_retriever, sample_questions, method):
    engine = Led(tiny_engine)
    retriever = CachedRetriever(sample_retriever)
    trajectories = rollout(
        sample_questions[:3], engine, retriever, samples=2, method=method, seed=1
    )
    assert len(trajectories) == 6
    ended = {t.stop_reason for t in trajectories}
    assert ended <= {StopReason.MAX_STEPS, StopReason.MALFORMED}
    assert StopReason.MAX_STEPS in ended
    for t in trajectories:
        assert all(c.prompt_ids in engine.seen for c in t.calls)
        if t.stop_reason is StopReason.MAX_STEPS:
            assert len(t.steps) == method.max_steps
            assert t.answer_start == 0
            assert all(s.passages for s in t.steps)
        if method.context == "transcript":
            for earlier, later in itertools.pairwise(t.calls):
                so_far = (*earlier.prompt_ids, *earlier.output_ids)
                assert later.prompt_ids[: len(so_far)] == so_far


def test_a_prompt_too_long_for_the_model_is_its_own_failure(
    tiny_engine, sample_retriever, sample_questions
):
    class Wordy:
        def search(self, queries, k):
            one = [Passage("long", "", "why " * 3000)]
            found = sample_retriever.search(queries, k)
            return [one if q == "Why?" else f for q, f in zip(queries, found, strict=True)]

    questions = [*sample_questions[:2], Question("long", "Why?")]
    method = RagMethod(passages=1, passage_words=3000)
    trajectories = rollout(questions, tiny_engine, Wordy(), method=method)
    assert [t.stop_reason.is_error for t in trajectories] == [False, False, True]
    assert "does not fit the model's 2048" in (trajectories[-1].error or "")


def test_a_sample_that_outgrows_the_model_is_out_of_tokens():
    class Short(ScriptedEngine):
        def generate(self, requests, sampling):
            if any("Notes:\n1." in TOKENIZER.decode(r.prompt_ids) for r in requests):
                raise TooLongError("too long")
            return super().generate(requests, sampling)

    for t in run(Short(by_number)):
        assert (t.stop_reason, t.error, len(t.calls)) == (StopReason.MAX_TOKENS, "too long", 2)
        assert not t.stop_reason.is_error


def shown_chats(examples):
    seen = []

    def spy(chat):
        seen.append(chat)
        return by_number(chat)

    run(spy, questions=QUESTIONS[:1], examples=examples)
    return seen


def test_worked_examples_are_earlier_turns_of_the_chat():
    finished = run(by_number, questions=QUESTIONS[1:])
    examples = worked_examples(finished, SearcherMethod(), TOKENIZER)
    think, record, answer = shown_chats(examples)
    assert [line for line in think.splitlines() if line.startswith("Assistant: ")] == [
        "Assistant: Search: fact 1",  # how to begin
        "Assistant: Answer: 2",  # the middle one: what follows one step of one
        "Assistant: Answer: 3",  # how to end
        "Assistant: ",
    ]
    assert record.count("Assistant: [1] it is so") == 3
    assert record.count("User: ") == 4
    assert answer.endswith("1. fact 0 it is so\nAssistant: ")
    assert think.count("Question: What is fact 0?") == 1


def test_worked_examples_show_a_forced_answer_what_a_thought_is_shown():
    finished = run(by_number, questions=QUESTIONS[1:])
    examples = worked_examples(finished, SearcherMethod(), TOKENIZER)
    assert examples.before(CallKind.ANSWER, "p") == examples.before(CallKind.THINK, "p")
    assert examples.before(CallKind.SELECT, "p") == [{"role": "user", "content": "p"}]


def test_worked_examples_show_each_kind_of_call_and_need_no_search():
    finished = run(by_number, questions=QUESTIONS[1:])
    selected = [
        dataclasses.replace(t, steps=tuple(with_choice(step) for step in t.steps)) for t in finished
    ]
    select = worked_examples(selected, SearcherMethod(select=True), TOKENIZER)
    shown = select.before(CallKind.SELECT, "p")
    assert [m["content"] for m in shown if m["role"] == "assistant"] == ["[1]"] * 3
    at_once = run([("", "Answer: x")], questions=QUESTIONS[:1])
    examples = worked_examples(at_once, SearcherMethod(), TOKENIZER)
    assert [m["content"] for m in examples.before(CallKind.THINK, "p")][1:] == ["Answer: x", "p"]
    assert examples.before(CallKind.RECORD, "p") == [{"role": "user", "content": "p"}]


def with_choice(step):
    return dataclasses.replace(step, selected_ids=(step.passages[0].id,))


def test_worked_examples_need_an_answer_and_new_chats():
    stopped = run([*SCRIPT[:1], ("", "hm")], questions=QUESTIONS[:1])
    with pytest.raises(UnreplayableError, match="'0#0' has no answer"):
        worked_examples(stopped, SearcherMethod(), TOKENIZER)
    finished = run(by_number, questions=QUESTIONS[:1])
    with pytest.raises(UnreplayableError, match="a method whose prompts are new chats"):
        worked_examples(finished, SearcherMethod(context="transcript"), TOKENIZER)


def test_the_order_of_questions_does_not_matter():
    shuffled = random.Random(0).sample(QUESTIONS, 4)
    by_id = {t.id: t for t in plain(run(samples=2, seed=9))}
    assert {t.id: t for t in plain(run(questions=shuffled, samples=2, seed=9))} == by_id


def test_the_model_sees_only_what_it_selected():
    script = [
        ("Notes:\nnone", "Search: fact"),
        ("Name the passages", "[3] [1]"),
        ("Notes:", "Answer: x"),
        ("Query:", "[2] a fact"),
    ]
    (t,) = run(script, questions=QUESTIONS[:1], method=SearcherMethod(select=True, passages=3))
    assert t.steps[0].selected_ids == ("fact/3", "fact/1")
    record = TOKENIZER.decode(t.calls[2].prompt_ids)
    assert record.splitlines()[2:] == ["[1] fact: text 3", "[2] fact: text 1"]
    assert t.evidence[0].passage_ids == ("fact/1",)
