"""A method of one's own searches when it likes, hides hints, and finds its answer in a reply."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exsearch.agent.episode import begin
from exsearch.agent.rollout import rollout
from exsearch.agent.runner import Runner
from exsearch.engines.base import Request, Sampling
from exsearch.engines.local.engine import TransformersEngine
from exsearch.engines.scripted import ScriptedEngine
from exsearch.methods.base import Answer, Ask, Look, Malformed, Plan
from exsearch.records import (
    CallKind,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
)
from exsearch.training.e_step import EStepConfig, sample_and_weigh, weigh
from exsearch.trajectories import read_traces
from steered import Steered

QUESTIONS = [Question(f"q{n}", f"What is fact {n}?", ("it",)) for n in range(4)]


class Facts:
    """Gives k passages a query, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.asked += [(query, k) for query in queries]
        return [[Passage(f"{q}/{n}", q, f"text {n}") for n in range(k)] for q in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        raise NotImplementedError

    def identity(self) -> str:
        return "facts"


@dataclasses.dataclass(frozen=True)
class Planned:
    """A method made of a plan; for tests alone, as its settings are no plain values."""

    name: ClassVar[str] = "planned"

    planned: Callable[[Question, list[Step]], Plan]

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        return self.planned(question, steps)


def ask(prompt: str, parse: Callable[[str], Any], kind=CallKind.THINK, **options: Any) -> Ask:
    return Ask(kind, prompt, parse, options.pop("max_tokens", 40), **options)


def run(planned: Callable[..., Plan], engine: Any, **options: Any) -> list[Trajectory]:
    questions = options.pop("questions", QUESTIONS[:1])
    retriever = options.pop("retriever", None) or Facts()
    return rollout(questions, engine, retriever, method=Planned(planned), **options)


# --- searches ---


def twice(question: Question, steps: list[Step]) -> Plan:
    """Two searches before anything is asked, and two after it."""
    for query, k in ((question.question, 2), ("more", 3)):
        steps.append(Step(query, (yield Look(query, k))))
    word = yield ask(" ".join(p.id for s in steps for p in s.passages), str.strip)
    for query in (word, f"{word} again"):
        steps.append(Step(query, (yield Look(query, 1))))
    return (yield ask("answer", Answer, CallKind.ANSWER, forced="Answer:"))


def test_a_search_may_come_first_and_twice_in_a_row():
    facts = Facts()
    (t,) = run(twice, ScriptedEngine({"answer": " done", "": "word"}), retriever=facts)
    assert facts.asked == [(QUESTIONS[0].question, 2), ("more", 3), ("word", 1), ("word again", 1)]
    assert [(s.query, len(s.passages)) for s in t.steps] == facts.asked
    assert (t.answer, t.answer_start, t.stop_reason) == (" done", 0, StopReason.ANSWERED)
    assert (t.method, [c.kind for c in t.calls]) == ("planned", ["think", "answer"])


def at_once(question: Question, steps: list[Step]) -> Plan:
    return (yield ask("answer", Answer, CallKind.ANSWER, forced="Answer:"))


def test_a_method_need_not_search():
    facts = Facts()
    (t,) = run(at_once, ScriptedEngine({"": " done"}), retriever=facts)
    assert (t.answer, t.steps, facts.asked) == (" done", (), [])


# --- answers without the model ---


def by_rule(question: Question, steps: list[Step]) -> Plan:
    """Says what it finds; asks a model about every other question alone."""
    found = yield Look(question.question, 1)
    steps.append(Step(question.question, found))
    if int(question.id[1:]) % 2:
        return (yield ask("answer", Answer, CallKind.ANSWER, forced="Answer:"))
    return Answer(found[0].text)


def at_a_glance(question: Question, steps: list[Step]) -> Plan:
    return Answer("42")
    yield


def test_a_method_may_answer_without_asking_the_model():
    asked: list[str] = []

    def script(chat: str) -> str:
        asked.append(chat)
        return " done"

    odd, even = run(by_rule, ScriptedEngine(script), questions=QUESTIONS[1:3])
    assert (odd.answer, odd.answer_start, len(odd.calls)) == (" done", 0, 1)
    assert (even.answer, even.answer_start, even.calls) == ("text 0", None, ())
    assert even.stop_reason is StopReason.ANSWERED
    assert not even.trainable
    # Even its first move may be the answer.
    for t in run(at_a_glance, ScriptedEngine(script), questions=QUESTIONS):
        assert (t.answer, t.calls, t.steps) == ("42", (), ())
    assert len(asked) == 1


def test_what_the_model_was_not_asked_is_written_without_a_weight(tmp_path: Path):
    file = tmp_path / "t.jsonl"
    engine = ScriptedEngine({"": " it"})
    (facts,) = sample_and_weigh(
        QUESTIONS, engine, Facts(), file, EStepConfig(samples=2), Planned(by_rule), seed=0,
        iteration=0,
    )  # fmt: skip
    assert (facts["samples"], facts["failed"]) == (8, 0)
    traces = list(read_traces(file))
    weights = {t.trajectory.id: t.weight for t in traces if isinstance(t, WeightedTrajectory)}
    assert weights == {f"q{n}#{k}": 0.5 for n in (1, 3) for k in range(2)}
    plain = {t.id: t.answer for t in traces if isinstance(t, Trajectory)}
    assert plain == {f"q{n}#{k}": "text 0" for n in (0, 2) for k in range(2)}
    (t,) = run(at_a_glance, engine)
    with pytest.raises(ValueError, match="carries no token ids"):
        weigh([t], engine)


# --- the answer in a reply ---

_SO = re.compile(r"So the answer is(?=\W)")


def concluded(text: str) -> Answer | Malformed:
    """What stands after the frame, wherever in the reply that is."""
    frame = _SO.search(text)
    return Answer(text[frame.end() :].strip(" ."), frame.end()) if frame else Malformed("no_frame")


def think_aloud(question: Question, steps: list[Step]) -> Plan:
    return (yield ask(f"Think aloud. {question.question}", concluded))


ALOUD = "It was built in Brno, I think. So the answer is the villa."


def test_a_frame_in_the_middle_of_a_reply():
    engine = ScriptedEngine({"": ALOUD})
    (t,) = run(think_aloud, engine)
    assert t.answer == "the villa"
    head = engine.tokenizer.encode(ALOUD.partition(" the villa")[0])
    assert t.answer_start == len(head) > 10
    assert t.calls[-1].output_ids[: t.answer_start] == head
    assert t.latent_calls == ((t.calls[-1], len(head)),)
    (lost,) = run(think_aloud, ScriptedEngine({"": "I do not know."}))
    assert (lost.malformed, lost.answer_start) == ("no_frame", None)


def test_a_frame_in_the_middle_of_a_reply_of_a_real_model(tiny_engine: TransformersEngine):
    (t,) = run(think_aloud, Steered(tiny_engine, {"": ALOUD}))
    assert t.answer == "the villa"
    ids, start = t.calls[-1].output_ids, t.answer_start
    assert start is not None and start > 10
    assert tiny_engine.tokenizer.decode(ids[:start]) == ALOUD.partition(" the villa")[0]
    assert tiny_engine.tokenizer.decode(ids[start:]) == " the villa."


def test_an_answer_that_is_not_the_end_marks_nothing():
    """A first answer that the plan has checked by a second call: only the last one counts."""

    def checked(question: Question, steps: list[Step]) -> Plan:
        first = yield ask("first", concluded)
        second = yield ask(f"Is it {first.text}?", lambda text: text or Malformed("nothing"))
        return Answer(second)

    (t,) = run(checked, ScriptedEngine({"first": ALOUD, "Is it the villa?": "yes, it is"}))
    assert (t.answer, t.answer_start, len(t.calls)) == ("yes, it is", None, 2)
    (t,) = run(checked, ScriptedEngine({"first": ALOUD, "Is it the villa?": ""}))
    assert (t.malformed, t.answer, t.answer_start, len(t.calls)) == ("nothing", "", None, 2)


class Joined(ScriptedEngine):
    """Writes a reply as the tokens that it is given."""

    def __init__(self, *tokens: str):
        super().__init__({"": ""})
        self.tokens = tokens

    def generate(self, requests, sampling):
        ids = (*(int.from_bytes(b"\x01" + t.encode(), "big") for t in self.tokens), 0)
        return [
            dataclasses.replace(g, output_ids=ids, log_probs=(-1.0,) * len(ids))
            for g in super().generate(requests, sampling)
        ]


def test_a_token_that_straddles_the_frame_of_a_method_s_own():
    (t,) = run(think_aloud, Joined("So the", " answer", " is", " it"))
    assert (t.answer, t.answer_start) == ("it", 3)
    (t,) = run(think_aloud, Joined("So the", " answer", " is it"))
    assert (t.malformed, t.answer, t.answer_start) == ("straddling_token", "", None)
    assert t.stop_reason is StopReason.MALFORMED


COLON = "\N{FULLWIDTH COLON}"


def test_a_frame_whose_last_character_takes_several_tokens(tiny_engine: TransformersEngine):
    """A byte-level tokenizer writes a sign that it does not know as its bytes, one by one."""

    def plan(question: Question, steps: list[Step]) -> Plan:
        def parse(text: str) -> Answer | Malformed:
            start = text.find(COLON) + 1
            return Answer(text[start:], start) if start else Malformed("no_frame")

        return (yield ask("Which?", parse))

    tokenizer = tiny_engine.tokenizer
    assert len(tokenizer.encode(COLON)) == 3
    (t,) = run(plan, Steered(tiny_engine, {"": f"So{COLON} it"}))
    assert (t.answer, t.malformed) == (" it", None)
    assert t.answer_start == len(tokenizer.encode(f"So{COLON}"))


# --- hints ---

HINT = "(The answer is the villa.)"


def hinted(question: Question, steps: list[Step]) -> Plan:
    """A call without a hint, one with a hint, and a hinted one that goes on from it."""
    query = yield ask(f"Search. {question.question}", str.strip, max_tokens=12)
    steps.append(Step(query, (yield Look(query, 1))))
    yield ask("What helps?", str, CallKind.RECORD, max_tokens=12, hint=HINT)
    return (
        yield ask(
            "So?", Answer, CallKind.ANSWER, max_tokens=12, forced="Answer:", hint=HINT, goes_on=True
        )
    )


SCRIPT = {"Search.": "one", "Answer:": [" it", " the town"], "What helps?": "[1] it is so"}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7)])
def test_a_hint_is_seen_while_sampling_and_recorded_nowhere(
    tiny_engine: TransformersEngine, sampling: Sampling
):
    engine = Steered(tiny_engine, SCRIPT)
    tokenizer = tiny_engine.tokenizer
    (t,) = run(hinted, engine, sampling=sampling)
    assert (t.stop_reason, len(t.calls)) == (StopReason.ANSWERED, 3)
    assert t.answer_start == 0

    plain, record, answer = t.calls
    for call in t.calls:
        assert HINT not in tokenizer.decode(call.prompt_ids)
    seen_first, seen_record, seen_answer = engine.asked
    assert seen_first == plain.prompt_ids
    frame = tokenizer.encode("Answer:")
    chat = [{"role": "user", "content": "What helps?"}]
    assert record.prompt_ids == tokenizer.encode_chat(chat)
    with_hint = [{"role": "user", "content": f"What helps?\n{HINT}"}]
    assert seen_record == tokenizer.encode_chat(with_hint)
    # What goes on goes on from what is recorded, not from what was seen.
    written = record.prompt_ids, record.output_ids
    assert answer.prompt_ids == (*tokenizer.extend_chat(*written, "So?"), *frame)
    assert seen_answer == (*tokenizer.extend_chat(*written, f"So?\n{HINT}"), *frame)

    for call, seen in zip(t.calls, engine.asked, strict=True):
        (log_p,) = tiny_engine.log_prob([call.prompt_ids], [call.output_ids])
        assert call.log_probs == pytest.approx(log_p, abs=1e-4)
        (as_seen,) = tiny_engine.log_prob([seen], [call.output_ids])
        if seen != call.prompt_ids:
            assert max(abs(a - b) for a, b in zip(as_seen, log_p, strict=True)) > 0.1
        if sampling.is_model:
            assert call.proposal_log_probs == pytest.approx(as_seen, abs=1e-4)
        else:
            tempered = tempered_log_probs(tiny_engine, seen, call.output_ids, sampling.temperature)
            assert call.proposal_log_probs == pytest.approx(tempered, abs=1e-4)
    assert not t.drawn_from_model


