"""A metric compares a prediction with the accepted answers, or searches with the gold passages.

`METRICS` names all of them, for evaluations, scoring, tables and the choice of the best iteration.
The rules are the official ones: KILT's (`eval_downstream.py`), and HotpotQA's where asked. It does
not average over questions (`score.py`) or judge with a model.

Two cases that the official scripts refuse or leave open: a blank prediction is wrong by every
metric, also where an accepted answer normalises to nothing (as "The" does); and a question without
an accepted answer can't be scored, which is a ValueError.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from exsearch import plugins
from exsearch.records import Passage, Question, refuse_text

Rules = Literal["kilt", "hotpotqa"]


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """All that a metric may look at for one question.

    Attributes:
        question: The question, with an accepted answer.
        prediction: The answer that was given; empty where none was.
        passages: Every passage that was found, each once; None where only answers are judged.
        rules: Whose rules hold where those of KILT and of HotpotQA differ.
        searches: What each single search found, in their order.
    """

    question: Question
    prediction: str
    passages: Sequence[Passage] | None
    rules: Rules = "kilt"
    searches: Sequence[Sequence[Passage]] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A figure of one question, from 0 to 1.

    Attributes:
        name: The metric's name in files, recipes and tables of figures.
        label: The metric's name for people.
        function: Works the figure out. A metric of searches gives None for a question that it says
            nothing about.
        of_searches: True where it needs the passages found, so that predictions alone have none.
        was: An earlier name, under which figures and recipes are still read; empty where none.
    """

    name: str
    label: str
    function: Callable[[Judged], float | None]
    of_searches: bool = False
    was: str = ""


def all_metrics(*, searches: bool = True) -> list[Metric]:
    """The metrics, built in or added by the entry points `exsearch.metrics`.

    Args:
        searches: False leaves out those that need the passages found.
    """
    return [m for m in plugins.find_all(METRICS, "metric") if searches or not m.of_searches]


def find_metric(name: str) -> Metric:
    """The metric that has this name, or had it earlier.

    Raises:
        ConfigError: no metric has this name; the message says which one is nearest.
    """
    return plugins.find(METRICS, _earlier_names().get(name, name), "metric")


