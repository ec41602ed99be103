"""Metrics equal independent implementations, case by case; where they differ, it is by choice."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.evaluation.metrics import (
    accuracy,
    exact_match,
    f1,
    normalize,
    recall_by_answer,
    recall_by_id,
)
from exsearch.records import Passage

# --- Independent implementations, from the definition, without regular expressions or Counter.


def reference_normalize(text):
    """Lower, drop ASCII punctuation, blank out articles that stand as whole words, fix spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    words, word = [], ""
    for c in [*text, " "]:
        if c.isalnum() or c == "_":
            word += c
            continue
        words += [" " if word in ("a", "an", "the") else word, c]
        word = ""
    return " ".join("".join(words).split())


def reference_f1(prediction, gold):
    guess, wanted = reference_normalize(prediction).split(), reference_normalize(gold).split()
    left = list(wanted)
    same = 0
    for word in guess:
        if word in left:
            left.remove(word)
            same += 1
    # The harmonic mean of same/len(guess) and same/len(wanted), in one fraction.
    return 2 * same / (len(guess) + len(wanted)) if same else 0.0


def reference_hotpotqa_f1(prediction, gold):
    a, b = reference_normalize(prediction), reference_normalize(gold)
    for word in ("yes", "no", "noanswer"):
        if (a == word) != (b == word):
            return 0.0
    return reference_f1(prediction, gold)


TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            ["the", "The", "a", "an", "yes", "no", "noanswer", "U.S.", "7th", "Röntgen", "X", "-"]
        ),
        max_size=5,
    ).map(" ".join),
)
GOLDS = st.lists(TEXTS, min_size=1, max_size=3).filter(lambda golds: any(g.strip() for g in golds))


@given(TEXTS)
def test_normalize(text):
    assert normalize(text) == reference_normalize(text)


@given(TEXTS, GOLDS)
def test_against_references(prediction, golds):
    golds_kept = [gold for gold in golds if gold.strip()]
    blank = not prediction.strip()  # KILT refuses a blank prediction; here it is wrong
    same = any(reference_normalize(prediction) == reference_normalize(g) for g in golds_kept)
    assert exact_match(prediction, golds) == (0.0 if blank else float(same))
    best = max(reference_f1(prediction, gold) for gold in golds_kept)
    assert f1(prediction, golds) == pytest.approx(best, abs=1e-12)
    best = max(reference_hotpotqa_f1(prediction, gold) for gold in golds_kept)
    assert f1(prediction, golds, "hotpotqa") == pytest.approx(best, abs=1e-12)


@given(TEXTS, GOLDS)
def test_bounds_and_order(prediction, golds):
    em, found = exact_match(prediction, golds), accuracy(prediction, golds)
    assert 0 <= f1(prediction, golds, "hotpotqa") <= f1(prediction, golds) <= 1
    if em and any(normalize(gold) for gold in golds) and normalize(prediction):
        assert found == f1(prediction, golds) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles' (U.K.) Album\n", "beatles uk album"),
        ("A.B. an-the a", "ab anthe"),  # punctuation goes first, so that words may join
        ("Theatre of an Ant", "theatre of ant"),
        ("“the” € é", "“ ” € é"),  # only ASCII punctuation goes
        ("the", ""),
        ("...", ""),
    ],
)
def test_normalize_by_hand(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "em", "kilt", "hotpotqa", "acc"),
    [
        ("The Who!", ["who"], 1, 1, 1, 1),
        ("band the Who", ["who"], 0, 2 / 3, 2 / 3, 1),
        ("a b b", ["b b c", "zzz"], 0, 0.8, 0.8, 0),  # "a" is an article: b b against b b c
        ("yes", ["yes"], 1, 1, 1, 1),
        ("yes it is", ["yes"], 0, 1 / 2, 0, 1),
        ("no", ["no idea"], 0, 2 / 3, 0, 0),
        ("unknown", ["no"], 0, 0, 0, 1),  # containment is of texts, as published work has it
        ("", ["x"], 0, 0, 0, 0),
        (" \t", ["The"], 0, 0, 0, 0),
        ("an", ["The"], 1, 0, 0, 0),  # KILT: both normalise to nothing, so they are equal
        ("x", ["The", "", " "], 0, 0, 0, 0),
    ],
)
def test_by_hand(prediction, golds, em, kilt, hotpotqa, acc):
    assert exact_match(prediction, golds) == em
    assert f1(prediction, golds) == pytest.approx(kilt)
    assert f1(prediction, golds, "hotpotqa") == pytest.approx(hotpotqa)
    assert accuracy(prediction, golds) == acc


@pytest.mark.parametrize("metric", [exact_match, f1, accuracy])
def test_no_gold_cannot_be_scored(metric):
    for golds in ([], [" "]):
        with pytest.raises(ValueError, match="no accepted answer"):
            metric("x", golds)


def test_unknown_rules():
    with pytest.raises(ValueError, match="kilt and hotpotqa"):
        f1("x", ["x"], "squad")


def test_recall_by_id():
    assert recall_by_id(["a", "b", "c"], ["c", "a"]) == 1
    assert recall_by_id(["a", "b", "c"], ["c", "a"], k=2) == 0.5
    assert recall_by_id(["a", "a"], ["a", "a", "b"]) == 0.5
    assert recall_by_id([], ["a"], k=5) == 0
    with pytest.raises(ValueError, match="no supporting passage"):
        recall_by_id(["a"], [])
    with pytest.raises(TypeError, match="supporting is one text"):
        recall_by_id(["a"], "a")


def test_recall_by_answer():
    passages = [
        Passage("1", "Russia", "A country."),
        Passage("2", "The U.S.", "Another"),
        Passage("3", "New", "York"),
    ]
    assert recall_by_answer(passages, ["US"]) == 1
    assert recall_by_answer(passages, ["US"], k=1) == 0
    assert recall_by_answer(passages, ["New York"]) == 0  # not across title and text
    assert recall_by_answer(passages, ["york", "x"]) == 1
    assert recall_by_answer(passages, ["The"]) == 0  # normalises to nothing, found nowhere
    assert recall_by_answer([], ["x"]) == 0
    with pytest.raises(ValueError, match="no accepted answer"):
        recall_by_answer(passages, [])
