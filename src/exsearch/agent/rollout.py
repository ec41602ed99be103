"""A rollout samples trajectories of many questions: a loop over a runner.

It samples; weighing and training are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exsearch.agent.episode import begin
from exsearch.agent.events import OnEvent
from exsearch.agent.examples import WorkedExamples
from exsearch.agent.runner import Runner
from exsearch.engines.base import Engine, Sampling
from exsearch.methods import open_method
from exsearch.methods.base import Method
from exsearch.records import Question, Trajectory
from exsearch.retrievers.base import Retriever


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
