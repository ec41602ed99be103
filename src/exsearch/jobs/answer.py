"""Answering asks one searcher many questions side by side, and gives the answers in their order.

A file of answers grows line by line, and a later call goes on after its last line. Nothing is
scored.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from exsearch.agent.events import Event, showing
from exsearch.engines import open_engine
from exsearch.engines.base import Sampling
from exsearch.engines.config import ModelConfig
from exsearch.errors import RunError
from exsearch.jobs.inputs import model_identity, with_today_s_method
from exsearch.jobs.provenance import refuse_others, settle
from exsearch.methods import method_values
from exsearch.methods.base import Method
from exsearch.progress import Bars
from exsearch.retrievers import open_retriever
from exsearch.retrievers.guarded import TIMEOUT, GuardedRetriever, guarded
from exsearch.runs import append_jsonl, companion, finite, locked, read_jsonl
from exsearch.searcher import Found, Searcher
from exsearch.show.traces import answer_object

FAILURES = 100  # questions that fail one after the other: it is not the questions
_ELSEWHERE = "name another place with --out, or undo the change"


@dataclasses.dataclass(frozen=True)
class Asked:
    """Who is asked, and over which passages.

    Attributes:
        index: An index folder, or the address of a search server.
        model: The model and its engine.
        method: How questions are answered.
        temperature: The temperature of sampling; 0 is greedy.
        seed: Decides all sampling.
        abstain: The least confidence of an answer that is told.
        timeout: Seconds until a search counts as failed.
    """

    index: str
    model: ModelConfig
    method: Method
    temperature: float = 0.0
    seed: int = 0
    abstain: float = 0.0
    timeout: float = TIMEOUT

    def retriever(self) -> GuardedRetriever:
        """The retriever at the index, behind its guard."""
        return guarded(open_retriever(self.index), self.timeout)

    def searcher(self, retriever: GuardedRetriever | None = None) -> Searcher:
        """The searcher with its model loaded.

        Args:
            retriever: What `retriever` gave; None opens it.
        """
        place = retriever or self.retriever()  # first: a model takes long to load
        return Searcher(
            open_engine(self.model),
            place,
            method=self.method,
            sampling=Sampling(self.temperature),
            seed=self.seed,
            abstain=self.abstain,
        )


def answers(
    questions: Mapping[str, str], searcher: Searcher, bar: Any
) -> Iterator[tuple[str, Found]]:
    """Answer questions side by side; each answer is given as soon as those before it are.

    A question that fails has its error in `Found.error`. Who stops listening takes back the rest.

    Args:
        questions: The questions by id.
        searcher: The searcher.
        bar: A progress bar, which moves on with each question.

    Raises:
        EngineError: the model can't be run at all.
        ModelServerError: the model's server can't be used at all.
    """
    listen: Callable[[Event], None] = showing(bar)
    futures: deque[tuple[str, Future[Found]]] = deque()
    try:
        for id_, question in questions.items():
            futures.append((id_, searcher.submit(question, on_event=listen)))
        while futures:
            found = futures[0][1].result()
            yield futures.popleft()[0], found
    finally:
        for _, future in futures:
            future.cancel()


def answer_into(
    file: Path, questions: Mapping[str, str], asked: Asked, *, bars: Bars | None = None
) -> dict[str, int]:
    """Answer questions into JSON lines, one an answer in their order, or go on with that.

    Failed questions are written once one after them succeeds, or at the end: where nothing can be
    had any more, a later call asks them again.

    Args:
        file: The file; settings and environment stand beside it.
        questions: The questions by id; there may be more at the end than at an earlier call.
        asked: Who is asked.
        bars: Opens the progress bar; None shows one.

    Returns:
        Counts of `questions`, and of those that `failed` or whose answer is `withheld`.

    Raises:
        RunError: the file has the answer to another question, was begun with other settings, or
            not by this job.
        RetrieverError, EngineError: every question failed, or very many one after the other.
    """
    retriever = asked.retriever()
    settings = _settings(asked, retriever)
    settings_file, environment_file = (
        companion(file, f"{name}.json") for name in ("settings", "environment")
    )
    refuse_others(settings_file, settings, [file, settings_file, environment_file])
    with locked(file.parent, file.name):
        done = _done(file, questions)
        settle(
            settings_file, settings, environment_file, begun=bool(done), today=with_today_s_method
        )
        rest = dict(list(questions.items())[len(done) :])
        with (bars or Bars()).open("ask", len(questions), "question", len(done)) as bar:
            if rest:
                begun = any(not line.get("error") for line in done)
                done += _write(file, rest, asked.searcher(retriever), bar, begun)
    return {
        "questions": len(done),
        "failed": sum(bool(line.get("error")) for line in done),
        "withheld": sum(bool(line.get("withheld")) for line in done),
    }


def _settings(asked: Asked, retriever: GuardedRetriever) -> dict[str, Any]:
    return {
        "index": retriever.identity(),
        "model": model_identity(asked.model),
        "method": method_values(asked.method),
        "temperature": asked.temperature,
        "seed": asked.seed,
        "abstain": asked.abstain,
    }


def _done(file: Path, questions: Mapping[str, str]) -> list[dict[str, Any]]:
    """The lines that stand there, which must be of the first questions."""
    lines = list(read_jsonl(file, id=str, question=str))
    if len(lines) > len(questions):
        raise RunError(
            f"{file}: has {len(lines)} answers, more than the {len(questions)} questions; "
            f"{_ELSEWHERE}"
        )
    for number, (line, (id_, text)) in enumerate(
        zip(lines, questions.items(), strict=False), start=1
    ):
        if (line["id"], line["question"]) != (id_, text):
            was = f"{line['id']}: {line['question']!r:.99}"
            raise RunError(
                f"{file}:{number}: answers another question, {was}, than is asked now, "
                f"{id_}: {text!r:.99}; {_ELSEWHERE}"
            )
    return lines


def _write(
    file: Path, questions: Mapping[str, str], searcher: Searcher, bar: Any, begun: bool
) -> list[dict[str, Any]]:
    """Answer questions into a file; `begun` says that some question was answered before."""
    written: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    last: Found | None = None
    for id_, found in answers(questions, searcher, bar):
        line = {"id": id_, "question": questions[id_], **found_object(found)}
        failed.append(line)
        last = found
        if found.error is None:
            begun = True
            append_jsonl(file, map(_line, failed))
            written, failed = [*written, *failed], []
        elif len(failed) >= FAILURES:
            found.or_raise()
    if failed and last is not None:
        if not begun:
            last.or_raise()
        append_jsonl(file, map(_line, failed))
    return [*written, *failed]


def found_object(found: Found) -> dict[str, Any]:
    """What was found out as plain values, with the `error` of a question that failed."""
    return {**answer_object(found.trajectory, found.abstain), "error": found.error}


def _line(values: dict[str, Any]) -> str:
    return json.dumps(finite(values), ensure_ascii=False, allow_nan=False, default=str)
