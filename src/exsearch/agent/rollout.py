"""A rollout runs many episodes side by side: their thoughts, records and answers share a batch.

Searches run beside generation. It samples; weighing and training are elsewhere. A bad generation or
a failed search ends its own trajectory with a stop reason and leaves the others alone.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from exsearch.agent.episode import AgentConfig, Episode
from exsearch.agent.format import WorkedExamples
from exsearch.engines.base import (
    Engine,
    Generation,
    Request,
    Sampling,
    TooLongError,
    random_key,
)
from exsearch.engines.session import open_session
from exsearch.errors import EngineError, RetrieverError
from exsearch.records import Call, Passage, Question, StopReason, Trajectory
from exsearch.retrievers.base import Retriever


def rollout(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    *,
    samples: int = 1,
    config: AgentConfig | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    iteration: int = 0,
    retry_malformed: bool = False,
    examples: WorkedExamples | None = None,
    on_finished: Callable[[Sequence[Trajectory]], None] | None = None,
) -> list[Trajectory]:
    """Sample trajectories, as many side by side as the engine can write.

    Args:
        questions: What to answer; each is sampled `samples` times.
        engine: Writes the tokens.
        retriever: Answers the sub-queries, in batches.
        samples: K. Sample numbers run from 0.
        config: Limits and context of the agent.
        sampling: The distribution of tokens; by default the model's own.
        seed: Of all randomness, with `iteration`, the question's id and the sample's number.
        iteration: Which weights are in the engine; kept in the trajectory.
        retry_malformed: Sample a malformed generation once more. Never in an E-step: a retry
            changes the proposal, and the weights would no longer be right.
        examples: Worked examples shown before each prompt.
        on_finished: Called with the trajectories that have just ended.

    Returns:
        `len(questions) * samples` trajectories, in the order of questions, then of samples.
    """
    config, sampling = config or AgentConfig(), sampling or Sampling()
    episodes = [
        Episode(question, sample, config, engine.tokenizer, examples)
        for question in questions
        for sample in range(samples)
    ]
    calls = _Calls(engine, sampling, seed, iteration, retry_malformed)
    done: dict[int, Trajectory] = {}
    start = time.perf_counter()
    with _Searches(retriever, config.passages) as searches:
        for ended in _run(episodes, calls, searches):
            seconds = round(time.perf_counter() - start, 3)
            new = {i: episodes[i].trajectory(iteration=iteration, seconds=seconds) for i in ended}
            done |= new
            if on_finished:
                on_finished(list(new.values()))
    return [done[i] for i in range(len(episodes))]


def _run(episodes: Sequence[Episode], calls: _Calls, searches: _Searches) -> Iterator[list[int]]:
    """Run all episodes to their end; the numbers of those that ended, as they do.

    A search has the time of one step of the engine, and is waited for after it: so it never depends
    on who was faster which sequences share a batch, and with that the last bits of their floats.
    """
    waiting = iter(range(len(episodes)))
    opened: list[int] = []
    while True:
        # Only as many as can be written: the fewer are open, the more of their prefixes are cached.
        for i in itertools.islice(waiting, max(0, calls.rows - len(opened))):
            opened.append(i)
            calls.ask(episodes[i])
        if not opened:
            return
        to_search = calls.step()
        for episode in searches.collect():
            calls.ask(episode)
        searches.begin(to_search)
        if ended := [i for i in opened if episodes[i].stop_reason is not None]:
            opened = [i for i in opened if episodes[i].stop_reason is None]
            yield ended


_Found = Sequence[Passage] | RetrieverError


class _Calls:
    """The model calls under way, in one session of the engine."""

    def __init__(
        self, engine: Engine, sampling: Sampling, seed: int, iteration: int, retry_malformed: bool
    ):
        self._session = open_session(engine)
        self.rows: int = getattr(engine, "batch_size", sys.maxsize)
        self._sampling, self._retry_malformed = sampling, retry_malformed
        self._stream = (seed, iteration)
        self._asked: dict[int, tuple[Episode, Request]] = {}

    def ask(self, episode: Episode) -> None:
        """Hand in the episode's next call, unless it has ended."""
        if episode.stop_reason is not None:
            return
        request = Request(
            episode.prompt_ids(),
            episode.config.max_tokens(episode.kind),
            random_key(
                *self._stream,
                episode.question.id,
                episode.sample,
                len(episode.calls),
                episode.retries,
            ),
        )
        # A retry is drawn at temperature 1: a greedy one would be the same again.
        sampling = Sampling() if episode.retrying else self._sampling
        self._asked[self._session.submit(request, sampling)] = episode, request

    def step(self) -> list[Episode]:
        """One step of the engine; the episodes that now need a search."""
        to_search = []
        for ticket, reply in self._session.step() if self._session.busy else ():
            episode, request = self._asked.pop(ticket)
            self._take(episode, request, reply)
            if episode.query is not None:
                to_search.append(episode)
            else:
                self.ask(episode)
        return to_search

    def _take(self, episode: Episode, request: Request, reply: Generation | EngineError) -> None:
        if isinstance(reply, EngineError):
            # What it wrote itself made it too long: no failure then, but a sample out of tokens.
            outgrown = isinstance(reply, TooLongError) and episode.calls
            reason = StopReason.MAX_TOKENS if outgrown else StopReason.ENGINE_ERROR
            episode.fail(reason, str(reply))
            return
        call = Call(
            episode.kind,
            request.prompt_ids,
            reply.output_ids,
            reply.log_probs,
            reply.proposal_log_probs,
        )
        episode.take(call, finished=reply.finish_reason == "stop")
        malformed = episode.stop_reason is StopReason.MALFORMED
        if malformed and self._retry_malformed and not episode.retries:
            episode.retract()


class _Searches:
    """The searches under way, on a thread beside generation; one batch at a time."""

    def __init__(self, retriever: Retriever, k: int):
        self._retriever, self._k = retriever, k
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._batch: tuple[Future[list[_Found]], Sequence[Episode]] | None = None

    def __enter__(self) -> _Searches:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def begin(self, episodes: Sequence[Episode]) -> None:
        """Search for these episodes."""
        if episodes:
            queries = [e.query or "" for e in episodes]
            search = self._thread.submit(_search, queries, self._retriever, self._k)
            self._batch = search, episodes

    def collect(self) -> Sequence[Episode]:
        """Wait for the searches that were begun; their episodes, which now know what was found.

        Only here, never on the thread, does an episode change.
        """
        if self._batch is None:
            return ()
        (search, episodes), self._batch = self._batch, None
        for episode, found in zip(episodes, search.result(), strict=True):
            if isinstance(found, RetrieverError):
                episode.fail(StopReason.RETRIEVER_ERROR, str(found))
            else:
                episode.found(found)
        return episodes


def _search(queries: Sequence[str], retriever: Retriever, k: int) -> list[_Found]:
    """All searches in one batch; where that fails, by halves, so that only the culprits fail."""
    try:
        found = retriever.search(queries, k)
        if len(found) != len(queries):
            raise RetrieverError(f"{len(found)} lists of passages for {len(queries)} queries")
        return list(found)
    except RetrieverError as error:
        if len(queries) == 1:
            return [error]
    half = len(queries) // 2
    return [*_search(queries[:half], retriever, k), *_search(queries[half:], retriever, k)]
