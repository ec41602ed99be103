"""A teacher is a stronger model whose trajectories the student is warmed up on.

It answers questions by the student's own method, over the real retriever, on any engine; what it
did is replayed in the student's tokens. Nothing here trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from exsearch.agent.episode import begin
from exsearch.agent.replay import UnreplayableError, replay
from exsearch.agent.runner import Runner
from exsearch.engines.base import ChatTokenizer, Engine, Sampling
from exsearch.errors import EngineError, ExSearchError, RetrieverError
from exsearch.evaluation.metrics import exact_match
from exsearch.methods.base import Method
from exsearch.records import CallKind, Question, StopReason, Trajectory, WeightedTrajectory
from exsearch.retrievers.base import Retriever
from exsearch.runs import append_jsonl
from exsearch.training.recipe import TeacherConfig
from exsearch.training.warm_up import REFUSALS_IN_A_ROW, WarmUpData, example
from exsearch.trajectories import read_trajectories, to_lines

_WAVES = 4  # questions in hand for each that is asked at a time: a slow reply holds up few


def teach(
    questions: Sequence[Question],
    config: TeacherConfig,
    open_teacher: Callable[[], Engine],
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: Method,
    *,
    examples: int,
    file: Path,
    seed: int = 0,
    on_example: Callable[[int], object] = lambda count: None,
) -> WarmUpData:
    """Have the teacher answer questions, from the first on, until `examples` trajectories are kept.

    Each finished trajectory, kept or not, is appended to `file` at once, and a question that stands
    there is never asked again. No more questions are under way than examples are missing.

    Args:
        questions: The questions to ask, in their order; one without answers is left out.
        config: What is kept, and how many questions are asked side by side.
        open_teacher: A function that opens the teacher's engine; it is called only where there is
            something to ask.
        retriever: The retriever that answers the teacher's queries.
        tokenizer: The tokenizer of the student.
        method: The method of the student; a trajectory that is too long for its limits is left out.
        examples: The number of trajectories to gain; fewer are gained where the questions do not
            give as many.
        file: A file of JSON lines, the trajectories as the teacher made them.
        seed: Decides the teacher's sampling.
        on_example: A function that is called with the number of examples just gained, 0 or 1, once
            a trajectory, those in `file` first.

    Returns:
        The trajectories as the student learns them, and the questions left out, by reason.

    Raises:
        ModelServerError: the endpoint fails; what is finished stays in `file`.
        EngineError: the teacher refuses every question.
        RetrieverError: every search fails.
        DataError: `file` is damaged.
    """
    by_id = {q.id: q for q in questions}
    made: dict[str, WeightedTrajectory | str] = {
        q.id: "no answer" for q in questions if not q.distinct_answers
    }

    def take(trajectory: Trajectory) -> None:
        question = by_id[trajectory.question.id]  # its gold answers may have been corrected
        trajectory = dataclasses.replace(trajectory, question=question)
        made[question.id] = _example(trajectory, config, method, tokenizer)
        on_example(not isinstance(made[question.id], str))

    def missing() -> int:
        return examples - sum(not isinstance(m, str) for m in made.values())

    for trajectory in read_trajectories(file) if file.exists() else ():
        if trajectory.question.id in by_id:
            take(trajectory)
    refusal: ExSearchError | None = None
    todo = [q for q in questions if q.id not in made]
    if todo and missing() > 0:
        engine = open_teacher()
        for ended in _answers(iter(todo), config, engine, retriever, method, seed, missing):
            # All of them before one is counted: an interrupt then loses nothing.
            if finished := [t for t in ended if not t.stop_reason.is_error]:
                append_jsonl(file, to_lines(finished))
            for trajectory in ended:
                take(trajectory)
                refusal = _failure(trajectory)
    left_out: dict[str, list[str]] = {}
    for question in questions:
        if isinstance(reason := made.get(question.id), str):
            left_out.setdefault(reason, []).append(question.id)
    items = [m for q in questions if not isinstance(m := made.get(q.id, ""), str)]
    if refusal and not items:
        raise refusal
    return WarmUpData(items[:examples], left_out)


def _answers(
    todo: Iterator[Question],
    config: TeacherConfig,
    engine: Engine,
    retriever: Retriever,
    method: Method,
    seed: int,
    missing: Callable[[], int],
) -> Iterator[list[Trajectory]]:
    """The teacher's trajectories as they end, until none is missing or no question is left."""
    refused: list[ExSearchError] = []  # since the last question that was not refused
    temperature = 1.0 if config.temperature is None else config.temperature
    in_hand = min(engine.rows, _WAVES * config.concurrency)
    with Runner(
        engine, retriever, sampling=Sampling(temperature), seed=seed, retry_malformed=True
    ) as runner:
        while True:
            room = min(in_hand, missing()) - len(runner)
            for question in islice(todo, max(0, room)):
                runner.add(begin(question, method, engine.tokenizer))
            if not len(runner):
                break
            ended = list(runner.step().values())
            yield ended
            for trajectory in ended:
                refusal = _failure(trajectory)
                refused = [*refused, refusal] if refusal else []
            if len(refused) >= REFUSALS_IN_A_ROW:
                raise refused[-1]


def _failure(trajectory: Trajectory) -> ExSearchError | None:
    """The error that a trajectory ended with; None where neither a search nor a call failed."""
    if not trajectory.stop_reason.is_error:
        return None
    failed_search = trajectory.stop_reason is StopReason.RETRIEVER_ERROR
    return (RetrieverError if failed_search else EngineError)(trajectory.error)


def _example(
    trajectory: Trajectory, config: TeacherConfig, method: Method, tokenizer: ChatTokenizer
) -> WeightedTrajectory | str:
    """The example that the student learns from, or the reason why there is none."""
    if trajectory.malformed:
        return f"malformed: {trajectory.malformed}"
    if not trajectory.stop_reason.has_answer:
        return trajectory.stop_reason.value
    if config.keep == "correct":
        if exact_match(trajectory.answer, trajectory.question.answers) != 1:
            return "wrong answer"
        if not trajectory.steps and any(c.kind is CallKind.THINK for c in trajectory.calls):
            return "answered without a search"
    try:
        made = replay(
            trajectory.question,
            trajectory.steps,
            trajectory.answer,
            method,
            tokenizer,
            within_limits=True,
        )
    except UnreplayableError:
        return "too long, or no trajectory of this method"
    return example(made, tokenizer)
