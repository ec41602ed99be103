"""Postings give the best passages of a query, and cost what the words of the query cost."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from exsearch.retrievers import postings as module
from exsearch.retrievers.arrays import hash_text
from exsearch.retrievers.postings import HASHES, NUMBERS, SCORES, STARTS, TOPS, Postings

VOCAB = ["ant", "bee", "cat", "dog", "elk", "fox"]


def save(folder, matrix):
    """Postings of a dense matrix; (words, passages)."""
    matrix = matrix[np.argsort([hash_text(word) for word in VOCAB[: len(matrix)]])]
    words, passages = np.nonzero(matrix)
    hashes = np.sort(np.array([hash_text(w) for w in VOCAB[: len(matrix)]], dtype=np.uint64))
    for name, values in (
        (HASHES, hashes),
        (TOPS, matrix.max(axis=1).astype(np.float32)),
        (STARTS, np.searchsorted(words, np.arange(len(matrix) + 1))),
        (NUMBERS, passages.astype(np.int32)),
        (SCORES, matrix[words, passages].astype(np.float32)),
    ):
        np.save(folder / name, values)
    return Postings(folder)


@pytest.mark.parametrize("at_once", [0, 60, 4096])
@pytest.mark.parametrize("seed", range(20))
def test_the_best_are_those_of_a_dense_sum(tmp_path, monkeypatch, seed, at_once):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    held = rng.random((6, 500)) < 1 / np.array([2, 3, 10, 40, 100, 200])[:, None]
    highest = [2, 2, 3, 4, 8, 8] if seed % 2 else [4] * 6  # frequent words score less, or not
    matrix = held * rng.integers(1, np.array(highest)[:, None] + 1, (6, 500))  # many equal sums
    postings = save(tmp_path, matrix)
    for size in (1, 3, 7):
        query = rng.choice([*VOCAB, "emu"], size).tolist()
        sums = sum((matrix[VOCAB.index(w)] for w in query if w in VOCAB), np.zeros(500))
        order = sorted(np.flatnonzero(sums), key=lambda number: (-sums[number], number))
        for k in (1, 3, 50, 999):
            numbers, scores = postings.best(query, k)
            assert numbers.tolist() == order[:k]
            assert scores.tolist() == [sums[number] for number in order[:k]]


def test_frequent_words_are_only_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 0)
    matrix = np.zeros((2, 10_000))
    matrix[0, :] = 1
    matrix[1, ::1000] = np.arange(10) + 5
    postings = save(tmp_path, matrix)
    added = []
    monkeypatch.setattr(module, "_add_up", lambda p, f=module._add_up: added.append(p) or f(p))
    numbers, scores = postings.best(["ant", "bee"], 3)
    assert numbers.tolist() == [9000, 8000, 7000]
    assert scores.tolist() == [15, 14, 13]
    assert [[len(numbers) for numbers, _ in parts] for parts in added] == [[0, 10]]


@pytest.mark.parametrize("query", [[], ["emu"], ["dog"]])
def test_nothing_holds_these_words(tmp_path, query):
    numbers, scores = save(tmp_path, np.array([[1, 0], [1, 1], [0, 1], [0, 0]])).best(query, 5)
    assert len(numbers) == len(scores) == 0


def test_a_search_does_not_grow_with_the_number_of_passages(tmp_path):
    matrix = np.zeros((2, 1_000_000))
    matrix[:, [0, 999_999]] = 1
    postings = save(tmp_path, matrix)
    postings.best(["ant"], 5)
    tracemalloc.start()
    numbers, _ = postings.best(["ant", "bee"], 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers.tolist() == [0, 999_999]
    assert peak < 100_000


@pytest.mark.parametrize("name", [HASHES, TOPS, STARTS, NUMBERS, SCORES])
def test_files_that_do_not_belong_together_are_refused(tmp_path, name):
    save(tmp_path, np.eye(4))
    np.save(tmp_path / name, np.load(tmp_path / name)[:-1])
    with pytest.raises(ValueError, match="do not belong together"):
        Postings(tmp_path)
