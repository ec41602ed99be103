"""A searcher answers questions over an index: the short way from Python to an answer with evidence.

It may be shared: any number of threads and tasks ask, one thread at a time steps the runner, and
questions that are asked at the same time share its batches. Training and evaluation are elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from exsearch.agent.confidence import Confidence, confidence
from exsearch.agent.episode import begin
from exsearch.agent.events import Event, OnEvent
from exsearch.agent.runner import Runner
from exsearch.engines import load_engine
from exsearch.engines.base import GREEDY, Engine, Sampling
from exsearch.errors import EngineError, RetrieverError
from exsearch.methods import open_method
from exsearch.methods.base import Method
from exsearch.models.settings import model_settings
from exsearch.records import Evidence, Question, StopReason, Trajectory, refuse_text
from exsearch.retrievers import open_retriever
from exsearch.retrievers.base import Retriever


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a searcher found out about one question.

    Attributes:
        trajectory: All that was done: searches, evidence, calls and answer.
        abstain: The least confidence of an answer that is told.
    """

    trajectory: Trajectory
    abstain: float = 0.0

    @property
    def answer(self) -> str:
        """The answer; empty where none was reached, or where it is withheld.

        `trajectory.stop_reason` and `withheld` say why.
        """
        return "" if self.withheld else self.trajectory.answer

    @property
    def confidence(self) -> Confidence:
        """How far the answer rests on what was found."""
        return confidence(self.trajectory)

    @property
    def withheld(self) -> str:
        """Why the answer is withheld; empty where it is not, or where there is none."""
        asked = self.abstain and self.trajectory.answer
        return self.confidence.withheld(self.abstain) if asked else ""

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The facts that were recorded, each with the ids of the passages it came from."""
        return self.trajectory.evidence

    @property
    def error(self) -> str | None:
        """What failed, where a search or the model did; None where nothing failed."""
        return self.trajectory.error if self.trajectory.stop_reason.is_error else None

    def or_raise(self) -> Found:
        """This object itself, unless something failed.

        Raises:
            RetrieverError: a search failed.
            EngineError: the model failed, or the question does not fit it.
        """
        if self.error is None:
            return self
        failed = self.trajectory.stop_reason is StopReason.RETRIEVER_ERROR
        raise (RetrieverError if failed else EngineError)(self.error)


@dataclasses.dataclass(eq=False)
class _Job:
    """A question on its way, and who waits for it.

    Attributes:
        question: The question that is asked.
        future: The future that gets what is found.
        on_event: A function that is called with each of the question's events.
        number: The number of its episode in the runner; None before it is there.
    """

    question: Question
    future: Future[Found]
    on_event: OnEvent | None
    number: int | None = None


class Searcher:
    """Answers questions with a model and an index; threads and tasks may share it.

    An answer does not depend on what else is asked at the same time: it follows from the question's
    text, the seed and the settings alone.

    Args:
        model: A name, a Hugging Face id, a folder, a finished run, or an open engine. An engine
            must not be used elsewhere while a question is under way.
        index: An index folder, an address, or an open retriever.
        method: How questions are answered; by default as the model was trained, and for an open
            engine the searcher.
        sampling: The distribution that tokens are drawn from; greedy by default.
        seed: Decides the sampling, with the question's text.
        abstain: The least confidence, from 0 to 1, of an answer that is told; 0 tells all.
        settings: Settings for `load_engine`, where `model` is no open engine: device, batch_size, …

    Raises:
        ExSearchError: the model or the index can't be opened.

    Example:
        >>> searcher = Searcher("smollm2-135m", "my_index")  # doctest: +SKIP
        >>> searcher.ask("Who wrote Dune?").answer  # doctest: +SKIP
        'Frank Herbert'
    """

    def __init__(
        self,
        model: str | Path | Engine,
        index: str | Path | Retriever,
        *,
        method: Method | None = None,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        abstain: float = 0.0,
        **settings: Any,
    ):
        # The index first: that it is missing shows at once, and a model takes long to load.
        self.retriever = open_retriever(index) if isinstance(index, str | Path) else index
        if isinstance(model, str | Path):
            self.method = method or model_settings(model).method
            self.engine = load_engine(model, **settings)
        else:
            if settings:
                raise TypeError(f"{', '.join(settings)}: for a model that is loaded, not an engine")
            self.method = method or open_method()
            self.engine = model
        self.sampling, self.seed, self.abstain = sampling, seed, abstain
        self._lock = threading.Lock()  # guards the attributes below
        self._new: list[_Job] = []
        self._cancelled: list[_Job] = []
        self._owner: threading.Thread | None = None  # steps the runner; ends when all is answered
        self._closed = False

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, question: str, *, on_event: OnEvent | None = None) -> Future[Found]:
        """Ask a question without waiting; cancelling the future takes the question back.

        Args:
            question: The text of the question.
            on_event: A function that is called with each event of the question, on the thread that
                steps the runner. It must be quick; where it raises, only this question fails.

        Returns:
            A future of what is found; a search or a call that failed is told in `Found.error`. The
            future itself raises where the engine can't be run, where the searcher is closed
            meanwhile, and what `on_event` raised.

        Raises:
            RuntimeError: the searcher is closed.
        """
        digest = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=8).hexdigest()
        job = _Job(Question(id=digest, question=question), Future(), on_event)
        with self._lock:
            if self._closed:
                raise RuntimeError("this searcher is closed")
            self._new.append(job)
            if self._owner is None:
                self._owner = threading.Thread(target=self._work, name="searcher", daemon=True)
                self._owner.start()
        job.future.add_done_callback(lambda future: self._take_back(job, future))
        return job.future

    def ask(self, question: str) -> Found:
        """Answer one question.

        Args:
            question: The text of the question.

        Raises:
            RetrieverError: a search failed.
            EngineError: the model failed, or the question does not fit it.
            ModelServerError: the model's server can't be used.
        """
        return self.ask_batch([question])[0].or_raise()

    def ask_batch(self, questions: Sequence[str]) -> list[Found]:
        """Answer questions side by side, which takes less time than one after the other.

        A question that fails does not lose the others: its `Found.error` says what failed.

        Args:
            questions: The texts of the questions.

        Returns:
            What was found, in the order of the questions.

        Raises:
            EngineError: the model can't be run at all.
            ModelServerError: the model's server can't be used at all.
            TypeError: `questions` is one text.
        """
        refuse_text("questions", questions)
        futures = [self.submit(question) for question in questions]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:  # nobody waits for the rest after an error or Ctrl-C
                future.cancel()

    async def ask_async(self, question: str) -> Found:
        """Answer one question in asyncio; a cancelled task takes its question back.

        Args:
            question: The text of the question.

        Raises:
            RetrieverError: a search failed.
            EngineError: the model failed, or the question does not fit it.
            ModelServerError: the model's server can't be used.
        """
        return (await asyncio.wrap_future(self.submit(question))).or_raise()

    def events(self, question: str) -> Iterator[Event]:
        """Answer one question and tell each event as it happens; the event `end` is the last.

        Who stops listening before the end takes the question back.

        Args:
            question: The text of the question.

        Raises:
            EngineError: the model can't be run at all.
            ModelServerError: the model's server can't be used at all.
        """
        heard: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        future = self.submit(question, on_event=heard.put)
        future.add_done_callback(lambda _: heard.put(None))
        try:
            while (event := heard.get()) is not None:
                yield event
            if not future.cancelled():
                future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Take back what is under way and refuse further questions; whoever waits gets an error."""
        with self._lock:
            self._closed = True
            owner = self._owner
        if owner not in (None, threading.current_thread()):
            owner.join()

    def _take_back(self, job: _Job, future: Future[Found]) -> None:
        if future.cancelled():
            with self._lock:
                self._cancelled.append(job)

    def _work(self) -> None:
        """Step the runner until nothing is left to answer; the one thread that touches it."""
        jobs: dict[int, _Job] = {}

        def tell(event: Event) -> None:
            job = jobs.get(event.episode)
            if job and job.on_event:
                try:
                    job.on_event(event)
                except Exception as error:  # the listener's own: the others go on
                    _settle(job, error)

        try:
            with Runner(
                self.engine,
                self.retriever,
                sampling=self.sampling,
                seed=self.seed,
                retry_malformed=True,
            ) as runner:
                while self._take_in(runner, jobs):
                    runner.on_event = tell if any(j.on_event for j in jobs.values()) else None
                    for number, trajectory in runner.step().items():
                        _settle(jobs.pop(number), Found(trajectory, self.abstain))
        except BaseException as error:
            with self._lock:
                self._owner, waiting = None, [*jobs.values(), *self._new]
                self._new, self._cancelled = [], []
            for job in waiting:
                _settle(job, error)

    def _take_in(self, runner: Runner, jobs: dict[int, _Job]) -> bool:
        """Hand the runner what was asked and taken back since; false where nothing is left."""
        with self._lock:
            new, self._new = self._new, []
            cancelled, self._cancelled = self._cancelled, []
            if self._closed:
                raise EngineError("the searcher was closed")
            if not (new or jobs):
                self._owner = None
                return False
        for job in new:
            if job.future.cancelled():
                continue
            try:
                job.number = runner.add(begin(job.question, self.method, self.engine.tokenizer))
            except Exception as error:  # raised by this question's plan
                _settle(job, error)
            else:
                jobs[job.number] = job
        for job in cancelled:
            if job.number is not None and jobs.get(job.number) is job:
                runner.cancel(job.number)
                del jobs[job.number]
        return True


def _settle(job: _Job, result: Found | BaseException) -> None:
    """Give whoever waits the result or the error, unless the question was taken back."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(result, Found):
            job.future.set_result(result)
        else:
            job.future.set_exception(result)
