"""A runner's events tell all of an episode, and what is cancelled leaves nothing behind."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from exsearch.agent.episode import begin
from exsearch.agent.events import Event, EventKind, showing
from exsearch.agent.rollout import rollout
from exsearch.agent.runner import Runner
from exsearch.engines.base import GREEDY, ChatTokenizer, Engine, Sampling
from exsearch.engines.local.engine import TransformersEngine
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import RetrieverError
from exsearch.methods.base import Method
from exsearch.methods.rag import RagMethod
from exsearch.methods.searcher import SearcherMethod
from exsearch.methods.self_ask import SelfAskMethod
from exsearch.records import CallKind, Passage, Question, Step, StopReason, Trajectory
from steered import GOES_ON, Steered

QUESTIONS = [Question(f"q{n}", f"What is fact {n}?", ("it",)) for n in range(10)]
METHODS: list[Method] = [
    SearcherMethod(
        max_steps=2, passages=2, select=True, thought_tokens=12, select_tokens=12, record_tokens=12
    ),
    RagMethod(passages=3, answer_tokens=12),
    SelfAskMethod(max_steps=1, thought_tokens=12),
]
# What the model writes: fine, malformed, too long; one of them each time, by the request's key.
THOUGHTS = ["Search: one fact", "Search: broken", "Answer: known", "hm", "Search: a town"]
ANSWERS = [" forced", " the café", " \n"]
CHOICES = ["[2] [1]", "None.", "[1]", "[7]"]
RECORDS = ["[1] it is so", "Nothing found.", "it is so"]
TOO_LONG = "and so on " * 12


def rules(forced: str, more: str) -> dict[str, Sequence[str]]:
    """The script, where `forced` is how a prompt ends that has the answer's frame forced."""
    return {
        forced: [*ANSWERS, more],
        "Name the passages": [*CHOICES, more],
        "Copy the fact": [*RECORDS, more],
        "Look facts up": [*THOUGHTS, more],
    }


def scripted() -> ScriptedEngine:
    return ScriptedEngine(rules("Assistant: Answer:", TOO_LONG))


class Facts:
    """Gives k passages a query, and fails for what is broken."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], int]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.batches.append((list(queries), k))
        if any(query == "broken" for query in queries):
            raise RetrieverError("no luck with broken")
        return [
            [Passage(f"{q}/{n}", q, f"Text {n}.", 1 / n) for n in range(1, k + 1)] for q in queries
        ]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        raise NotImplementedError

    def identity(self) -> str:
        return "facts"


def plain(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    return [dataclasses.replace(t, seconds=0.0) for t in trajectories]


def run_out(runner: Runner) -> dict[int, Trajectory]:
    """Run all episodes to their ends."""
    done: dict[int, Trajectory] = {}
    while len(runner):
        done |= runner.step()
    return done


def run_three_methods(
    engine: Engine, on_event: Callable[[Event], None] | None = None, **options: Any
) -> dict[int, Trajectory]:
    """60 trajectories: 10 questions, 3 methods, 2 samples, all in one runner."""
    with Runner(engine, Facts(), retry_malformed=True, on_event=on_event, **options) as runner:
        for question, method, sample in itertools.product(QUESTIONS, METHODS, range(2)):
            runner.add(begin(question, method, engine.tokenizer, sample=sample))
        return run_out(runner)


# --- events ---


@dataclasses.dataclass
class Told:
    """What the events of one episode tell, and nothing else."""

    id: str
    calls: dict[int, tuple[CallKind | None, str]] = dataclasses.field(default_factory=dict)
    searches: list[tuple[str, tuple[Passage, ...] | None]] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)
    answer: str = ""
    stop_reason: StopReason | None = None
    wrong: str = ""
    begun: int = 0


def retell(events: Iterable[Event]) -> dict[int, Told]:
    """The events of each episode put together, by the episode's number."""
    told: dict[int, Told] = {}
    for event in events:
        story = told.setdefault(event.episode, Told(event.id))
        assert story.id == event.id
        match event.kind:
            case EventKind.BEGUN:
                assert event.call is not None
                story.calls[event.call] = event.action, ""  # a retry takes the old one's place
                story.begun += 1
            case EventKind.TEXT:
                assert event.call is not None and story.calls[event.call][0] == event.action
                story.calls[event.call] = event.action, event.text
            case EventKind.SEARCH:
                story.searches.append((event.text, None))
            case EventKind.PASSAGES:
                story.searches[-1] = story.searches[-1][0], event.passages
            case EventKind.EVIDENCE:
                assert event.step is not None
                story.steps.append(event.step)
            case EventKind.ANSWER:
                story.answer = event.text
            case EventKind.END:
                story.stop_reason, story.wrong = event.stop_reason, event.text
    return told


