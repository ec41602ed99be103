"""An audit says what a corpus lets anybody answer, before any model is asked.

A question whose answer stands in no passage can't be answered by searching, and one whose answer a
single search finds needs no second one. It reads questions and passages, no trajectory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from exsearch.errors import RetrieverError
from exsearch.evaluation.groups import Group, group_of
from exsearch.evaluation.metrics import answer_recall, normalize
from exsearch.evaluation.significance import mean_figures
from exsearch.records import Passage, Question
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import guarded

FIRST = 5  # passages of the one search
MOST_PASSAGES = 300_000  # a larger corpus is not read through
FIGURES = ("in_corpus", "in_first_search", "support_missing")


def audit(questions: Sequence[Question], retriever: Retriever) -> dict[str, Any]:
    """What the passages hold for each group of questions.

    Args:
        questions: The questions, each with an accepted answer.
        retriever: The retriever over the passages. Only an index of the kinds `bm25` and `dense`
            with at most `MOST_PASSAGES` is read through.

    Returns:
        For each group by its name `{"n", "in_corpus", "in_first_search", "support_missing"}`: the
        shares, as `mean_figures` has them, of questions whose answer stands in a passage at all, of
        those whose answer stands in the first `FIRST` of a search with the question itself, and of
        those of whose support a passage is not there. None where it can't be known, and a question
        whose search failed is left out of the share.
    """
    found = guarded(retriever).begin([(question.question, FIRST) for question in questions])()
    held, there = _held(questions, retriever), _there(questions, retriever)
    rows: dict[Group, list[list[float | None]]] = {group: [] for group in Group}
    for question, passages in zip(questions, found, strict=True):
        group, values = group_of(question), list[float | None]([None] * len(FIGURES))
        if held is not None and group is not Group.YES_NO:  # of these words a passage says nothing
            values[0] = float(question.id in held)
        if not isinstance(passages, RetrieverError):
            values[1] = answer_recall(passages, question.answers)
        if there is not None and question.supporting:
            values[2] = float(not there.issuperset(question.supporting))
        rows[group].append(values)
    return {
        group.value: {
            "n": len(own),
            **mean_figures({name: [r[i] for r in own] for i, name in enumerate(FIGURES)}),
        }
        for group, own in rows.items()
        if own
    }


def _there(questions: Sequence[Question], retriever: Retriever) -> set[str] | None:
    """The ids of supporting passages that there are; None where passages can't be fetched."""
    wanted = list(dict.fromkeys(id_ for question in questions for id_ in question.supporting))
    try:
        found = retriever.fetch(wanted)
    except RetrieverError:
        return None
    return {id_ for id_, passage in zip(wanted, found, strict=True) if passage is not None}


def _held(questions: Sequence[Question], retriever: Any) -> set[str] | None:
    """The ids of the questions of which an accepted answer stands in a passage; None if unknown."""
    while hasattr(retriever, "inner"):  # guarded, and cached
        retriever = retriever.inner
    passages = getattr(retriever, "passages", None)
    if passages is None or len(retriever) > MOST_PASSAGES:
        return None
    return answers_held(questions, passages())


def answers_held(questions: Iterable[Question], passages: Iterable[Passage]) -> set[str]:
    """The ids of the questions of which an accepted answer stands in the title or text of one.

    As `recall_by_answer` has it, for many questions at once.

    Args:
        questions: The questions.
        passages: The passages; they are read once.
    """
    waiting: dict[str, dict[str, set[str]]] = {}  # first word of an answer -> answer -> questions
    for question in questions:
        for gold in map(normalize, question.answers):
            if gold:
                own = waiting.setdefault(gold.split()[0], {})
                own.setdefault(gold, set()).add(question.id)
    held: set[str] = set()
    for passage in passages:
        text = f" {normalize(passage.title)} \n {normalize(passage.text)} "
        for word in waiting.keys() & set(text.split()):
            for gold in [gold for gold in waiting[word] if f" {gold} " in text]:
                held |= waiting[word].pop(gold)
    return held
