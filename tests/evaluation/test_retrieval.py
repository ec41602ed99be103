"""Figures of retrieval equal values worked out by hand, whatever ids and scores look like."""

from __future__ import annotations

import sys
from math import log2

import ir_measures
import pytest

from exsearch.errors import MissingExtraError
from exsearch.evaluation.retrieval import Asked, compare, judge
from exsearch.jobs.retrieve import FORMS
from exsearch.records import Passage, Question


def passages(ids: str, scores: str = "") -> list[Passage]:
    """Passages by their ids, a letter each, with scores of a digit each, else falling ones."""
    values = [float(s) for s in scores] or [float(-n) for n in range(len(ids))]
    texts = {"y": "Yes, it is.", "u": "The U.S. is a country."}
    return [
        Passage(id_, "", texts.get(id_, f"Of {id_}."), s)
        for id_, s in zip(ids, values, strict=True)
    ]


def figures(support: str, found: str, scores: str = "", ks=(2, 4), answers=()):
    question = Question("q", "?", answers=answers, supporting=tuple(support))
    (values,) = judge([Asked(question)], [[[passages(found, scores)]]], ks)
    return values


# DCG by hand: 1 / log2(rank + 1) for each supporting passage, over that of the best order.
IDEAL_2 = 1 + 1 / log2(3)
IDEAL_3 = IDEAL_2 + 1 / 2


@pytest.mark.parametrize(
    ("support", "found", "scores", "expected"),
    [
        ("ab", "ab", "", {"recall@2": 1, "all_support@2": 1, "ndcg@2": 1, "mrr@4": 1}),
        ("ab", "xaby", "", {"recall@2": 0.5, "all_support@2": 0, "all_support@4": 1, "mrr@4": 0.5}),
        ("ab", "xaby", "", {"ndcg@2": 1 / log2(3) / IDEAL_2}),
        ("ab", "xaby", "", {"ndcg@4": (1 / log2(3) + 1 / 2) / IDEAL_2}),
        ("abc", "awxyb", "", {"recall@4": 1 / 3, "ndcg@4": 1 / IDEAL_3}),
        ("abc", "wxyb", "", {"recall@4": 1 / 3, "ndcg@4": 1 / log2(5) / IDEAL_3, "mrr@4": 1 / 4}),
        # Of equal scores the order that was given counts, be the id early or late in the alphabet.
        ("a", "xay", "111", {"ndcg@4": 1 / log2(3), "mrr@4": 1 / 2, "recall@2": 1}),
        ("x", "axb", "111", {"ndcg@4": 1 / log2(3), "mrr@4": 1 / 2, "recall@2": 1}),
        ("a", "xya", "550", {"ndcg@4": 1 / 2, "mrr@4": 1 / 3, "recall@2": 0}),
        ("x", "ayx", "111", {"ndcg@2": 0, "ndcg@4": 1 / 2, "mrr@4": 1 / 3, "all_support@2": 0}),
        ("ab", "", "", {"recall@4": 0, "all_support@4": 0, "ndcg@4": 0, "mrr@4": 0}),
        ("ab", "wxyzab", "", {"recall@4": 0, "mrr@4": 0}),  # what lies beyond does not count
        ("aa", "ax", "", {"recall@2": 1, "all_support@2": 1, "ndcg@2": 1}),
    ],
)
def test_figures_equal_those_worked_out_by_hand(support, found, scores, expected):
    values = figures(support, found, scores)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_an_id_may_be_anything():
    odd = ["", "a b\tc\n", "\x00", "ü\U0001f41d", "1", "not found 1", "x" * 10_000]
    found = [Passage(id_, "", "t", 1.0) for id_ in odd]
    question = Question("a b\x00", "?", supporting=("none", *odd[1:4]))
    (values,) = judge([Asked(question)], [[[found]]], (2, 7))
    assert (values["recall@7"], values["recall@2"], values["mrr@7"]) == (0.75, 0.25, 0.5)


def test_answers_are_looked_for_where_no_support_is_named():
    values = figures("", "xyu", answers=("US", "us"))
    assert values["answer_recall@2"] == 0
    assert values["answer_recall@4"] == 1
    assert values["recall@2"] is values["ndcg@4"] is values["mrr@4"] is values["all_support@2"]
    assert values["recall@2"] is None
    assert figures("a", "ay", answers=("yes",))["answer_recall@2"] is None
    assert figures("a", "ay", answers=(" ",))["answer_recall@2"] is None
    assert figures("a", "ay")["answer_recall@2"] is None
    assert figures("a", "ay", answers=("it is",))["answer_recall@2"] == 1


