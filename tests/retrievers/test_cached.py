"""A cache gives what the inner retriever gave, never an error, and stays small."""

from __future__ import annotations

import pytest

from exsearch.errors import RetrieverError
from exsearch.records import Passage
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.cached import CachedRetriever


class Inner:
    def __init__(self):
        self.batches = []
        self.fail = False

    def search(self, queries, k):
        self.batches.append((list(queries), k))
        if self.fail:
            raise RetrieverError("down")
        return [[Passage(f"{query}{n}", "", "", 1.0) for n in range(k)] for query in queries]

    def fetch(self, ids):
        return [Passage(id_, "", "") if id_ != "none" else None for id_ in ids]

    def identity(self):
        return "inner"


def ids(found):
    return [[passage.id for passage in each] for each in found]


def test_only_new_queries_reach_the_inner_one_and_once():
    inner = Inner()
    cached = CachedRetriever(inner)
    assert isinstance(cached, Retriever)
    assert ids(cached.search(["a", "b", "a"], 1)) == [["a0"], ["b0"], ["a0"]]
    assert ids(cached.search(["b", "c"], 1)) == [["b0"], ["c0"]]
    assert cached.search([], 1) == []
    assert inner.batches == [(["a", "b"], 1), (["c"], 1)]
    assert (cached.hits, cached.misses) == (2, 3)


def test_all_else_is_the_inner_ones():
    cached = CachedRetriever(Inner())
    assert cached.fetch(["a", "none"]) == [Passage("a", "", ""), None]
    assert cached.identity() == "inner"
    assert (cached.hits, cached.misses) == (0, 0)


def test_another_k_is_another_search():
    inner = Inner()
    cached = CachedRetriever(inner)
    cached.search(["a"], 1)
    assert ids(cached.search(["a"], 2)) == [["a0", "a1"]]
    assert len(inner.batches) == 2


def test_the_least_lately_used_goes_first():
    inner = Inner()
    cached = CachedRetriever(inner, entries=2)
    for query in ("a", "b", "a", "c", "a", "b"):
        cached.search([query], 1)
    assert [queries for queries, _ in inner.batches] == [["a"], ["b"], ["c"], ["b"]]
    assert ids(cached.search(["x", "y", "z"], 1)) == [["x0"], ["y0"], ["z0"]]


def test_a_caller_cannot_alter_what_is_kept():
    cached = CachedRetriever(Inner())
    cached.search(["a"], 1)[0].clear()
    assert ids(cached.search(["a"], 1)) == [["a0"]]


def test_an_error_is_not_kept():
    inner = Inner()
    cached = CachedRetriever(inner)
    inner.fail = True
    for _ in range(2):
        with pytest.raises(RetrieverError, match="down"):
            cached.search(["a"], 1)
    inner.fail = False
    assert ids(cached.search(["a"], 1)) == [["a0"]]
    assert (cached.hits, cached.misses) == (0, 1)


def test_an_inner_one_that_loses_lists_is_an_error():
    inner = Inner()
    inner.search = lambda queries, k: [[]]
    with pytest.raises(RetrieverError, match="1 lists for 2 queries"):
        CachedRetriever(inner).search(["a", "b"], 1)


def test_entries_must_be_positive():
    with pytest.raises(ValueError, match="entries is 0"):
        CachedRetriever(Inner(), entries=0)


def test_one_text_is_not_taken_for_its_letters():
    inner = Inner()
    cached = CachedRetriever(inner)
    with pytest.raises(TypeError, match="queries is one text"):
        cached.search("Who?", 1)
    with pytest.raises(TypeError, match="ids is one text"):
        cached.fetch("p1")
    assert not inner.batches