def check_told(
    events: Sequence[Event], done: Mapping[int, Trajectory], tokenizer: ChatTokenizer
) -> None:
    """The events tell the very trajectories."""
    told = retell(events)
    assert told.keys() == done.keys()
    for number, t in done.items():
        story = told[number]
        assert story.id == t.id
        assert list(story.calls.values()) == [
            (c.kind, tokenizer.decode(c.output_ids)) for c in t.calls
        ]
        assert list(story.calls) == list(range(len(t.calls)))
        assert story.begun == len(t.calls) + t.retries
        assert story.steps == list(t.steps)
        # The search of a step that was not finished is told, too.
        assert len(story.searches) - len(t.steps) in (0, 1)
        finished = story.searches[: len(t.steps)]
        assert finished == [(step.query, step.passages) for step in t.steps]
        for query, passages in story.searches[len(t.steps) :]:
            failed = t.stop_reason is StopReason.RETRIEVER_ERROR
            assert (passages is None) == failed == (query == "broken")
        assert (story.answer, story.stop_reason) == (t.answer, t.stop_reason)
        assert story.wrong == (t.error or t.malformed or "")


def check_order(events: Sequence[Event], numbers: Iterable[int]) -> None:
    """Times never fall, and each episode ends once, with its last event."""
    assert all(a.at <= b.at for a, b in itertools.pairwise(events))
    assert 0 <= time.time() - events[-1].at < 600
    last = {event.episode: event for event in events}
    assert sorted(last) == sorted(numbers)
    assert {event.kind for event in last.values()} == {EventKind.END}
    ends = [event.episode for event in events if event.kind is EventKind.END]
    assert sorted(ends) == sorted(numbers)


def test_events_tell_all_of_60_trajectories_of_three_methods():
    events: list[Event] = []
    done = run_three_methods(scripted(), events.append, seed=3)
    assert len(done) == 60
    check_told(events, done, scripted().tokenizer)
    check_order(events, range(60))
    # All that can happen did happen.
    assert {t.method for t in done.values()} == {"searcher", "rag", "self-ask"}
    assert {t.stop_reason for t in done.values()} == {
        *(StopReason.ANSWERED, StopReason.MAX_STEPS, StopReason.MALFORMED),
        *(StopReason.MAX_TOKENS, StopReason.RETRIEVER_ERROR),
    }
    assert any(t.retries and t.stop_reason.has_answer for t in done.values())
    assert any(t.retries and t.malformed for t in done.values())
    chosen = {s.selected_ids for t in done.values() for s in t.steps}
    assert {None, ()} < chosen
    assert any(s.evidence for t in done.values() for s in t.steps if t.method == "searcher")


def test_listening_changes_nothing():
    heard = run_three_methods(scripted(), lambda event: None, seed=3)
    silent = run_three_methods(scripted(), seed=3)
    assert plain(heard.values()) == plain(silent.values())


def attempts(events: Iterable[Event]) -> list[list[str]]:
    """The texts of each call in turn; a retried one is another."""
    texts: dict[tuple[int, int], list[str]] = {}
    found: list[list[str]] = []
    for event in events:
        if event.call is not None:
            if event.kind is EventKind.BEGUN:
                texts[event.episode, event.call] = []
                found.append(texts[event.episode, event.call])
            else:
                texts[event.episode, event.call].append(event.text)
    return found


