"""The loss budget names for each wrong answer one cause: the first link of its chain that broke.

Names are those of `docs/diagnosis.md`, which defines them. It reads no answer as a person does: the
cause `metric` is what words alone can tell.
"""

from __future__ import annotations

from calendar import month_name
from collections.abc import Iterator
from enum import StrEnum

from exsearch.agent.shown import analyser
from exsearch.diagnosis.needs import Fate, answer_recorded, is_right, open_answers, said
from exsearch.diagnosis.reach import Case, Reach
from exsearch.evaluation.metrics import normalize
from exsearch.records import Question, StopReason, Trajectory

NEAR = 2 / 3  # the least share of the words of an accepted answer that stand for it
_CLOSED = {"yes", "no"}
_MONTHS = {name.lower() for name in month_name if name}


class Cause(StrEnum):
    """The first link that broke on the way to a wrong answer, in the order in which they come."""

    RETRIEVAL = "retrieval"  # a need was not found, and no query finds it
    QUERY = "query"  # a need was not found, and a better query finds it
    STOP = "stop"  # it stopped before it searched for a need that can be found
    UNTOLD = "untold"  # a need was not found, and not known whether a query would
    NOT_SHOWN = "not shown"  # found, but beyond the words that the prompt shows
    RECORD = "record"  # shown, and in no record
    READING = "reading of the pool"  # recorded, and not answered
    FORMAT = "format"  # no answer was reached
    METRIC = "metric"  # right in other words
    UNKNOWN = "unknown"  # the question names neither support nor an answer to look for


def cause(case: Case) -> Cause | None:
    """The cause of a wrong answer; None for a right one, and for one that a failure cut off."""
    trajectory = case.trajectory
    question = trajectory.question
    if trajectory.stop_reason.is_error or not question.distinct_answers:
        return None
    if is_right(trajectory):
        return None
    if not trajectory.stop_reason.has_answer:
        return Cause.FORMAT
    if nearly_right(trajectory.answer, question):
        return Cause.METRIC
    if answer_recorded(trajectory):
        return Cause.READING
    if not case.fates:
        return Cause.UNKNOWN
    number = _first_broken(case)
    return Cause.READING if number is None else _broken(case, number)


def _first_broken(case: Case) -> int | None:
    return next((n for n in _chain(case) if not case.fates[n].recorded), None)


def _chain(case: Case) -> list[int]:
    """The needs in the order in which they may have broken.

    The hops of a decomposition come in theirs. Of other supports the order is not known: one whose
    passage was found and holds the answer is the last link, and what led to it did its part.
    """
    question = case.trajectory.question
    order = list(range(len(case.fates)))
    if question.decomposition or not open_answers(question):
        return order
    ids = {p.id for p in case.trajectory.passages if said(f"{p.title}\n{p.text}", question.answers)}
    last = [n for n in order if case.fates[n].need.support_id in ids]
    return last or order


def _broken(case: Case, number: int) -> Cause:
    fate, reach = case.fates[number], case.reaches[number]
    if fate.found:
        return Cause.RECORD if fate.shown else Cause.NOT_SHOWN
    if reach is Reach.UNKNOWN or (reach is Reach.NOTHING and fate.need.support_id is None):
        return Cause.UNTOLD  # the answer of a question of many hops may need queries of its own
    if reach is Reach.NOTHING:
        return Cause.RETRIEVAL
    return Cause.STOP if _never_searched(case.trajectory, case.fates) else Cause.QUERY


def _never_searched(trajectory: Trajectory, fates: tuple[Fate, ...]) -> bool:
    """Whether it stopped by itself, and each search so far had found a need of its own."""
    if trajectory.stop_reason is not StopReason.ANSWERED:
        return False
    wanted = [fate.need for fate in fates]
    for step in trajectory.steps:
        left = [need for need in wanted if not any(map(need.said_by, step.passages))]
        if len(left) == len(wanted):
            return False  # this one was spent on what is missing
        wanted = left
    return True


def nearly_right(answer: str, question: Question) -> bool:
    """Whether a wrong answer is right by its words.

    An accepted answer is more than half of it, or all of it but a date around a year; or it is two
    thirds of an accepted answer, in any order, with every number of it. One of yes or no begins
    with the right word and does not say the other.
    """
    given = normalize(answer).split()
    golds = [gold for each in question.distinct_answers if (gold := normalize(each).split())]
    closed = {word for gold in golds for word in gold if word in _CLOSED and len(gold) == 1}
    if closed:
        return bool(given) and given[0] in closed and not (_CLOSED - closed) & set(given)
    asked = normalize(question.question).split()
    if any(_within(gold, given) and not _run(gold, asked) for gold in golds):
        return True
    words = set(analyser().words(answer))
    return any(_part_of(words, set(analyser().words(g))) for g in question.distinct_answers)


def _within(gold: list[str], given: list[str]) -> bool:
    if not _run(gold, given):
        return False
    dated = all(word.isdigit() or word in _MONTHS for word in given)
    return dated or len(gold) > len(given) / 2


def _run(wanted: list[str], words: list[str]) -> bool:
    return f" {' '.join(wanted)} " in f" {' '.join(words)} "


def _part_of(given: set[str], gold: set[str]) -> bool:
    numbers = {word for word in gold if any(letter.isdigit() for letter in word)}
    return bool(given) and numbers <= given <= gold and len(given) >= NEAR * len(gold)


def budget(case: Case) -> Iterator[tuple[str, float]]:
    """The shares of a wrong answer's causes: 1 for its own, 0 for the others; none of a right one.

    `bound` says where the blame of the query, or of a stop, is an upper bound.
    """
    found = cause(case)
    if found is None:
        return
    for each in Cause:
        yield each.value, float(each is found)
    number = _first_broken(case) if found in (Cause.QUERY, Cause.STOP) else None
    yield "bound", float(number is not None and case.reaches[number] is Reach.BOUND)
