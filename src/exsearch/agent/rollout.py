"""A rollout samples trajectories of many questions: a loop over a runner.

It samples; weighing and training are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from exsearch.agent.episode import begin
from exsearch.agent.events import OnEvent
from exsearch.agent.examples import WorkedExamples
from exsearch.agent.runner import Runner
from exsearch.engines.base import Engine, Sampling
from exsearch.errors import ExSearchError
from exsearch.methods import open_method
from exsearch.methods.base import Method
from exsearch.records import Question, Trajectory
from exsearch.retrievers.base import Retriever
from exsearch.runs import committed


def rollout(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    *,
    samples: int = 1,
    method: Method | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    iteration: int = 0,
    retry_malformed: bool = False,
    examples: WorkedExamples | None = None,
    on_finished: Callable[[Sequence[Trajectory]], None] | None = None,
    on_event: OnEvent | None = None,
) -> list[Trajectory]:
    """Sample trajectories, as many side by side as the engine can write.

    Args:
        questions: The questions to answer; each is sampled `samples` times.
        engine: The engine that writes the tokens.
        retriever: The retriever that answers the sub-queries, in batches.
        samples: K, the number of trajectories a question; samples are numbered from 0.
        method: How questions are answered; by default the searcher with its default settings.
        sampling: The distribution of tokens; by default the model's own.
        seed: Decides all randomness, with `iteration`, the question's id and the sample's number.
        iteration: The number of the iteration that samples, from 1; 0 outside of training. It is
            kept in the trajectories.
        retry_malformed: Sample a malformed generation once more. Never in an E-step: a retry
            changes the proposal, and the weights would no longer be right.
        examples: Solved questions that are shown before each new chat; None shows none.
        on_finished: A function that is called with the trajectories that have just ended.
        on_event: A function that is called with each `Event`.

    Returns:
        `len(questions) * samples` trajectories, in the order of questions, then of samples.

    Raises:
        EngineError: the model can't be run at all.
        ModelServerError: the model's server can't be used at all.
    """
    method = method or open_method()
    done: dict[int, Trajectory] = {}
    with Runner(
        engine,
        retriever,
        sampling=sampling,
        seed=seed,
        iteration=iteration,
        retry_malformed=retry_malformed,
        on_event=on_event,
    ) as runner:
        numbers = [
            runner.add(begin(question, method, engine.tokenizer, sample=n, examples=examples))
            for question in questions
            for n in range(samples)
        ]
        while len(runner):
            ended = runner.step()
            done |= ended
            if on_finished and ended:
                on_finished(list(ended.values()))
    return [done[number] for number in numbers]


def count_failed(
    trajectories: Sequence[Trajectory],
    most: float,
    file: Path,
    error: type[ExSearchError],
    *,
    alone: bool,
    noun: str = "samples",
) -> int:
    """The number of a chunk's trajectories that failed by a search or a call.

    Args:
        trajectories: The trajectories of the chunk.
        most: The largest share of them that may fail, from 0 to 1.
        file: The file that the chunks are committed to.
        error: The type of the error that is raised.
        alone: True judges the chunk by itself, False together with all that were committed before:
            in a small last chunk one failure would be too large a share.
        noun: What the trajectories are called in the message.

    Raises:
        ExSearchError: an error of the given type, as more failed.
    """
    failed = [t for t in trajectories if t.stop_reason.is_error]
    before = (0, 0) if alone else (committed(file, "failed"), committed(file))
    count, of = len(failed) + before[0], len(trajectories) + before[1]
    if failed and count > most * of:
        raise error(
            f"{count} of {of} {noun} failed, the last with: {failed[-1].error}; mend the cause and "
            "run the same command again"
        )
    return len(failed)