def test_a_streaming_engine_tells_each_call_as_it_grows(tiny_engine: TransformersEngine):
    """The model goes on by itself where the script leaves off, so some of it is broken UTF-8."""
    engine = Steered(tiny_engine, rules("assistant\nAnswer:", f"Search: {GOES_ON}"))
    events: list[Event] = []
    done = run_three_methods(engine, events.append, seed=4)
    check_told(events, done, engine.tokenizer)
    check_order(events, range(60))
    assert {StopReason.ANSWERED, StopReason.MAX_STEPS, StopReason.MALFORMED} <= {
        t.stop_reason for t in done.values()
    }
    assert any(t.retries for t in done.values())
    calls = attempts(events)
    assert len(calls) == sum(len(t.calls) + t.retries for t in done.values())
    for texts in calls:
        for shorter, longer in itertools.pairwise(texts):
            assert longer.startswith(shorter.removesuffix("\ufffd"))
            assert len(longer) >= len(shorter)
    # Told while it is written, not only when it is done.
    several = [t for t in calls if len(set(t)) > 3]
    assert len(several) > len(calls) / 2
    assert any("\ufffd" in text for texts in calls for text in texts)


# --- cancelling ---


def places(engine: TransformersEngine) -> tuple[list[int], list[int]]:
    """The pool's free places, and those that the prefix tree holds."""
    tree = engine._cache.tree
    return sorted(tree._free), sorted(p for n in tree._root.walk() for p in n.places.tolist())


def check_nothing_left(runner: Runner, engine: TransformersEngine) -> None:
    session = runner._session
    assert not session.busy
    batch = session._batch  # pyright: ignore[reportAttributeAccessIssue]
    assert engine._session is session
    assert (batch._rows, list(batch._waiting), batch._refused) == ({}, [], [])
    free, held = places(engine)
    assert sorted([*free, *held]) == list(range(engine._cache.tree.capacity))


EPISODES, DOOMED = 180, 140  # some end before their moment comes: 100 are cancelled at least
MOMENTS = ("waiting", "writing", "asked", "search due", "searching")


def moment(runner: Runner, number: int) -> str:
    """Where an episode stands between two steps; "ended" where it is no more."""
    if number in runner._waiting:
        return "waiting"
    if number not in runner._open:
        return "ended"
    entry = runner._open[number]
    if entry.ticket is not None:
        return "writing" if runner._session.written(entry.ticket) else "asked"
    assert runner._searching is not None and entry in runner._searching[1]
    return "searching"


class Cancelling:
    """Many episodes, most of which are cancelled: each at a moment drawn for it beforehand."""

    def __init__(self, engine: Engine, seed: int):
        self.engine = engine
        draw = random.Random(seed)
        # Where it is hit, and how many chances to hit it there are let pass.
        self.wanted = {
            number: (MOMENTS[n % len(MOMENTS)], draw.randrange(6 if n % len(MOMENTS) < 2 else 1))
            for n, number in enumerate(draw.sample(range(EPISODES), DOOMED))
        }
        self.cancelled: dict[int, str] = {}  # number -> its moment
        self.events: list[Event] = []

    def run(self) -> tuple[Runner, dict[int, Trajectory]]:
        done: dict[int, Trajectory] = {}
        with Runner(self.engine, Facts(), seed=1, on_event=self._hear) as runner:
            self.runner = runner
            for spec in specs():
                runner.add(begin(*spec, self.engine.tokenizer))
            while len(runner):
                for number in list(self.wanted):  # also before the first step
                    self._perhaps(number, moment(runner, number))
                done |= runner.step()
            return runner, done

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        # Between two steps no search is due, only under way.
        if event.kind is EventKind.SEARCH:
            self._perhaps(event.episode, "search due")

    def _perhaps(self, number: int, now: str) -> None:
        wanted, chances = self.wanted.get(number, ("", 0))
        if now != wanted:
            return
        if chances:
            self.wanted[number] = wanted, chances - 1
            return
        assert self.runner.cancel(number)
        assert not self.runner.cancel(number)
        self.cancelled[number] = now
        del self.wanted[number]


