"""An item is one thing to judge, with all that a judge may know of it and nothing else.

Equal things are one item, whoever made them: a passage that three methods found for a question is
judged once. So an item's id tells nothing of a method either.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any

from exsearch.diagnosis.parts import Part
from exsearch.evaluation.groups import group_of
from exsearch.records import Passage, Trajectory


class Kind(StrEnum):
    """What is asked of an item; those of a question come in this order."""

    QUERY = "query"  # is the sub-query useful?
    PASSAGE = "passage"  # is the passage relevant?
    EVIDENCE = "evidence"  # do the passages say what was recorded?
    ANSWER = "answer"  # is the answer right?


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to judge.

    Attributes:
        kind: What is asked of it.
        content: What a judge sees, as plain values; its `question` comes first.
    """

    kind: Kind
    content: dict[str, Any]

    @cached_property
    def id(self) -> str:
        """A hash of the kind and the content."""
        text = json.dumps([self.kind, self.content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclasses.dataclass(frozen=True)
class Use:
    """Where an item stands in a trajectory.

    Attributes:
        part: The part that has the trajectory.
        trajectory: The trajectory.
        step: The number of the search, from 0; None where the item is the answer.
    """

    part: Part
    trajectory: Trajectory
    step: int | None


def items_of(trajectory: Trajectory) -> Iterator[tuple[Item, int | None]]:
    """What there is to judge of a trajectory, with the number of its search."""
    asked = {"question": trajectory.question.question}
    known: list[str] = []
    for number, step in enumerate(trajectory.steps):
        yield Item(Kind.QUERY, {**asked, "known": [*known], "query": step.query}), number
        for passage in step.passages:
            yield Item(Kind.PASSAGE, {**asked, "passages": [_shown(passage)]}), number
        if step.evidence is not None:
            said = {"evidence": step.evidence.text, "passages": [*map(_shown, step.shown)]}
            yield Item(Kind.EVIDENCE, {**asked, **said}), number
            known.append(step.evidence.text)
    accepted = [*trajectory.question.distinct_answers]
    yield Item(Kind.ANSWER, {**asked, "accepted": accepted, "answer": trajectory.answer}), None


def _shown(passage: Passage) -> dict[str, str]:
    return {"title": passage.title, "text": passage.text}


def sampled(part: Part, n: int | None, seed: int) -> list[Trajectory]:
    """Some trajectories of a part: each group of questions by its share, drawn by question.

    Parts that asked the same questions give the same ones. Trajectories that a failed search or
    call cut off are left out.

    Args:
        part: The trajectories to draw from.
        n: How many are drawn; None takes all.
        seed: Decides which.
    """
    whole = [s.trajectory for s in part.samples if not s.trajectory.stop_reason.is_error]
    whole.sort(key=lambda t: (group_of(t.question), shuffled(seed, t.question.question), t.sample))
    if n is None or n >= len(whole):
        return whole
    return [whole[(2 * place + 1) * len(whole) // (2 * n)] for place in range(n)]


def in_order(items: Sequence[Item], seed: int) -> list[Item]:
    """Items in a random order: question by question, so that a judge reads each question once."""
    kinds = [*Kind]
    return sorted(
        items,
        key=lambda i: (
            shuffled(seed, i.content["question"]),
            kinds.index(i.kind),
            shuffled(seed, i.id),
        ),
    )


def shuffled(seed: int, text: str) -> str:
    """What a text is sorted by, for an order that depends on nothing but it and a seed."""
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()