def with_todays_names(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by metric, their counts `<name>_n` and intervals, with earlier names replaced."""
    today = _earlier_names()
    today |= {f"{was}_n": f"{name}_n" for was, name in today.items()}
    named = {today.get(key, key): value for key, value in figures.items()}
    if isinstance(intervals := named.get("ci95"), Mapping):
        named["ci95"] = with_todays_names(intervals)
    return named


def _earlier_names() -> dict[str, str]:
    return {metric.was: name for name, metric in METRICS.items() if metric.was}


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})


def normalize(text: str) -> str:
    """A text in lower case without ASCII punctuation, the articles a, an, the, and spare blanks.

    They are taken out in this order, as KILT does.

    Example:
        >>> normalize("The  Beatles' (U.K.) album")
        'beatles uk album'
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Exact match: 1 where the prediction equals an accepted answer after `normalize`, else 0.

    Args:
        prediction: The answer that was given.
        answers: The accepted answers.

    Raises:
        ValueError: no accepted answer.
    """
    return _best(lambda guess, gold: float(guess == gold), prediction, answers)


def f1(prediction: str, answers: Sequence[str], rules: Rules = "kilt") -> float:
    """The best F1 of words, counted with repeats after `normalize`, over the accepted answers.

    Args:
        prediction: The answer that was given.
        answers: The accepted answers.
        rules: With `hotpotqa`, F1 is 0 where either side is yes, no or noanswer and they differ.

    Raises:
        ValueError: no accepted answer, or unknown rules.
    """
    if rules not in ("kilt", "hotpotqa"):
        raise ValueError(f"no rules are called {rules!r}; there are kilt and hotpotqa")
    return _best(_f1_hotpotqa if rules == "hotpotqa" else _f1_words, prediction, answers)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """1 where an accepted answer stands in the prediction, both after `normalize`, else 0.

    KILT has no such metric. This is the usual one of published work: containment as a text, not at
    word boundaries, so that the answer "no" is found in "unknown". Read it beside EM and F1.

    Args:
        prediction: The answer that was given.
        answers: The accepted answers.

    Raises:
        ValueError: no accepted answer.
    """
    return _best(lambda guess, gold: float(bool(gold) and gold in guess), prediction, answers)


def recall_by_id(
    found_ids: Iterable[str], supporting: Sequence[str], k: int | None = None
) -> float:
    """The share of the supporting passages that were found.

    Args:
        found_ids: The ids of the passages found, best first.
        supporting: The ids of the supporting passages.
        k: The number of passages found that count, from the first on; None counts all.

    Raises:
        ValueError: no supporting passage is known.
    """
    refuse_text("supporting", supporting)
    refuse_text("found_ids", found_ids)
    wanted = set(supporting)
    if not wanted:
        raise ValueError("no supporting passage is known; leave the question out of this recall")
    return len(wanted.intersection(list(found_ids)[:k])) / len(wanted)


def recall_by_answer(
    passages: Sequence[Passage], answers: Sequence[str], k: int | None = None
) -> float:
    """1 where one of the passages found holds an accepted answer, else 0.

    Title and text are searched, after `normalize` and at word boundaries: "US" is not in "Russia".

    Args:
        passages: The passages found, best first.
        answers: The accepted answers.
        k: The number of passages that count, from the first on; None counts all.

    Raises:
        ValueError: no accepted answer.
    """
    golds = [f" {gold} " for gold in map(normalize, _accepted(answers)) if gold]
    for passage in passages[:k]:
        text = f" {normalize(passage.title)} \n {normalize(passage.text)} "
        if any(gold in text for gold in golds):
            return 1.0
    return 0.0


def answer_recall(
    passages: Sequence[Passage], answers: Sequence[str], k: int | None = None
) -> float | None:
    """`recall_by_answer`, or None for a question that it says nothing about.

    That is one without an accepted answer, or one of yes or no: a passage that holds the word is no
    evidence.

    Args:
        passages: The passages found, best first.
        answers: The accepted answers, or none.
        k: The number of passages that count, from the first on; None counts all.
    """
    if any(normalize(answer) in _CLOSED_ANSWERS for answer in answers):
        return None
    accepted = any(answer.strip() for answer in answers)
    return recall_by_answer(passages, answers, k) if accepted else None


def _accepted(answers: Sequence[str]) -> list[str]:
    """The answers that are not blank, as KILT keeps them."""
    answers = [answers] if isinstance(answers, str) else answers
    accepted = [answer for answer in answers if answer.strip()]
    if not accepted:
        raise ValueError("no accepted answer; leave the question out or give it one")
    return accepted


def _best(metric: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    """The best value of a metric of two normalized texts; 0 for a blank prediction."""
    accepted = _accepted(answers)
    if not prediction.strip():
        return 0.0
    guess = normalize(prediction)
    return max(metric(guess, normalize(answer)) for answer in accepted)


def _f1_words(guess: str, gold: str) -> float:
    guess_words, gold_words = guess.split(), gold.split()
    shared = (Counter(guess_words) & Counter(gold_words)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(guess_words), shared / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def _f1_hotpotqa(guess: str, gold: str) -> float:
    closed = guess in _CLOSED_ANSWERS or gold in _CLOSED_ANSWERS
    return 0.0 if closed and guess != gold else _f1_words(guess, gold)


def _recall_by_id(judged: Judged, passages: Sequence[Passage]) -> float | None:
    wanted = judged.question.supporting
    return recall_by_id([p.id for p in passages], wanted) if wanted else None


def single_recalls(judged: Judged) -> list[float]:
    """The recall of each single search; empty where the question names no support."""
    return [r for found in judged.searches if (r := _recall_by_id(judged, found)) is not None]


def _union_recall(judged: Judged) -> float | None:
    return _recall_by_id(judged, judged.passages or ())


def _union_answer_recall(judged: Judged) -> float | None:
    return answer_recall(judged.passages or (), judged.question.answers)


def _single_recall(judged: Judged) -> float | None:
    recalls = single_recalls(judged)
    return sum(recalls) / len(recalls) if recalls else None


METRICS = {
    metric.name: metric
    for metric in (
        Metric("em", "EM", lambda j: exact_match(j.prediction, j.question.answers)),
        Metric("f1", "F1", lambda j: f1(j.prediction, j.question.answers, j.rules)),
        Metric("acc", "Acc", lambda j: accuracy(j.prediction, j.question.answers)),
        # Over the union of all searches of a question, or the mean over its single ones.
        Metric("union_recall", "recall, union", _union_recall, True, "recall_at_k"),
        Metric("single_recall", "recall, single", _single_recall, True),
        Metric(
            "union_answer_recall",
            "answers, union",
            _union_answer_recall,
            True,
            "answer_recall_at_k",
        ),
    )
}
