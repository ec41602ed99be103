"""The audit says what a corpus holds, the same as looking into each passage for each question."""

from __future__ import annotations

import pytest

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.errors import RetrieverError
from exsearch.evaluation.audit import answers_held, audit
from exsearch.evaluation.metrics import recall_by_answer
from exsearch.records import Passage, Question
from exsearch.retrievers import open_retriever
from exsearch.retrievers.bm25 import build_bm25
from exsearch.retrievers.guarded import guarded

PASSAGES = [
    Passage("b", "Beethoven", "Ludwig van Beethoven was born in Bonn."),
    Passage("r", "Rhine", "The Rhine passes through Bonn and Cologne."),
    Passage("x", "", "Nothing of the kind."),
]
QUESTIONS = [
    Question("found", "Where was Beethoven born?", ("Bonn",), ("b",)),
    Question("hidden", "Where was Goethe buried?", ("Cologne",), ("b", "gone")),
    Question("nowhere", "Where was Kant born?", ("Königsberg",)),
    Question("yes", "Is Bonn on the Rhine?", ("yes",), ("r",)),
]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "index"
    build_bm25(PASSAGES, folder, progress=False)
    return guarded(open_retriever(folder))


def test_an_audit_by_hand(retriever):
    found = audit(QUESTIONS, retriever)
    assert list(found) == ["yes/no", "neither"]
    neither, closed = found["neither"], found["yes/no"]
    assert (neither["n"], neither["in_corpus"]) == (3, 2 / 3)
    assert neither["in_first_search"] == 1 / 3  # "hidden" and "nowhere" find Beethoven's birth
    assert (neither["support_missing"], neither["support_missing_n"]) == (1 / 2, 2)
    assert (closed["n"], closed["in_corpus"], closed["in_first_search"]) == (1, None, None)
    assert closed["support_missing"] == 0


def test_what_can_not_be_read_through_is_not_known(retriever, monkeypatch):
    monkeypatch.setattr("exsearch.evaluation.audit.MOST_PASSAGES", 2)
    assert audit(QUESTIONS, retriever)["neither"]["in_corpus"] is None

    class Elsewhere:
        def search(self, queries, k):
            if "Where was Kant born?" in queries:
                raise RetrieverError("down")
            return retriever.search(queries, k)

        def fetch(self, ids):
            raise RetrieverError("gives no passages by id")

    found = audit(QUESTIONS, Elsewhere())["neither"]  # pyright: ignore[reportArgumentType]
    assert (found["n"], found["in_corpus"], found["support_missing"]) == (3, None, None)
    assert (found["in_first_search"], found["in_first_search_n"]) == (1 / 2, 2)


def test_reading_through_once_is_the_same_as_for_each_question(sample_questions):
    passages = list(read_corpus([sample_path("corpus")]))
    made_up = [Question("none", "?", ("no such words", "")), Question("the", "?", ("The",))]
    questions = [*sample_questions, *made_up]
    expected = {q.id for q in questions if recall_by_answer(passages, q.answers) == 1}
    assert answers_held(questions, iter(passages)) == expected
    assert 0 < len(expected) < len(questions)
