"""The workload: real questions, the real index and method, and what is written at each call.

An untrained model would stop after one malformed thought. So the tokens are laid down before: each
call's output is forced (`Request.forced_ids`) while the model computes every step and its logits as
ever. All systems then do the same work, that of a trained searcher. What is forced comes from a
file of `exsearch rollout`, or is made here from the questions, the same each time.
"""

from __future__ import annotations

import dataclasses
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.agent.replay import UnreplayableError, replay
from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.engines.base import (
    ChatTokenizer,
    Generation,
    Request,
    Sampling,
    Session,
    random_key,
)
from exsearch.errors import DataError, EngineError
from exsearch.methods.format import Answer, Search, one_line, render_record, render_thought
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Evidence, Passage, Question, Step, Trajectory
from exsearch.retrievers import open_retriever
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.bm25 import build_bm25
from exsearch.training.recipe import Recipe
from exsearch.trajectories import by_question, read_trajectories

RECIPE = Path(__file__).parent.parent / "recipes" / "2wiki_cpu.toml"
SAMPLE = "sample:"
SAMPLES = 4  # K
FACT_WORDS = 24
_SPLITS = ("test", "dev", "train")
_REFERENCE = re.compile(r"#(\d+)")
_NAME = re.compile(r"(?:[A-Z][\w'.()-]*\s?)+")


def recipe() -> Recipe:
    """The recipe whose method and model settings are measured."""
    return load_config(Recipe, RECIPE)


def questions(data: str, count: int) -> list[Question]:
    """The first questions of the test, dev and train files, in this order.

    Raises:
        DataError: fewer than `count`.
    """
    found: list[Question] = []
    for split in _SPLITS:
        if len(found) < count:
            file = sample_path(split) if data == SAMPLE else Path(data) / f"{split}.jsonl.gz"
            found += load_questions(file)
    if len(found) < count:
        raise DataError(
            f"{len(found)} questions, expected {count}: name a larger folder with --data, or fewer",
            file=data,
        )
    return found[:count]


def build_index(data: str, folder: Path) -> Path:
    """The BM25 index of the data's corpus, in `folder`."""
    corpus = sample_path("corpus") if data == SAMPLE else Path(data) / "corpus.jsonl.gz"
    build_bm25(read_corpus([corpus]), folder, progress=False)
    return folder


def synthesised(
    asked: Iterable[Question],
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: SearcherMethod,
    samples: int = SAMPLES,
) -> Iterator[Trajectory]:
    """Trajectories as a trained searcher writes them, the same each time, one after the other.

    Each has two or three sub-queries and copies its facts from the passages found. For half of the
    questions the samples part ways, at the first query or at the second.
    """
    for question in asked:
        for sample in range(samples):
            yield _trajectory(question, sample, retriever, tokenizer, method)


def _trajectory(
    question: Question,
    sample: int,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: SearcherMethod,
) -> Trajectory:
    draw = random_key("workload", question.id)
    parting = draw // 2 % 2 if draw % 2 else None  # the query from which samples differ
    thought_tokens = method.thought_tokens
    steps: list[Step] = []
    for n, query in enumerate(_queries(question)[: method.max_steps]):
        variant = sample if parting is not None and n >= parting else 0
        query = _fitting(one_line(_reworded(query, variant)), _search, tokenizer, thought_tokens)
        found = tuple(retriever.search([query], method.passages)[0])
        evidence = _evidence(found, variant, tokenizer, method.record_tokens)
        steps.append(Step(query, found, evidence=evidence))
    answer = question.distinct_answers[0] if question.distinct_answers else "unknown"
    answer = _fitting(" ".join(answer.split()), _answer, tokenizer, thought_tokens)
    try:
        made = replay(question, steps, answer, method, tokenizer, within_limits=True)
    except UnreplayableError as error:
        raise DataError(f"question {question.id}: {error}") from None
    return dataclasses.replace(made, sample=sample)


def _fitting(text: str, written: Callable[[str], str], tokenizer: ChatTokenizer, limit: int) -> str:
    """The text, cut by words until what is written for it fits the call's limit."""
    words = text.split(" ")
    while words and len(tokenizer.encode(written(" ".join(words)))) >= limit:  # the end is one more
        words.pop()
    return " ".join(words)


def _search(query: str) -> str:
    return render_thought(Search(query))


def _answer(answer: str) -> str:
    return render_thought(Answer(answer))


def _evidence(
    passages: Sequence[Passage], variant: int, tokenizer: ChatTokenizer, limit: int
) -> Evidence | None:
    """The first words of a passage; a variant takes the next passage."""
    if not passages:
        return None
    passage = passages[variant % len(passages)]
    text = " ".join(passage.text.split()[:FACT_WORDS])

    def record(fact: str) -> str:
        return render_record(Evidence(fact, (passage.id,)), passages)

    fact = _fitting(one_line(f"{passage.title}: {text}"), record, tokenizer, limit)
    return Evidence(fact, (passage.id,))


def _queries(question: Question) -> list[str]:
    """Two or three sub-queries: the annotated hops, or else what the question names."""
    if question.decomposition:
        short = [hop.answer_short or hop.answer for hop in question.decomposition]
        filled = [
            _REFERENCE.sub(lambda m: short[min(int(m[1]), len(short)) - 1], hop.question)
            for hop in question.decomposition
        ]
        return filled[:3] if len(filled) > 1 else [*filled, question.question]
    after_first_word = question.question.partition(" ")[2]
    names = [name.strip() for name in _NAME.findall(after_first_word)][:2] or ["this"]
    return [*(f"What is known about {name}?" for name in names), question.question]


