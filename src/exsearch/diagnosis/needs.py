"""A need is a fact that an answer rests on: the passage that says it, and what its record holds.

A question has one for each hop of its decomposition, else for each supporting passage, else one for
its answer. What became of a need in a trajectory is read off it; nothing is searched for here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import lru_cache

from exsearch.agent.citations import copied, find
from exsearch.agent.shown import shown_before
from exsearch.evaluation.groups import Group, group_of
from exsearch.evaluation.metrics import exact_match, normalize
from exsearch.records import CallKind, Evidence, Passage, Question, Step, Trajectory
from exsearch.training.warm_up import filled


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """A fact that an answer rests on.

    Attributes:
        support_id: The id of the passage that says it; None where it is not known.
        query: The sub-question that asks for it, or the question itself where it has one need;
            empty where neither is known.
        targets: Texts one of which a record of it holds; empty where none is known, as for a fact
            behind an answer of yes or no.
        also: The ids of other passages that say it as well if they hold a target; None for any.
    """

    support_id: str | None
    query: str
    targets: tuple[str, ...]
    also: frozenset[str] | None

    def said_by(self, passage: Passage) -> bool:
        """Whether a passage says it."""
        if passage.id == self.support_id:
            return True
        return (self.also is None or passage.id in self.also) and holds([passage], self.targets)


@dataclasses.dataclass(frozen=True, slots=True)
class Fate:
    """What became of a need in a trajectory: each link holds only where the one before does.

    Attributes:
        need: The need.
        found: Whether a search found a passage that says it.
        shown: Whether the model was shown the part that says it.
        recorded: Whether a record holds it.
    """

    need: Need
    found: bool
    shown: bool
    recorded: bool


def holds(passages: Iterable[Passage], targets: Sequence[str]) -> bool:
    """Whether a passage holds one of some texts, as `recall_by_answer` has it."""
    golds = [f" {gold} " for gold in map(normalize, targets) if gold]
    return any(gold in _normal(p.title, p.text) for p in passages for gold in golds)


@lru_cache(maxsize=20_000)
def _normal(title: str, text: str) -> str:
    return f" {normalize(title)} \n {normalize(text)} "


def said(text: str, targets: Sequence[str]) -> bool:
    """Whether a text holds one of some texts, at word boundaries after `normalize`."""
    return holds([Passage("", "", text)], targets)


def open_answers(question: Question) -> tuple[str, ...]:
    """The accepted answers that a text can be looked through for.

    None of a question of yes or no, and none where one stands in the question: a text that holds it
    says nothing.
    """
    return question.distinct_answers if group_of(question) is Group.NEITHER else ()


def needs(question: Question) -> tuple[Need, ...]:
    """The needs of a question; none where neither a support nor an open answer is known."""
    answers, ids = open_answers(question), question.supporting
    if plan := question.decomposition:
        short = [hop.answer_short or hop.answer for hop in plan]
        also = frozenset(ids) if len(set(ids)) > 1 else None
        return tuple(
            Need(
                hop.support_id,
                filled(hop.question, short[:n]),
                answers if n + 1 == len(plan) else _open(short[n], question),
                also,
            )
            for n, hop in enumerate(plan)
        )
    if len(ids) > 1:  # which of them holds the answer shows when they are read
        return tuple(Need(id_, "", answers, frozenset()) for id_ in ids)
    if ids or answers:
        return (Need(ids[0] if ids else None, question.question, answers, None),)
    return ()


def _open(answer: str, question: Question) -> tuple[str, ...]:
    """The answer of a hop, unless it says nothing where it stands."""
    gold = normalize(answer)
    closed = gold in ("", "yes", "no") or f" {gold} " in f" {normalize(question.question)} "
    return () if closed else (answer,)


def is_right(trajectory: Trajectory) -> bool:
    """Whether an answer is right by exact match; never where none is accepted."""
    answers = trajectory.question.distinct_answers
    return bool(answers) and exact_match(trajectory.answer, answers) == 1


def writes_records(trajectory: Trajectory) -> bool:
    """Whether the model wrote the records itself; other methods keep passages as they are."""
    return any(call.kind is CallKind.RECORD for call in trajectory.calls)


def answer_recorded(trajectory: Trajectory, steps: int | None = None) -> bool:
    """Whether the records of a trajectory, or of its first `steps`, hold an open answer."""
    answers = open_answers(trajectory.question)
    return any(said(text, answers) for text in _notes(trajectory.steps[:steps]))


def fates(trajectory: Trajectory) -> tuple[Fate, ...]:
    """What became of each need of a trajectory's question, in their order."""
    return tuple(_fate(need, trajectory) for need in needs(trajectory.question))


def _fate(need: Need, trajectory: Trajectory) -> Fate:
    found = shown = named = telling = False
    for step in trajectory.steps:
        own = [passage for passage in step.passages if need.said_by(passage)]
        found |= bool(own)
        told = [passage for passage in own if holds([passage], need.targets)]
        telling |= bool(told)
        seen = parts_shown(step, told or own)
        shown |= holds(seen, need.targets) if told else bool(seen)
        named |= step.evidence is not None and any(_copies(step.evidence, p) for p in own)
    by_text = telling or need.also != frozenset()  # else it is not known to be about the answer
    written = by_text and any(said(note, need.targets) for note in _notes(trajectory.steps))
    if written:
        return Fate(need, True, True, True)
    recorded = shown and (named and not telling if writes_records(trajectory) else True)
    return Fate(need, found, shown, recorded)


def _copies(evidence: Evidence, passage: Passage) -> bool:
    """Whether a record names a passage, and says something that stands in it."""
    said_by = find(evidence.text, passage) or copied(evidence.text, passage.title)
    return passage.id in evidence.passage_ids and said_by is not None


def parts_shown(step: Step, passages: Iterable[Passage]) -> list[Passage]:
    """What a record was shown of some passages of its search; all of it where that is not known."""
    ids = {passage.id for passage in passages}
    seen = shown_before(step)
    return [passage for passage in (step.shown if seen is None else seen) if passage.id in ids]


def _notes(steps: Iterable[Step]) -> list[str]:
    return [step.evidence.text for step in steps if step.evidence is not None]