def test_searches_of_a_trajectory_count_alone_and_together():
    question = Question("q", "?", answers=("of b",), supporting=("a", "b"))
    asked = Asked(question, (("first", "second"), ("third",), ()))
    found = [[passages("axb"), passages("bx")], [passages("xya")], []]
    (values,) = judge([asked], [found], (1, 2))
    assert values["single_recall@1"] == pytest.approx(((0.5 + 0.5) / 2 + 0) / 2)
    assert values["single_mrr@2"] == pytest.approx((1 + 0) / 2)  # no search, no mean
    assert values["union_recall@1"] == pytest.approx((1 + 0 + 0) / 3)
    assert values["union_all_support@1"] == pytest.approx(1 / 3)
    assert values["union_answer_recall@1"] == pytest.approx(1 / 3)
    assert values["union_recall@2"] == pytest.approx((1 + 0 + 0) / 3)
    assert not any("@3" in name or name.startswith("union_ndcg") for name in values)


def test_questions_are_judged_together_as_alone():
    questions = [Question(f"q{n}", "?", supporting=tuple("abc"[: n % 4])) for n in range(9)]
    found = [[[passages("xcbya"[n % 5 :])]] for n in range(9)]
    asked = [Asked(q) for q in questions]
    alone = [judge([a], [f], (1, 3))[0] for a, f in zip(asked, found, strict=True)]
    assert judge(asked, found, (1, 3)) == alone


def test_what_flipped_is_told_by_question():
    def row(id_, support, recall):
        return {"id": id_, "values": {"all_support@5": support, "recall@5": recall, "mrr@5": None}}

    ours = [row("a", 1.0, 1.0), row("b", 0.0, 0.5), row("c", 1.0, 1.0), row("d", None, None)]
    theirs = [row("a", 0.0, 0.5), row("b", 1.0, 1.0), row("c", 1.0, 1.0), row("d", None, None)]
    found = compare(ours, theirs)
    assert found.keys() == {"all_support@5", "recall@5"}
    assert (found["all_support@5"]["gained"], found["all_support@5"]["lost"]) == (["a"], ["b"])
    assert (found["recall@5"]["better"], found["recall@5"]["worse"]) == (1, 1)
    assert found["recall@5"]["difference"] == 0
    assert "gained" not in found["recall@5"]


def test_a_run_file_is_judged_as_the_ranking_was(tmp_path):
    """trec_eval breaks ties by id, and reads 32 bits: the written scores leave it no tie."""
    close = [1.0, 1.0, 1.0 - 1e-12, 1.0 - 1e-12, 0.5, 0.5, -0.0, 0.0]
    orders = ["abcdefgh", "hgfedcba", "cahbgdfe"]
    supports = ["bg", "a", "hc"]
    rankings = [
        [Passage(id_, "", "t", score) for id_, score in zip(order, close, strict=True)]
        for order in orders
    ]
    file = tmp_path / "run"
    lines = [FORMS["trec"](f"q{n}", "?", ranking) for n, ranking in enumerate(rankings)]
    file.write_text("\n".join(lines) + "\n")
    questions = [Question(f"q{n}", "?", supporting=tuple(s)) for n, s in enumerate(supports)]
    ours = judge([Asked(q) for q in questions], [[[r]] for r in rankings], (3, 8))
    qrels = {q.id: dict.fromkeys(q.supporting, 1) for q in questions}
    measures = [ir_measures.nDCG @ 3, ir_measures.nDCG @ 8, ir_measures.RR, ir_measures.R @ 3]
    names = dict(zip(measures, ("ndcg@3", "ndcg@8", "mrr@8", "recall@3"), strict=True))
    run = list(ir_measures.read_trec_run(str(file)))
    assert len(run) == 24
    for metric in ir_measures.iter_calc(measures, qrels, run):
        assert metric.value == pytest.approx(ours[int(metric.query_id[1:])][names[metric.measure]])


def test_without_ir_measures_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"exsearch\[measures\]"):
        figures("a", "a")