def _reworded(query: str, variant: int) -> str:
    endings = ("", " Name it.", " In which place or year?", " Who, and when?")
    return query + endings[variant % len(endings)]


class LaidDown:
    """An engine in front of another; what is written at each call is laid down before.

    A call is known by its request's key (`rollout` makes it from question, sample and call), so
    rollouts must use `SEED` and iteration 0. Everything else goes to the inner engine.

    Args:
        engine: Honours `Request.forced_ids`.
        trajectories: What to write; only their output ids are kept, packed.

    Raises:
        EngineError: a call that is in no trajectory, or an engine that writes something else.
    """

    SEED = 0

    def __init__(self, engine: Any, trajectories: Iterable[Trajectory]):
        self.inner = engine
        self._outputs = {
            call_key(t.question.id, t.sample, n): array("I", call.output_ids)
            for t in trajectories
            for n, call in enumerate(t.calls)
        }

    @property
    def rows(self) -> int:
        """As the inner engine."""
        return self.inner.rows

    @property
    def trains(self) -> bool:
        """As the inner engine."""
        return self.inner.trains

    @property
    def scores(self) -> bool:
        """As the inner engine."""
        return self.inner.scores

    @property
    def streams(self) -> bool:
        """As the inner engine."""
        return self.inner.streams

    @property
    def device(self) -> Any:
        """As the inner engine."""
        return self.inner.device

    @property
    def tokenizer(self) -> ChatTokenizer:
        """As the inner engine."""
        return self.inner.tokenizer

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """As the inner engine."""
        return self.inner.log_prob(prompts, continuations)

    def release(self) -> None:
        """As the inner engine."""
        self.inner.release()

    def load_weights(self, folder: Path) -> None:
        """As the inner engine."""
        self.inner.load_weights(folder)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """As the inner engine, with the outputs laid down."""
        forced = [self.forced(r) for r in requests]
        written = self.inner.generate(forced, sampling)
        for request, generation in zip(forced, written, strict=True):
            self.check(request, generation)
        return written

    def open(self) -> Session:
        """As the inner engine, with the outputs laid down."""
        return LaidDownSession(self, self.inner.open())

    def forced(self, request: Request) -> Request:
        """The request with its output laid down."""
        if request.key not in self._outputs:
            raise EngineError("a call that is in no trajectory: other prompts, or another seed?")
        return dataclasses.replace(request, forced_ids=tuple(self._outputs[request.key]))

    def check(self, request: Request, written: Generation | EngineError) -> None:
        """See that the engine wrote what was laid down."""
        if getattr(written, "output_ids", None) != request.forced_ids:
            raise EngineError(
                f"{type(self.inner).__name__} wrote {written} where {request.forced_ids} was laid "
                "down: it does not honour Request.forced_ids"
            )


class LaidDownSession:
    """A session of the inner engine, with the outputs laid down."""

    def __init__(self, engine: LaidDown, session: Session):
        self._engine, self._session = engine, session
        self._forced: dict[int, Request] = {}

    @property
    def busy(self) -> bool:
        """As the inner session."""
        return self._session.busy

    def submit(self, request: Request, sampling: Sampling) -> int:
        """As the inner session."""
        forced = self._engine.forced(request)
        ticket = self._session.submit(forced, sampling)
        self._forced[ticket] = forced
        return ticket

    def cancel(self, ticket: int) -> None:
        """As the inner session."""
        self._session.cancel(ticket)
        self._forced.pop(ticket, None)

    def written(self, ticket: int) -> Sequence[int]:
        """As the inner session."""
        return self._session.written(ticket)

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        """As the inner session."""
        ended = self._session.step()
        for ticket, reply in ended:
            self._engine.check(self._forced.pop(ticket), reply)
        return ended


def call_key(question_id: str, sample: int, call: int) -> int:
    """The key that `rollout` gives a request, with the seed of what is laid down."""
    return random_key(LaidDown.SEED, 0, question_id, sample, call, 0)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Questions, and the trajectories that every system is to write for them."""

    questions: list[Question]
    trajectories: list[Trajectory]
    method: SearcherMethod
    index: Path

    @property
    def samples(self) -> int:
        """K."""
        return len(self.trajectories) // len(self.questions)

    def of(self, count: int) -> Workload:
        """Of the first `count` questions alone."""
        ids = {q.id for q in self.questions[:count]}
        kept = [t for t in self.trajectories if t.question.id in ids]
        return dataclasses.replace(self, questions=self.questions[:count], trajectories=kept)

    def retriever(self) -> Retriever:
        """The retriever with an empty cache."""
        return open_retriever(self.index)


def workload(
    data: str, count: int, folder: Path, tokenizer: ChatTokenizer, recorded: Path | None = None
) -> Workload:
    """The workload of `count` questions, or of a recorded file's first `count`.

    Raises:
        DataError: fewer questions than that.
    """
    method, index = recipe().method, build_index(data, folder / "index")
    assert isinstance(method, SearcherMethod)
    if recorded is None:
        asked = questions(data, count)
        made = list(synthesised(asked, open_retriever(index), tokenizer, method))
        return Workload(asked, made, method, index)
    groups = by_question([t for t in read_trajectories(recorded) if t.trainable])
    samples = max(map(len, groups), default=0)
    whole = [group for group in groups if len(group) == samples]
    if len(whole) < count:
        raise DataError(f"{len(whole)} questions, expected {count}", file=recorded)
    asked = [group[0].question for group in whole]
    return Workload(asked, [t for group in whole for t in group], method, index).of(count)
