"""A summary has what judges said of each system beside its metrics, and how far judges agree.

An item counts by the share of its judges who said yes; those who were unsure don't count. A
question counts once, by the mean over its items.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from exsearch.diagnosis.parts import Part
from exsearch.diagnosis.rates import Rates
from exsearch.evaluation.score import compare_values
from exsearch.judging.agreement import alpha
from exsearch.judging.items import Kind
from exsearch.judging.study import Judgement, Study, Verdict, metrics_of

# A person's verdict on the answer beside the metric's: which of them says that it is right.
RIGHT_NOT_EM, EM_NOT_RIGHT = "right_not_em", "em_not_right"


def summarise(study: Study) -> dict[str, Any]:
    """The figures of a study.

    Returns:
        `{"items", "judges", "agreement", "parts", "against"}`. `judges` has the number of
        judgements by judge; `agreement` by kind `alpha` and the number `n` of items that two or
        more judged. Each of `parts` has its names and its `rates` (`Rates.figures`): one by kind,
        and of the answers that were judged `em`, `f1`, `right_not_em` and `em_not_right`. Each of
        `against` compares the first part with another one by what judges said (`answer`) and by
        `em`, on the questions whose answers were judged in both (`compare_values`).
    """
    judgements = study.judgements()
    shares = _shares(judgements)
    parts = [(part, *_part(study, part, shares)) for part in study.parts]
    (_, _, first), *others = parts
    return {
        "items": len(study.items),
        "judges": dict(Counter(judgement.judge for judgement in judgements)),
        "agreement": _agreement(study, judgements),
        "parts": [
            {"place": str(part.place), "stage": part.stage, "method": part.method, "rates": rates}
            for part, rates, _ in parts
        ],
        "against": [_against(part, first, own) for part, _, own in others],
    }


def _shares(judgements: Sequence[Judgement]) -> dict[str, float]:
    """For each item that a judge is sure of, the share of these who said yes."""
    said: dict[str, list[bool]] = defaultdict(list)
    for judgement in judgements:
        if judgement.verdict is not Verdict.UNSURE:
            said[judgement.item].append(judgement.verdict is Verdict.YES)
    return {item: sum(own) / len(own) for item, own in said.items()}


def _agreement(study: Study, judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in Kind:
        own = [
            (judgement.judge, judgement.item, judgement.verdict.value)
            for judgement in judgements
            if judgement.verdict is not Verdict.UNSURE and study.items[judgement.item].kind is kind
        ]
        value, items = alpha(own)
        found[kind.value] = {"alpha": value, "n": items}
    return found


_Answers = dict[str, dict[str, float]]  # by the question the values of its judged answers


def _part(
    study: Study, part: Part, shares: Mapping[str, float]
) -> tuple[dict[str, dict[str, Any]], _Answers]:
    """The rates of a part, and what is known of each answer that was judged."""
    rates, answers = Rates(), _Answers()
    for item, share in shares.items():
        kind = study.items[item].kind
        for use in (use for use in study.uses[item] if use.part is part):
            values = {kind.value: share}
            if kind is Kind.ANSWER and (metrics := metrics_of(use.trajectory)):
                right, em = share > 0.5, metrics["em"] == 1
                differ = {RIGHT_NOT_EM: float(right and not em)}
                differ[EM_NOT_RIGHT] = float(em and share < 0.5)
                answers[use.trajectory.id] = {**values, **metrics}
                values |= {**metrics, **differ}
            rates.add(use.trajectory, values.items())
    figures = rates.figures()
    return figures, answers


def _against(part: Part, first: _Answers, other: _Answers) -> dict[str, Any]:
    both = [id for id in first if id in other]
    compared = {
        name: compare_values([first[id][name] for id in both], [other[id][name] for id in both])
        for name in (Kind.ANSWER.value, "em")
        if both
    }
    names = {"place": str(part.place), "stage": part.stage, "method": part.method}
    return {**names, "n": len(both), **compared}
