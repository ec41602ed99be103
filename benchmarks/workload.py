"""The workload: real questions, the real index and agent, and what is written at each call.

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

from exsearch.retrievers import open_retriever

from exsearch.agent.episode import begin
from exsearch.methods.searcher import SearcherMethod
from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.engines.base import ChatTokenizer, Generation, Request, Sampling, random_key
from exsearch.errors import DataError, EngineError
from exsearch.methods.format import Answer, Search, render_record, render_thought
from exsearch.records import Evidence, Passage, Question, Trajectory
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.bm25 import build_bm25
from exsearch.trajectories import by_question
from exsearch.training.recipe import Recipe
from exsearch.training.warm_up import read_examples, written

RECIPE = Path(__file__).parent.parent / "recipes" / "2wiki_cpu.toml"
SAMPLE = "sample:"
SAMPLES = 4  # K
FACT_WORDS = 24
_SPLITS = ("test", "dev", "train")
_REFERENCE = re.compile(r"#(\d+)")
_NAME = re.compile(r"(?:[A-Z][\w'.()-]*\s?)+")


def recipe() -> Recipe:
    """The recipe whose agent and model settings are measured."""
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
    agent: SearcherMethod,
    samples: int = SAMPLES,
) -> Iterator[Trajectory]:
    """Trajectories as a trained searcher writes them, the same each time, one after the other.

    Each has two or three sub-queries and copies its facts from the passages found. For half of the
    questions the samples part ways, at the first query or at the second.
    """
    for question in asked:
        for sample in range(samples):
            yield _trajectory(question, sample, retriever, tokenizer, agent)


def _trajectory(
    question: Question,
    sample: int,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    agent: SearcherMethod,
) -> Trajectory:
    episode = Episode(question, sample, agent, tokenizer)
    draw = random_key("workload", question.id)
    parting = draw // 2 % 2 if draw % 2 else None  # the query from which samples differ
    for n, query in enumerate(_queries(question)[: agent.max_steps]):
        variant = sample if parting is not None and n >= parting else 0
        _say(episode, render_thought(Search(_reworded(query, variant))), agent.thought_tokens)
        passages = retriever.search([episode.query or ""], agent.passages)[0]
        episode.found(passages)
        _say(episode, render_record(_fact(passages, variant), passages), agent.record_tokens)
    answer = question.distinct_answers[0] if question.distinct_answers else "unknown"
    _say(episode, render_thought(Answer(answer)), agent.thought_tokens)
    return episode.trajectory()


def _say(episode: Episode, text: str, limit: int) -> None:
    """Put a text in the model's place, cut by words until it fits the call's limit."""
    words = text.split(" ")
    while len(call := written(episode, " ".join(words)).output_ids) > limit:
        words = words[:-1]
    assert len(call) <= limit
    episode.take(written(episode, " ".join(words)), finished=True)
    if episode.malformed:
        raise DataError(f"question {episode.question.id}: {text!r} is {episode.malformed}")


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


def _fact(passages: Sequence[Passage], variant: int) -> Evidence | None:
    """The first words of a passage; a variant takes the next passage."""
    if not passages:
        return None
    passage = passages[variant % len(passages)]
    text = " ".join(passage.text.split()[:FACT_WORDS])
    return Evidence(f"{passage.title}: {text}", (passage.id,))


class Replay:
    """An engine in front of another that lays down what is written at each call.

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

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The inner engine's."""
        return self.inner.tokenizer

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """As the inner engine."""
        return self.inner.log_prob(prompts, continuations)

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

    @property
    def open(self) -> Callable[[], ReplaySession]:
        """As the inner engine, where it has sessions; else no such attribute."""
        inner = self.inner.open
        return lambda: ReplaySession(self, inner())

    def forced(self, request: Request) -> Request:
        """The request with its output laid down."""
        if request.key not in self._outputs:
            raise EngineError("a call that is in no trajectory: other prompts, or another seed?")
        return dataclasses.replace(request, forced_ids=tuple(self._outputs[request.key]))

    def check(self, request: Request, written: Generation) -> None:
        """See that the engine wrote what was laid down."""
        if getattr(written, "output_ids", None) != request.forced_ids:
            raise EngineError(
                f"{type(self.inner).__name__} wrote {written} where {request.forced_ids} was laid "
                "down: it does not honour Request.forced_ids"
            )


class ReplaySession:
    """A session of the inner engine, with the outputs laid down."""

    def __init__(self, replay: Replay, session: Any):
        self._replay, self._session = replay, session
        self._forced: dict[int, Request] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def submit(self, request: Request, sampling: Sampling) -> int:
        """As the inner session."""
        forced = self._replay.forced(request)
        ticket = self._session.submit(forced, sampling)
        self._forced[ticket] = forced
        return ticket

    def step(self) -> list[tuple[int, Any]]:
        """As the inner session."""
        ended = self._session.step()
        for ticket, generation in ended:
            self._replay.check(self._forced.pop(ticket), generation)
        return ended


def call_key(question_id: str, sample: int, call: int) -> int:
    """The key that `rollout` gives a request, with the seed of a replay."""
    return random_key(Replay.SEED, 0, question_id, sample, call, 0)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Questions, and the trajectories that every system is to write for them."""

    questions: list[Question]
    trajectories: list[Trajectory]
    agent: SearcherMethod
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
    data: str, count: int, folder: Path, tokenizer: ChatTokenizer, replay: Path | None = None
) -> Workload:
    """The workload of `count` questions, or of a recorded file's first `count`.

    Raises:
        DataError: fewer questions than that.
    """
    agent, index = recipe().agent, build_index(data, folder / "index")
    if replay is None:
        asked = questions(data, count)
        made = list(synthesised(asked, open_retriever(index), tokenizer, agent))
        return Workload(asked, made, agent, index)
    groups = by_question([i for i in read_examples(replay) if i.trajectory.trainable])
    samples = max(map(len, groups), default=0)
    whole = [[i.trajectory for i in g] for g in groups if len(g) == samples]
    if len(whole) < count:
        raise DataError(f"{len(whole)} questions, expected {count}", file=replay)
    asked = [group[0].question for group in whole]
    return Workload(asked, [t for group in whole for t in group], agent, index).of(count)
