"""Postings give the best passages of a query, and cost what the words of the query cost."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from exsearch.retrievers.postings import Postings, save_postings

VOCAB = {"ant": 0, "bee": 1, "cat": 2, "dog": 3}


def save(folder, matrix, num_docs=None):
    """Postings of a dense matrix; (words, passages)."""
    words, passages = np.nonzero(matrix)
    scores = {
        "data": matrix[words, passages].astype(np.float32),
        "indices": passages.astype(np.int32),
        "indptr": np.searchsorted(words, np.arange(len(matrix) + 1)),
        "num_docs": num_docs or matrix.shape[1],
    }
    save_postings(folder, VOCAB, scores, 1.2, 0.75)
    return Postings(folder)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_are_those_of_a_dense_sum(tmp_path, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 4, (4, 50)) * rng.integers(0, 2, (4, 50))  # many equal sums
    postings = save(tmp_path, matrix)
    query = rng.choice([*VOCAB, "emu"], 6).tolist()
    sums = sum(matrix[VOCAB[word]] for word in query if word in VOCAB)
    order = sorted(np.flatnonzero(sums), key=lambda number: (-sums[number], number))
    for k in (1, 3, 50, 99):
        numbers, scores = postings.best(query, k)
        assert numbers.tolist() == order[:k]
        assert scores.tolist() == [sums[number] for number in order[:k]]


@pytest.mark.parametrize("query", [[], ["emu"], ["dog"]])
def test_nothing_holds_these_words(tmp_path, query):
    numbers, scores = save(tmp_path, np.array([[1, 0], [1, 1], [0, 1], [0, 0]])).best(query, 5)
    assert len(numbers) == len(scores) == 0


def test_a_search_does_not_grow_with_the_number_of_passages(tmp_path):
    postings = save(tmp_path, np.eye(4), num_docs=10_000_000)
    postings.best(["ant"], 5)
    tracemalloc.start()
    numbers, _ = postings.best(["ant", "cat"], 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers.tolist() == [0, 2]
    assert peak < 100_000


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    save(tmp_path, np.eye(4))
    vocab = tmp_path / "vocab.index.json"
    vocab.write_text(json.dumps({"ant": 0}))
    with pytest.raises(ValueError, match="do not belong together"):
        Postings(tmp_path)
    vocab.write_text(json.dumps(VOCAB))
    np.save(tmp_path / "data.csc.index.npy", np.ones(3, np.float32))
    with pytest.raises(ValueError, match="do not belong together"):
        Postings(tmp_path)
