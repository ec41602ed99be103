"""A rollout runs many episodes side by side: one batch of calls, one batch of searches, and again.

It samples; weighing and training are elsewhere. A bad generation or a failed search ends its own
trajectory with a stop reason and leaves the others alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from exsearch.agent.episode import AgentConfig, Episode
from exsearch.agent.format import WorkedExamples
from exsearch.engines.base import Engine, Generation, Request, Sampling, random_key
from exsearch.errors import EngineError, RetrieverError
from exsearch.records import Call, Question, StopReason, Trajectory
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
    on_finished: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Sample trajectories, all of them at once.

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
        on_finished: Called with the number of trajectories that have just ended.

    Returns:
        `len(questions) * samples` trajectories, in the order of questions, then of samples.
    """
    config, sampling = config or AgentConfig(), sampling or Sampling()
    episodes = [
        Episode(question, sample, config, engine.tokenizer, examples)
        for question in questions
        for sample in range(samples)
    ]
    seconds = [0.0] * len(episodes)
    start = time.perf_counter()
    live = list(range(len(episodes)))
    while live:
        _call([episodes[i] for i in live], engine, sampling, seed, iteration)
        if retry_malformed:
            _retry_malformed([episodes[i] for i in live], engine, seed, iteration)
        _search([episodes[i] for i in live if episodes[i].query], retriever, config.passages)
        ended = [i for i in live if episodes[i].stop_reason is not None]
        for i in ended:
            seconds[i] = time.perf_counter() - start
        live = [i for i in live if episodes[i].stop_reason is None]
        if on_finished and ended:
            on_finished(len(ended))
    return [
        e.trajectory(iteration=iteration, seconds=round(seconds[i], 3))
        for i, e in enumerate(episodes)
    ]


def _call(
    episodes: list[Episode], engine: Engine, sampling: Sampling, seed: int, iteration: int
) -> None:
    """The next model call of every episode, in one batch."""
    requests = [
        Request(
            e.prompt_ids(),
            e.config.max_tokens(e.kind),
            random_key(seed, iteration, e.question.id, e.sample, len(e.calls), e.retries),
        )
        for e in episodes
    ]
    replies = _generate(engine, requests, sampling)
    for episode, request, reply in zip(episodes, requests, replies, strict=True):
        if isinstance(reply, EngineError):
            episode.fail(StopReason.ENGINE_ERROR, str(reply))
            continue
        call = Call(
            episode.kind,
            request.prompt_ids,
            reply.output_ids,
            reply.log_probs,
            reply.proposal_log_probs,
        )
        episode.take(call, finished=reply.finish_reason == "stop")


def _generate(
    engine: Engine, requests: list[Request], sampling: Sampling
) -> list[Generation | EngineError]:
    """All requests at once; where that fails, by halves, so that only the culprits fail."""
    try:
        return list(engine.generate(requests, sampling))
    except EngineError as error:
        if len(requests) == 1:
            return [error]
    half = len(requests) // 2
    return [
        *_generate(engine, requests[:half], sampling),
        *_generate(engine, requests[half:], sampling),
    ]


def _retry_malformed(episodes: list[Episode], engine: Engine, seed: int, iteration: int) -> None:
    """Sample a malformed reply once more, at temperature 1: a greedy one would be the same."""
    again = [e for e in episodes if e.stop_reason is StopReason.MALFORMED and not e.retries]
    for episode in again:
        episode.retract()
    if again:
        _call(again, engine, Sampling(), seed, iteration)


def _search(episodes: list[Episode], retriever: Retriever, k: int) -> None:
    """The searches that are due, in one batch; where that fails, by halves as in `_generate`."""
    if not episodes:
        return
    queries = [e.query for e in episodes if e.query is not None]
    try:
        found = retriever.search(queries, k)
        if len(found) != len(queries):
            raise RetrieverError(f"{len(found)} lists of passages for {len(queries)} queries")
    except RetrieverError as error:
        if len(episodes) == 1:
            episodes[0].fail(StopReason.RETRIEVER_ERROR, str(error))
            return
        half = len(episodes) // 2
        _search(episodes[:half], retriever, k)
        _search(episodes[half:], retriever, k)
        return
    for episode, passages in zip(episodes, found, strict=True):
        episode.found(passages)