def specs() -> list[tuple[Question, Method]]:
    methods = [METHODS[0], METHODS[2]]
    return [
        (Question(f"q{n}", f"What is fact {n}?"), method)
        for n in range(EPISODES // 2)
        for method in methods
    ]


@pytest.fixture
def few_rows(tiny_model_folder: Path) -> TransformersEngine:
    """An engine that writes four sequences at once, over a pool that is too small for all."""
    return TransformersEngine(tiny_model_folder, device="cpu", batch_size=4, cache_tokens=300)


def steered_or_not(turn: str, key: int) -> str:
    """Mostly what goes on, so that there is much to cancel; all ends at last."""
    if "assistant\nAnswer:" in turn:
        return " forced"
    if "Name the passages" in turn:
        return "[1]"
    if "Copy the fact" in turn:
        return "[1] it is so"
    return ("Search: one fact", "Search: a town", f"Search: {GOES_ON}")[key % 3]


def test_100_episodes_cancelled_at_random_moments_leave_nothing(few_rows: TransformersEngine):
    threads = set(threading.enumerate())
    engine = Steered(few_rows, steered_or_not)
    test = Cancelling(engine, seed=5)
    runner, done = test.run()
    assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile
    check_nothing_left(runner, few_rows)
    assert not (runner._waiting or runner._open or runner._asked or runner._to_search)

    moments = collections.Counter(test.cancelled.values())
    assert sum(moments.values()) >= 100
    assert min(moments[m] for m in MOMENTS) >= 10, moments
    check_order(test.events, range(EPISODES))
    for event in test.events:
        if event.kind is EventKind.END:
            taken_back = event.episode in test.cancelled
            assert taken_back == (event.stop_reason is None) == (event.text == "cancelled")

    # The others are as if nobody had been there.
    assert done.keys() == set(range(EPISODES)) - test.cancelled.keys()
    with Runner(engine, Facts(), seed=1) as alone:
        numbers = {
            alone.add(begin(*spec, engine.tokenizer)): n
            for n, spec in enumerate(specs())
            if n in done
        }
        undisturbed = {numbers[number]: t for number, t in run_out(alone).items()}
    assert undisturbed.keys() == done.keys()
    for number, t in done.items():
        same_but_for_rounding(t, undisturbed[number])


def same_but_for_rounding(one: Trajectory, other: Trajectory) -> None:
    assert plain([without_scores(one)]) == plain([without_scores(other)])
    for a, b in zip(one.calls, other.calls, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-3)
        assert a.proposal_log_probs == pytest.approx(b.proposal_log_probs, abs=1e-3)


def without_scores(t: Trajectory) -> Trajectory:
    calls = [dataclasses.replace(c, log_probs=(), proposal_log_probs=()) for c in t.calls]
    return dataclasses.replace(t, calls=tuple(calls))


def test_episodes_cancelled_at_random_change_no_other_where_scripted():
    threads = set(threading.enumerate())
    for seed in range(5):
        test = Cancelling(scripted(), seed)
        runner, done = test.run()
        assert not runner._session.busy
        with Runner(scripted(), Facts(), seed=1) as undisturbed:
            for spec in specs():
                undisturbed.add(begin(*spec, scripted().tokenizer))
            all_ = run_out(undisturbed)
        assert len(test.cancelled) > 30  # all are open at once here, and none writes for long
        kept = [n for n in range(EPISODES) if n not in test.cancelled]
        assert plain(done[n] for n in kept) == plain(all_[n] for n in kept)
    assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile


def test_a_runner_that_is_left_in_the_middle_leaves_nothing(few_rows: TransformersEngine):
    threads = set(threading.enumerate())
    engine, events = Steered(few_rows, steered_or_not), list[Event]()
    with Runner(engine, Facts(), on_event=events.append) as runner:
        for spec in specs()[:20]:
            runner.add(begin(*spec, engine.tokenizer))
        while not any(event.kind is EventKind.SEARCH for event in events):
            runner.step()
        assert runner._asked and runner._waiting and runner._searching
    check_nothing_left(runner, few_rows)
    assert len(runner) == 0
    assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile


# --- what comes together ---


def test_episodes_that_come_while_others_are_under_way(tiny_engine: TransformersEngine):
    engine = Steered(tiny_engine, rules("assistant\nAnswer:", f"Search: {GOES_ON}"))
    alone = {
        (q.id, m.name): t
        for m in METHODS
        for q, t in zip(QUESTIONS, rollout(QUESTIONS, engine, Facts(), method=m), strict=True)
    }
    waiting = list(itertools.product(QUESTIONS, METHODS))
    done: dict[int, Trajectory] = {}
    under_way = 0
    with Runner(engine, Facts()) as runner:
        while len(runner) or waiting:
            for spec in waiting[:2]:  # two more with each step, of several methods
                runner.add(begin(*spec, engine.tokenizer))
            del waiting[:2]
            done |= runner.step()
            under_way += bool(waiting and runner._asked)
    assert under_way > 5
    assert len(done) == 30
    for t in done.values():
        same_but_for_rounding(t, alone[t.question.id, t.method])


def test_methods_mixed_in_one_runner_do_as_each_alone():
    done = run_three_methods(scripted(), seed=3)
    mixed = {(t.method, t.question.id, t.sample): t for t in plain(done.values())}
    for method in METHODS:
        for t in plain(
            rollout(
                QUESTIONS, scripted(), Facts(), samples=2, method=method, seed=3,
                retry_malformed=True,
            )
        ):  # fmt: skip
            assert mixed[method.name, t.question.id, t.sample] == t


def test_an_episode_may_have_a_sampling_of_its_own():
    engine = ScriptedEngine({"": [f"Answer: {n}" for n in range(20)]})
    with Runner(engine, Facts()) as runner:
        for n in range(20):
            question = Question(str(n), "Which?")
            runner.add(begin(question, METHODS[0], engine.tokenizer), GREEDY if n % 2 else None)
        done = run_out(runner)
    assert {done[n].answer for n in range(1, 20, 2)} == {"0"}
    assert len({done[n].answer for n in range(0, 20, 2)}) > 3
    assert [done[n].truncated_sampling for n in range(4)] == [False, True, False, True]
    top = rollout(QUESTIONS, engine, Facts(), sampling=Sampling(top_p=0.9))
    assert all(t.truncated_sampling for t in top)


def test_looks_for_different_numbers_of_passages_in_one_batch():
    """One batch for all that want equally many, and everybody gets as many as were asked for."""
    engine = ScriptedEngine({"Assistant: Answer:": " x", "Notes:\nnone": "Search: y"})
    facts = Facts()
    with Runner(engine, facts) as runner:
        methods = [RagMethod(passages=k) for k in (3, 1, 3)] + [SelfAskMethod(max_steps=1)]
        for n, method in enumerate(methods):
            runner.add(begin(QUESTIONS[n], method, engine.tokenizer))
        done = run_out(runner)
    assert facts.batches == [
        (["What is fact 0?", "What is fact 2?"], 3),
        (["What is fact 1?", "y"], 1),
    ]
    assert [len(done[n].steps[0].passages) for n in range(4)] == [3, 1, 3, 1]
    for n in range(3):
        assert {p.title for p in done[n].steps[0].passages} == {QUESTIONS[n].question}


def test_a_failed_search_fails_only_those_of_its_own_query_and_k():
    engine = ScriptedEngine({"Assistant: Answer:": " x"})
    with Runner(engine, Facts()) as runner:
        for k, text in ((2, "broken"), (2, "fine"), (1, "fine"), (1, "broken")):
            question = Question(f"{text}{k}", text)
            runner.add(begin(question, RagMethod(passages=k), engine.tokenizer))
        done = run_out(runner)
    assert [(t.question.id, t.error) for _, t in sorted(done.items())] == [
        ("broken2", "no luck with broken"),
        ("fine2", None),
        ("fine1", None),
        ("broken1", "no luck with broken"),
    ]


def test_a_bar_shows_calls_and_searches_before_an_episode_ends(capsys):
    told = [EventKind.BEGUN, EventKind.TEXT, EventKind.SEARCH, EventKind.BEGUN, EventKind.END]
    with tqdm(total=2, mininterval=0, miniters=0) as bar:
        listen = showing(bar)
        for kind in told[:-1]:
            listen(Event(kind, 0, "q#0", 0.0))
        assert (bar.n, bar.postfix) == (0, "2 calls, 1 searches")
        assert "2 calls, 1 searches" in capsys.readouterr().err
        listen(Event(told[-1], 0, "q#0", 0.0))
        assert bar.n == 1