def tempered_log_probs(
    engine: TransformersEngine, prompt: Sequence[int], output: Sequence[int], temperature: float
) -> list[float]:
    """Log q of each token by a plain pass over the whole sequence."""
    import torch

    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([[*prompt, *output]])).logits[0].double()
    log_q = torch.log_softmax(logits / temperature, dim=-1)
    return [log_q[len(prompt) + n - 1, token].item() for n, token in enumerate(output)]


def test_a_hinted_reply_that_is_malformed_is_tried_again_with_its_hint():
    prompts: list[str] = []

    class Heard(ScriptedEngine):
        def generate(self, requests: Sequence[Request], sampling: Sampling):
            prompts.extend(self.tokenizer.chat_text(r.prompt_ids) for r in requests)
            return super().generate(requests, sampling)

    def plan(question: Question, steps: list[Step]) -> Plan:
        return (yield ask("Think aloud.", concluded, hint=HINT))

    replies = iter(["hm", ALOUD])
    (t,) = run(plan, Heard(lambda chat: next(replies)), retry_malformed=True)
    assert (t.answer, t.retries) == ("the villa", 1)
    assert [HINT in prompt for prompt in prompts] == [True, True]


def test_hinted_and_plain_calls_share_a_step(tiny_engine: TransformersEngine):
    """Each has its own log p, whatever ends beside it."""
    engine = Steered(tiny_engine, {**SCRIPT, "Think aloud.": ALOUD})
    with Runner(engine, Facts()) as runner:
        numbers = [
            runner.add(begin(question, Planned(plan), engine.tokenizer))
            for question in QUESTIONS
            for plan in (hinted, think_aloud)
        ]
        done: dict[int, Trajectory] = {}
        while len(runner):
            done |= runner.step()
    for number in numbers:
        for call in done[number].calls:
            (log_p,) = tiny_engine.log_prob([call.prompt_ids], [call.output_ids])
            assert call.log_probs == pytest.approx(log_p, abs=1e-4)
        assert done[number].drawn_from_model == (len(done[number].calls) == 1)


def test_trajectories_of_a_method_of_one_s_own_travel_as_json(tmp_path: Path):
    file = tmp_path / "t.jsonl"
    engine = ScriptedEngine({"answer": " it", "": "word"})
    sample_and_weigh(
        QUESTIONS[:1], engine, Facts(), file, EStepConfig(samples=1), Planned(twice), seed=0,
        iteration=0,
    )  # fmt: skip
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["trajectory"]["method"] == "planned"
    (trace,) = read_traces(file)
    assert isinstance(trace, WeightedTrajectory)
    assert [s.query for s in trace.trajectory.steps] == [
        QUESTIONS[0].question, "more", "word", "word again",
    ]  # fmt: skip
