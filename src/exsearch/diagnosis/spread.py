"""Spread of errors: records that their passages don't say or that miss what was shown, and after.

Names are those of `docs/diagnosis.md`, which defines them.
"""

from __future__ import annotations

from collections.abc import Iterator

from exsearch.agent.citations import Claim, Match, claims
from exsearch.agent.shown import analyser
from exsearch.diagnosis.needs import Need, holds, is_right, needs, parts_shown, said, writes_records
from exsearch.diagnosis.reach import Case
from exsearch.records import Step, Trajectory


def spread(case: Case) -> Iterator[tuple[str, float]]:
    """What a case has of the rates of records; nothing where the model writes none."""
    trajectory = case.trajectory
    if not writes_records(trajectory):
        return
    facts = iter(claims(trajectory))
    for step in trajectory.steps:
        if step.evidence is not None:
            fact = next(facts)
            if step.passages:
                yield from _support(fact, step.evidence.passage_ids)
    yield from _misses(trajectory)


def _support(fact: Claim, named: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """How a recorded fact is supported by the passages that it names."""
    own = [citation for citation in fact.citations if citation.passage_id in named]
    yield "unsupported", float(not fact.supported)
    yield "wrong_passage", float(fact.supported and not own)
    weak = all(citation.match is Match.OVERLAP for citation in fact.citations)
    yield "weakly_supported", float(fact.supported and weak)


def _misses(trajectory: Trajectory) -> Iterator[tuple[str, float]]:
    """Of records of what answers a need: what they missed, and what came of it."""
    missed: list[tuple[int, list[Need]]] = []
    open_needs = [need for need in needs(trajectory.question) if need.targets]
    counted = False
    for number, step in enumerate(trajectory.steps):
        seen = [need for need in open_needs if _shown(need, step)]
        note = "" if step.evidence is None else step.evidence.text
        kept = [need for need in open_needs if said(note, need.targets)]
        if seen:
            counted = True
            yield "record_empty", float(not note)
            yield "record_wrong", float(bool(note) and not kept)
            if not kept:
                missed.append((number, seen))
        open_needs = [need for need in open_needs if need not in kept]
    right = is_right(trajectory)
    if counted:
        yield "right_after_miss" if missed else "right_without_miss", float(right)
    for number, lost in missed:
        later = [s.evidence.text for s in trajectory.steps[number + 1 :] if s.evidence]
        again = any(said(note, need.targets) for note in later for need in lost)
        yield "recovered", float(again)
        yield from _carried(trajectory, number, right=right)


def _shown(need: Need, step: Step) -> bool:
    own = [passage for passage in step.passages if need.said_by(passage)]
    return holds(parts_shown(step, own), need.targets)


def _carried(trajectory: Trajectory, number: int, *, right: bool) -> Iterator[tuple[str, float]]:
    """Whether the next query and the answer took up what a wrong record alone says."""
    steps = trajectory.steps
    evidence = steps[number].evidence
    if evidence is None:
        return
    words = analyser().words
    before = [step.evidence.text for step in steps[:number] if step.evidence]
    known = {w for text in [trajectory.question.question, *before] for w in words(text)}
    own = set(words(evidence.text)) - known - set(words(steps[number].query))
    if own and number + 1 < len(steps):
        yield "error_in_next_query", float(not own.isdisjoint(words(steps[number + 1].query)))
    if own and trajectory.answer:
        yield "error_in_answer", float(not right and not own.isdisjoint(words(trajectory.answer)))
