"""A retrieval is judged by where it finds a question's supporting passages, or its answers.

Recall, reciprocal rank and nDCG are trec_eval's, by ir-measures, of passages in the order in which
they were given: equal scores are ranks of their own. It does not search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exsearch.errors import MissingExtraError
from exsearch.evaluation.metrics import answer_recall
from exsearch.evaluation.score import compare_values
from exsearch.records import Passage, Question

Values = Mapping[str, float | None]
Ranking = Sequence[Passage]  # what one search found, best first

FLIPPED = ("all_support", "answer_recall")  # of one search 0 or 1, so that a question can flip


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question and what is searched for on its behalf.

    Attributes:
        question: The question.
        samples: The queries of each of its trajectories, in their order; empty where the question
            itself is the one query.
    """

    question: Question
    samples: tuple[tuple[str, ...], ...] = ()

    @property
    def searches(self) -> tuple[tuple[str, ...], ...]:
        """The queries by sample; the question itself where it has no samples."""
        return self.samples or ((self.question.question,),)


def judge(
    asked: Sequence[Asked], found: Sequence[Sequence[Sequence[Ranking]]], ks: Sequence[int]
) -> list[dict[str, float | None]]:
    """The figures of some questions, each from 0 to 1.

    Args:
        asked: The questions.
        found: For each question and each of its samples, what each of its queries found.
        ks: The numbers of passages, from the first on, that count.

    Returns:
        For each question `recall@k`, `all_support@k` (1 where all supporting passages are among the
        first k), `ndcg@k`, `answer_recall@k` (1 where one of them holds an accepted answer) of each
        k, and the reciprocal rank `mrr@k` of the largest. A question with samples has the means
        over its searches as `single_…`, and `union_…` for the first k of all searches of a sample
        together, without ranks; both are means over its samples. None where a question says
        nothing: no support or answer is named, or nothing was searched for.

    Raises:
        MissingExtraError: ir-measures is not installed.
    """
    pairs = zip(asked, found, strict=True)
    flat = [(a.question, r) for a, samples in pairs for searches in samples for r in searches]
    single = iter(_of_rankings(flat, ks))
    figures: list[dict[str, float | None]] = []
    for one, samples in zip(asked, found, strict=True):
        if not one.samples:
            figures.append(next(single))
            continue
        of_samples: list[dict[str, float | None]] = []
        for searches in samples:
            means = _means([next(single) for _ in searches])
            union = _of_union(one.question, searches, ks)
            of_samples.append(_named("single", means) | _named("union", union))
        figures.append(_means(of_samples))
    return figures


def _of_rankings(
    rankings: Sequence[tuple[Question, Ranking]], ks: Sequence[int]
) -> list[dict[str, float | None]]:
    """The figures of single searches."""
    try:
        from ir_measures import RR, R, iter_calc, nDCG
    except ImportError as error:
        raise MissingExtraError("judging retrieval", "measures", str(error)) from None
    names = {R @ k: f"recall@{k}" for k in ks} | {nDCG @ k: f"ndcg@{k}" for k in ks}
    names[RR] = f"mrr@{max(ks)}"
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for number, (question, found) in enumerate(rankings):
        # Passages go by their ranks: no id needs to be fit for a file, and no score decides a tie.
        ranks = {passage.id: str(rank) for rank, passage in enumerate(found[: max(ks)])}
        wanted = [ranks.get(id_, f"not found {id_}") for id_ in question.supporting]
        if wanted:
            qrels[str(number)] = dict.fromkeys(wanted, 1)
            run[str(number)] = {rank: -float(rank) for rank in ranks.values()}
    order = [*_per_k(ks, "recall", "all_support", "ndcg"), names[RR], *_per_k(ks, "answer_recall")]
    figures: list[dict[str, float | None]] = [dict.fromkeys(order) for _ in rankings]
    for metric in iter_calc(list(names), qrels, run) if qrels else ():
        figures[int(metric.query_id)][names[metric.measure]] = float(metric.value)
    for (question, found), values in zip(rankings, figures, strict=True):
        for k in ks:
            recall = values[f"recall@{k}"]
            values[f"all_support@{k}"] = None if recall is None else float(recall == 1)
            values[f"answer_recall@{k}"] = answer_recall(found, question.answers, k)
    return figures


def _per_k(ks: Sequence[int], *names: str) -> list[str]:
    return [f"{name}@{k}" for name in names for k in ks]


def _of_union(
    question: Question, searches: Sequence[Ranking], ks: Sequence[int]
) -> dict[str, float | None]:
    """The figures of several searches together."""
    values: dict[str, float | None] = dict.fromkeys(_per_k(ks, "recall", "all_support"))
    wanted = set(question.supporting)
    for k in ks:
        union = {passage.id: passage for found in searches for passage in found[:k]}
        recall = len(wanted & union.keys()) / len(wanted) if wanted else None
        values[f"recall@{k}"] = recall
        values[f"all_support@{k}"] = None if recall is None else float(recall == 1)
        values[f"answer_recall@{k}"] = answer_recall(list(union.values()), question.answers)
    return values


def _means(each: Sequence[Values]) -> dict[str, float | None]:
    """The mean of each figure over those that have it."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for values in each for name in values):
        known = [v for values in each if (v := values.get(name)) is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def _named(prefix: str, values: Values) -> dict[str, float | None]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def compare(
    rows: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """How much better one place is than another, question by question.

    Args:
        rows: The `id` and the `values` of each question at the first place.
        others: Those of the same questions at the second place.
        seed: Decides the resampling.

    Returns:
        For each figure what `compare_values` gives, and for the figures of 0 and 1 the ids of the
        questions that only the first place has (`gained`) and only the second (`lost`).
    """
    ours = {row["id"]: row["values"] for row in rows}
    theirs = {row["id"]: row["values"] for row in others}
    compared = {}
    for name in dict.fromkeys(name for values in ours.values() for name in values):
        ids = [i for i in ours if None not in (ours[i].get(name), theirs[i].get(name))]
        if not ids:
            continue
        first, second = [ours[i][name] for i in ids], [theirs[i][name] for i in ids]
        compared[name] = compare_values(first, second, seed=seed)
        if name.partition("@")[0].removeprefix("union_") in FLIPPED:
            compared[name]["gained"] = [i for i in ids if ours[i][name] > theirs[i][name]]
            compared[name]["lost"] = [i for i in ids if ours[i][name] < theirs[i][name]]
    return compared
