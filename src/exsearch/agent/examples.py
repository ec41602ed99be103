"""Worked examples are finished trajectories, shown to an untrained model as earlier turns.

One thought before the first search, one between searches and one that answers, each from another
trajectory; and a record from each. They are context only and are never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exsearch.agent.episode import AgentConfig
from exsearch.agent.format import (
    Answer,
    Search,
    WorkedExamples,
    record_prompt,
    render_record,
    render_thought,
    think_prompt,
)
from exsearch.engines.base import Message
from exsearch.records import CallKind, Trajectory


def worked_examples(trajectories: Sequence[Trajectory], agent: AgentConfig) -> WorkedExamples:
    """Turns from finished trajectories, one thought and one record of each.

    Raises:
        ValueError: a trajectory without a step or an answer, or an agent with `select`, or with
            `transcript` context, for which there are no worked examples.
    """
    if agent.select or agent.context != "notes":
        raise ValueError("worked examples are for the notes context without select")
    thoughts: list[Message] = []
    records: list[Message] = []
    for n, trajectory in enumerate(trajectories):
        if not trajectory.steps or not trajectory.answer:
            raise ValueError(f"trajectory {trajectory.id!r} has no step or no answer to show")
        pairs = list(_thoughts(trajectory))
        # The first shows how to begin, the last how to end, those between what to ask next.
        at = 0 if n == 0 else len(pairs) - 1 if n == len(trajectories) - 1 else len(pairs) // 2
        thoughts += _turns(*pairs[at])
        step = trajectory.steps[n % len(trajectory.steps)]
        records += _turns(
            record_prompt(step.query, step.passages, agent.passage_words),
            render_record(step.evidence, step.passages),
        )
    return WorkedExamples({CallKind.THINK: tuple(thoughts), CallKind.RECORD: tuple(records)})


def _thoughts(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    question = trajectory.question.question
    for n, step in enumerate(trajectory.steps):
        yield think_prompt(question, trajectory.steps[:n]), render_thought(Search(step.query))
    yield think_prompt(question, trajectory.steps), render_thought(Answer(trajectory.answer))


def _turns(prompt: str, reply: str) -> list[Message]:
    return [Message(role="user", content=prompt), Message(role="assistant", content=reply)]
