"""Each action is judged after gold steps, so that none is blamed for another."""

from __future__ import annotations

import pytest

from exsearch.engines.scripted import ScriptedEngine
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Hop, Question
from exsearch.training.action_figures import action_figures

METHOD = SearcherMethod(passages=3)
QUESTION = Question(
    "q",
    "In what year was the university of Beethoven's birthplace founded?",
    ("1818",),
    ("s-0059", "s-0060"),
    (
        Hop("In which city was Ludwig van Beethoven born?",
            "Ludwig van Beethoven was born in Bonn.", "Bonn", "s-0059"),
        Hop("When was the university of #1 founded?", "The university of Bonn was founded in 1818.",
            "1818", "s-0060"),
    ),
)  # fmt: skip
GOLD = {
    "Notes:\nnone": "Search: Where was Beethoven born?",
    "Query: In which city": "[1] He was born in Bonn.",
    "Query: When was": "[1] It was founded in 1818.",
    "2. When was": "Answer: 1818.",
    "1. In which": "Search: When was the university of Bonn founded?",
}


def figures(retriever, **changes):
    engine = ScriptedEngine({**GOLD, **changes})
    return action_figures([QUESTION], engine, retriever, METHOD, most=9)


@pytest.mark.parametrize(
    ("change", "query", "record", "answer"),
    [
        ({}, 1, 1, 1),
        ({"Notes:\nnone": "Search: tigers"}, 1 / 2, 1, 1),
        ({"Notes:\nnone": "Answer: 1818"}, 1 / 2, 1, 1),  # it should have searched
        ({"Query: When was": "[1] It is old."}, 1, 1 / 2, 1),
        ({"Query: When was": "Nothing found."}, 1, 1 / 2, 1),
        ({"Query: When was": "[9] 1818"}, 1, 1 / 2, 1),  # malformed
        ({"2. When was": "Answer: 1819"}, 1, 1, 0),
        ({"2. When was": "Search: more"}, 1, 1, 0),
    ],
)
def test_each_action_by_hand(sample_retriever, change, query, record, answer):
    found = figures(sample_retriever, **change)
    assert found["questions"] == 1
    names = ("query_finds_support", "record_right", "answer_right")
    assert tuple(found[name] for name in names) == (query, record, answer)
    assert found["answer_right_n"] == 1  # the others have two calls


def test_without_a_decomposition_there_is_nothing_to_judge(sample_retriever):
    bare = Question("q", "Who?", ("Bonn",))
    found = action_figures([bare], ScriptedEngine({}), sample_retriever, METHOD, most=9)
    assert (found["questions"], found["record_right"]) == (0, None)
