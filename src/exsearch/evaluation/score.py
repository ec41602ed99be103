"""A score is the mean of each metric over all questions, with how sure it is; two are compared.

Every question counts: one without a prediction is wrong, and the number of these is told. It does
not make predictions, and works on any file of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.data.json_lines import Fields, read_objects
from exsearch.errors import DataError
from exsearch.evaluation.evaluate import PREDICTIONS_FILE
from exsearch.evaluation.groups import LINKS, group_figures, group_of, guess_right
from exsearch.evaluation.metrics import (
    Judged,
    Rules,
    all_metrics,
    find_metric,
    with_todays_names,
)
from exsearch.evaluation.significance import mean_interval, paired_difference
from exsearch.records import Question
from exsearch.runs import read_jsonl


def load_predictions(path: Path | str) -> dict[str, str]:
    """Predicted answers by question id.

    Args:
        path: JSON lines of `{"id", "prediction"}`, packed or not. A prediction may be blank, which
            counts as wrong, but not be missing.

    Raises:
        DataError: the file is missing or empty, a line is of another form, or an id comes twice.
    """
    path = Path(path)
    predictions: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, values in read_objects(path, "prediction file"):
        fields = Fields(values, path, number)
        question_id = fields.id()
        if question_id in lines:
            message = f'id "{question_id}" is also on line {lines[question_id]}; ids must differ'
            raise DataError(message, file=path, line=number)
        lines[question_id] = number
        predictions[question_id] = fields.text("prediction", blank=True)
    if not predictions:
        raise DataError('no prediction in it; expected lines of {"id", "prediction"}', file=path)
    return predictions


def score_predictions(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    rules: Rules = "kilt",
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean of each metric of answers over all questions, with its 95 % interval.

    Args:
        questions: The questions, each with an accepted answer.
        predictions: The predicted answers by question id; a missing one is wrong.
        rules: Whose rules the metrics follow where `kilt` and `hotpotqa` differ.
        seed: Decides the resampling of the intervals.

    Returns:
        `{"n", "em", "f1", "acc", …, "ci95": {"em": [low, high], …}, "groups", "missing"}`: means
        from 0 to 1, of all questions and of each group (`groups.group_figures`), where `missing`
        counts the questions without a prediction.

    Raises:
        DataError: no question, a question without an accepted answer, or a prediction for an id
            that no question has.
        ValueError: unknown rules.
    """
    values = _values(questions, predictions, rules)
    rows = [
        {
            **{name: each[n] for name, each in values.items()},
            "group": group_of(question).value,
            "guess": guess_right(question),
            "chain": dict.fromkeys(LINKS) | {LINKS[-1]: values["em"][n] == 1},
        }
        for n, question in enumerate(questions)
    ]
    return {
        "n": len(questions),
        **{name: sum(each) / len(each) for name, each in values.items()},
        "ci95": {name: list(mean_interval(v, seed=seed)) for name, v in values.items()},
        "groups": group_figures(rows, [*values, "guess"], seed=seed),
        "missing": sum(question.id not in predictions for question in questions),
    }


def compare_predictions(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    others: Mapping[str, str],
    rules: Rules = "kilt",
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """How much better `predictions` are than `others`, question by question.

    Args:
        questions: The questions, each with an accepted answer.
        predictions: The answers of the first system, by question id; a missing one is wrong.
        others: The answers of the second system, by question id; a missing one is wrong.
        rules: Whose rules the metrics follow where `kilt` and `hotpotqa` differ.
        seed: Decides the resampling.

    Returns:
        For each metric of an answer `{"difference", "ci95", "p", "better", "worse"}`: shares of 1,
        the two-sided p-value, and the questions on which the first system did better and worse.

    Raises:
        DataError: no question, a question without an accepted answer, or in either system a
            prediction for an id that no question has.
        ValueError: unknown rules.
    """
    first, second = (_values(questions, each, rules) for each in (predictions, others))
    return {name: compare_values(ours, second[name], seed=seed) for name, ours in first.items()}


def compare_values(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0
) -> dict[str, Any]:
    """How much better one system is than another by a metric.

    Args:
        ours: The values of the first system, one a question.
        theirs: The values of the second system on the same questions, in the same order.
        seed: Decides the resampling.

    Returns:
        `{"difference", "ci95", "p", "better", "worse"}`, as `compare_predictions` has them.
    """
    found = paired_difference(ours, theirs, seed=seed)
    return {
        "difference": found.difference,
        "ci95": [found.low, found.high],
        "p": found.p_value,
        "better": sum(a > b for a, b in zip(ours, theirs, strict=True)),
        "worse": sum(a < b for a, b in zip(ours, theirs, strict=True)),
    }


def compare_evaluations(folder: Path, other: Path, metric: str) -> dict[str, Any] | None:
    """How much better the evaluation in one folder is than that in another, question by question.

    Args:
        folder: The folder of the first evaluation.
        other: The folder of the second one; only questions that both have a value for count.
        metric: The name of the metric.

    Returns:
        What `compare_values` gives, with the `metric` and the number `n` of questions; None where
        there is none.
    """
    name = find_metric(metric).name

    def values(place: Path) -> dict[str, float]:
        rows = map(with_todays_names, read_jsonl(place / PREDICTIONS_FILE))
        return {row["id"]: row[name] for row in rows if row.get(name) is not None}

    ours, theirs = values(folder), values(other)
    both = [id_ for id_ in ours if id_ in theirs]
    if not both:
        return None
    found = compare_values([ours[id_] for id_ in both], [theirs[id_] for id_ in both])
    return {"metric": name, "n": len(both), **found}


def _values(
    questions: Sequence[Question], predictions: Mapping[str, str], rules: Rules
) -> dict[str, list[float]]:
    """The value of each metric of answers for each question, in the order of the questions."""
    _check(questions, predictions)
    judged = [Judged(q, predictions.get(q.id, ""), None, rules) for q in questions]
    return {
        metric.name: [float(metric.function(j) or 0.0) for j in judged]
        for metric in all_metrics(searches=False)
    }


def _check(questions: Sequence[Question], predictions: Mapping[str, str]) -> None:
    if not questions:
        raise DataError("no question to score")
    unanswered = [q.id for q in questions if not q.distinct_answers]
    if unanswered:
        message = f'question "{unanswered[0]}" has no accepted answer ({len(unanswered)} in all)'
        raise DataError(f"{message}; only questions with answers can be scored")
    known = {question.id for question in questions}
    unknown = [question_id for question_id in predictions if question_id not in known]
    if unknown:
        message = f'a prediction is for "{unknown[0]}", which no question has as its id'
        raise DataError(f"{message} ({len(unknown)} such); is it the file of another split?")
