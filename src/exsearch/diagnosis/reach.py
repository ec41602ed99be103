"""A reach says whether a need that was missed could have been found, and by what query.

The queries of all samples of a question are looked at first, then searches of the diagnosis's own.
It judges no trajectory.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from exsearch.diagnosis.needs import Fate, Need, fates
from exsearch.errors import RetrieverError
from exsearch.progress import Bars
from exsearch.records import Passage, Question, Trajectory
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import Found, guarded

CHUNK = 100  # queries that are searched for together
DEFAULT_PASSAGES = 5  # a search, where no trajectory has one
TITLE_LETTERS = 80  # of the text, which stand for the title of a passage that has none

Place = tuple[tuple[str, str], Need]  # a need of a question, by the question's `key`


class Reach(StrEnum):
    """By what a need can be found; the first that does counts."""

    SAMPLE = "sample"  # a query of some sample of the question
    SUB_QUESTION = "sub-question"  # of the decomposition, or the question itself
    BOUND = "bound"  # the question with the support's title or its answer: nobody could ask that
    NOTHING = "nothing"
    UNKNOWN = "unknown"  # nothing was searched for, or the search failed


@dataclasses.dataclass(frozen=True)
class Reached:
    """The reaches of the needs that some trajectory missed.

    Attributes:
        by: The reach of each, by its question (`key`) and need.
        searches: The number of searches made.
        failed: The number of searches that failed.
        seconds: Seconds spent searching.
    """

    by: Mapping[Place, Reach]
    searches: int = 0
    failed: int = 0
    seconds: float = 0.0

    def of(self, question: Question, need: Need) -> Reach:
        """The reach of a need that a trajectory of this question missed."""
        return self.by.get((key(question), need), Reach.UNKNOWN)


@dataclasses.dataclass(frozen=True)
class Case:
    """A trajectory with what became of its needs, and what could have.

    Attributes:
        trajectory: The trajectory.
        fates: What became of each need.
        reaches: The reach of each need in the same order; None where it was found.
    """

    trajectory: Trajectory
    fates: tuple[Fate, ...]
    reaches: tuple[Reach | None, ...]


def key(question: Question) -> tuple[str, str]:
    """What tells questions apart, also those of two files that count alike."""
    return question.id, question.question


def reach_all(
    trajectories: Sequence[Trajectory], retriever: Retriever | None, bars: Bars | None = None
) -> tuple[list[Case], Reached]:
    """Each trajectory as a case.

    Args:
        trajectories: All trajectories; those of one question are samples of one another.
        retriever: The retriever that they searched with; None makes no search. It is asked for as
            many passages as their own searches found at most.
        bars: Opens the progress bar of the searches; None shows none.
    """
    fates_of = [fates(trajectory) for trajectory in trajectories]
    lost: dict[Place, Question] = {}
    for trajectory, own in zip(trajectories, fates_of, strict=True):
        question = trajectory.question
        lost |= {(key(question), fate.need): question for fate in own if not fate.found}
    by = _by_samples(lost, trajectories)
    searches = Searches(retriever, _passages_a_search(trajectories), bars or Bars(False))
    if retriever is not None:
        _search_for({place: q for place, q in lost.items() if place not in by}, by, searches)
    reached = Reached(by, searches.made, searches.failed, round(searches.seconds, 3))
    cases = [
        Case(t, own, tuple(None if f.found else reached.of(t.question, f.need) for f in own))
        for t, own in zip(trajectories, fates_of, strict=True)
    ]
    return cases, reached


def _passages_a_search(trajectories: Iterable[Trajectory]) -> int:
    lengths = (len(step.passages) for trajectory in trajectories for step in trajectory.steps)
    return max(lengths, default=0) or DEFAULT_PASSAGES


def _by_samples(lost: Iterable[Place], trajectories: Iterable[Trajectory]) -> dict[Place, Reach]:
    """The needs that a query of another sample found."""
    found: dict[tuple[str, str], dict[str, Passage]] = {}
    for trajectory in trajectories:
        own = found.setdefault(key(trajectory.question), {})
        own.update((passage.id, passage) for passage in trajectory.passages)
    return {
        (of, need): Reach.SAMPLE
        for of, need in lost
        if any(need.said_by(passage) for passage in found[of].values())
    }


def _search_for(lost: Mapping[Place, Question], by: dict[Place, Reach], searches: Searches) -> None:
    """Search for what no sample found: by the sub-question, and where there is none, by a bound."""
    asked = {place: place[1].query for place in lost if place[1].query}
    by |= dict.fromkeys(lost, Reach.NOTHING)
    by |= searches.reaches(asked, Reach.SUB_QUESTION)
    left = [p for p, q in lost.items() if by[p] is Reach.NOTHING and not q.decomposition]
    titles = searches.titles([id_ for _, need in left if (id_ := need.support_id) is not None])
    bound: dict[Place, str] = {}
    for place in left:
        id_, question = place[1].support_id, lost[place]
        known = question.distinct_answers[0] if id_ is None else titles and titles.get(id_)
        if known:
            bound[place] = f"{known} {question.question}"
        elif titles is None:
            by[place] = Reach.UNKNOWN
    by |= searches.reaches(bound, Reach.BOUND)


class Searches:
    """The diagnosis's own searches, counted and timed.

    Args:
        retriever: The retriever; None where nothing will be searched for.
        k: Passages a search.
        bars: Opens progress bars.

    Attributes:
        made: The number of searches so far.
        failed: The number of searches that failed.
        seconds: Seconds spent searching.
    """

    def __init__(self, retriever: Retriever | None, k: int, bars: Bars):
        self.made = self.failed = 0
        self.seconds = 0.0
        self._retriever = None if retriever is None else guarded(retriever)
        self._k, self._bars = k, bars

    def reaches(self, queries: Mapping[Place, str], reach: Reach) -> dict[Place, Reach]:
        """The needs that a query of their own finds, and those whose search failed as unknown.

        Args:
            queries: The query of each need.
            reach: What it is called where the query finds the need.
        """
        found = self._search(list(dict.fromkeys(queries.values())))
        by: dict[Place, Reach] = {}
        for place, query in queries.items():
            passages = found[query]
            if isinstance(passages, RetrieverError):
                by[place] = Reach.UNKNOWN
            elif any(place[1].said_by(passage) for passage in passages):
                by[place] = reach
        return by

    def titles(self, ids: Sequence[str]) -> dict[str, str] | None:
        """The titles of the passages that there are; None where passages can't be fetched."""
        assert self._retriever is not None
        try:
            found = self._retriever.fetch(ids) if ids else []
        except RetrieverError:
            return None
        return {p.id: p.title or p.text[:TITLE_LETTERS] for p in found if p is not None}

    def _search(self, queries: Sequence[str]) -> dict[str, Found]:
        assert self._retriever is not None
        found: dict[str, Found] = {}
        with self._bars.open("search", len(queries), "query") as bar:
            for start in range(0, len(queries), CHUNK):
                some = queries[start : start + CHUNK]
                began = time.monotonic()
                results = self._retriever.begin([(query, self._k) for query in some])()
                self.seconds += time.monotonic() - began
                found |= zip(some, results, strict=True)
                bar.update(len(some))
        self.made += len(found)
        self.failed += sum(isinstance(each, RetrieverError) for each in found.values())
        return found
