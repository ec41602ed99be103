"""Drift: queries that lead nowhere, and by what each missed need was lost.

Names are those of `docs/diagnosis.md`, which defines them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from exsearch.agent.shown import analyser
from exsearch.diagnosis.needs import answer_recorded, needs
from exsearch.diagnosis.reach import Case, Reach


class Loss(StrEnum):
    """By what a need was lost."""

    RETRIEVAL = "retrieval"  # no query finds it
    QUERY = "query"  # a better one finds it
    READING = "reading"  # found, and not recorded
    UNTOLD = "untold"  # not found, and not known whether a better query would


_LOSS = {
    Reach.SAMPLE: Loss.QUERY,
    Reach.SUB_QUESTION: Loss.QUERY,
    Reach.BOUND: Loss.QUERY,
    Reach.NOTHING: Loss.RETRIEVAL,
    Reach.UNKNOWN: Loss.UNTOLD,
}


def drift(case: Case) -> Iterator[tuple[str, float]]:
    """What a case has of the rates of queries, a value each search."""
    trajectory = case.trajectory
    wanted = needs(trajectory.question) if trajectory.question.supporting else ()
    words = analyser().words
    pool = set(words(trajectory.question.question))
    asked: list[frozenset[str]] = []
    seen: set[str] = set()
    for step in trajectory.steps:
        query, ids = frozenset(words(step.query)), {passage.id for passage in step.passages}
        if wanted:
            held = any(need.said_by(passage) for need in wanted for passage in step.passages)
            yield "no_support", float(not held)
        yield "repeated_query", float(query in asked)
        yield "nothing_new", float(ids <= seen)
        yield "unrelated_query", float(pool.isdisjoint(query))
        asked.append(query)
        seen |= ids
        if step.evidence is not None:
            pool |= set(words(step.evidence.text))


def losses(case: Case) -> list[tuple[Loss, bool]]:
    """By what each missed need was lost, and whether that is an upper bound on the query's part.

    None is missed where a record holds the answer.
    """
    if answer_recorded(case.trajectory):
        return []
    return [
        (_LOSS[reach] if reach is not None else Loss.READING, reach is Reach.BOUND)
        for fate, reach in zip(case.fates, case.reaches, strict=True)
        if not fate.recorded
    ]


def lost_by(case: Case) -> Iterator[tuple[str, float]]:
    """The shares of a case's misses, a value each miss; those of no named support stand apart."""
    prefix = "" if case.trajectory.question.supporting else "without_support_"
    for loss, bound in losses(case):
        for each in Loss:
            yield f"{prefix}{each}", float(loss is each)
        yield f"{prefix}query_bound", float(bound)
