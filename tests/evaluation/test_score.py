"""Every question counts in a score, and a file of predictions that does not fit is refused."""

from __future__ import annotations

import gzip

import pytest

from exsearch.errors import DataError
from exsearch.evaluation.score import compare_predictions, load_predictions, score_predictions
from exsearch.evaluation.significance import mean_interval, paired_difference
from exsearch.records import Question

QUESTIONS = [
    Question("1", "q", answers=("Paris", "City of Light")),
    Question("2", "q", answers=("yes",)),
    Question("3", "q", answers=("Steve Hillage",)),
    Question("4", "q", answers=("x",)),
]
PREDICTIONS = {"1": "city of light.", "2": "yes indeed", "3": "Hillage"}


def test_means_intervals_and_missing():
    score = score_predictions(QUESTIONS, PREDICTIONS)
    assert score["n"] == 4
    assert score["missing"] == 1
    assert score["em"] == pytest.approx(1 / 4)
    assert score["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3 + 0) / 4)
    assert score["acc"] == pytest.approx(2 / 4)
    assert score["ci95"]["em"] == list(mean_interval([1, 0, 0, 0]))
    assert set(score["ci95"]) == {"em", "f1", "acc"}
    assert score_predictions(QUESTIONS, PREDICTIONS) == score


def test_a_comparison_is_paired():
    others = {"1": "Paris", "2": "yes", "3": "x", "4": "x"}
    compared = compare_predictions(QUESTIONS, PREDICTIONS, others)
    assert compared["em"]["difference"] == pytest.approx((0 - 1 + 0 - 1) / 4)
    assert (compared["em"]["better"], compared["em"]["worse"]) == (0, 2)
    assert (compared["f1"]["better"], compared["f1"]["worse"]) == (1, 2)
    found = paired_difference([1, 0, 0, 0], [1, 1, 0, 1])
    assert compared["em"]["ci95"] == [found.low, found.high]
    assert compared["em"]["p"] == found.p_value
    with pytest.raises(DataError, match="which no question has"):
        compare_predictions(QUESTIONS, PREDICTIONS, {"9": "x"})


def test_hotpotqa_rules():
    score = score_predictions(QUESTIONS, PREDICTIONS, rules="hotpotqa")
    assert score["f1"] == pytest.approx((1 + 0 + 2 / 3 + 0) / 4)


def test_a_blank_prediction_is_wrong_but_not_missing():
    score = score_predictions(QUESTIONS[:1], {"1": ""})
    assert (score["em"], score["missing"]) == (0, 0)
    assert score_predictions(QUESTIONS, {})["missing"] == 4


def test_what_cannot_be_scored():
    with pytest.raises(DataError, match=r'"9", which no question has.*2 such'):
        score_predictions(QUESTIONS, {"1": "x", "9": "x", "8": "x"})
    with pytest.raises(DataError, match=r'"5" has no accepted answer \(1 in all\)'):
        score_predictions([*QUESTIONS, Question("5", "q", answers=(" ",))], {})
    with pytest.raises(DataError, match="no question"):
        score_predictions([], {})
    with pytest.raises(ValueError, match="rules"):
        score_predictions(QUESTIONS, PREDICTIONS, rules="squad")


def test_load_predictions(tmp_path):
    path = tmp_path / "p.jsonl.gz"
    lines = '{"id": 1, "prediction": "x", "more": 0}\n\n{"id": "2", "prediction": ""}\n'
    path.write_bytes(gzip.compress(lines.encode()))
    assert load_predictions(path) == {"1": "x", "2": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no prediction in it"),
        ("{", r"p\.jsonl:1: not JSON"),
        ('{"id": "1"}', 'field "prediction" is missing'),
        ('{"id": "1", "prediction": null}', 'field "prediction" is null, expected text'),
        ('{"prediction": "x"}', 'field "id" is missing'),
        (
            '{"id": "1", "prediction": "x"}\n{"id": 1, "prediction": "y"}',
            r'p\.jsonl:2: id "1" is also on line 1',
        ),
    ],
)
def test_bad_prediction_files(tmp_path, text, said):
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        load_predictions(path)


def test_groups_stand_beside_the_whole():
    asked = [
        Question("a", "Which is older, Rome or Bonn?", ("Rome",)),
        Question("b", "Is Rome old?", ("yes",)),
        Question("c", "Who founded Rome?", ("Romulus",)),
        Question("d", "Who founded Bonn?", ("Drusus",)),
    ]
    score = score_predictions(asked, {"a": "Rome", "b": "no", "c": "romulus"})
    found = {name: (g["n"], g["em"], g["guess"]) for name, g in score["groups"].items()}
    assert found == {"in question": (1, 1, 0), "yes/no": (1, 0, 1), "neither": (2, 1 / 2, 0)}
    links = {"found": None, "shown": None, "recorded": None, "answered": 1, "lucky": 0}
    assert score["groups"]["neither"]["chain"] == links  # of answers alone nothing else is known
