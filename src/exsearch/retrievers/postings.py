"""Postings say which passages hold a word, and what each scores for it; a search adds them up.

They are memory-mapped arrays, in the layout that bm25s saves and loads. A search costs what the
words of its query cost, however many passages there are. It does not know where scores come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from exsearch.json_files import parse_json
from exsearch.retrievers.arrays import write_array

_ARRAYS = {
    "data": "data.csc.index.npy",
    "indices": "indices.csc.index.npy",
    "indptr": "indptr.csc.index.npy",
}


def save_postings(
    folder: Path, vocab: dict[str, int], scores: Mapping[str, Any], k1: float, b: float
) -> None:
    """Write scores in the files of `bm25s.BM25`, so that bm25s can read them, too.

    Args:
        folder: The folder to write.
        vocab: The number of each word.
        scores: The `scores` of a `bm25s.BM25`, as `compute_scores` makes them.
        k1: The parameter k1 that the scores were made with.
        b: The parameter b that the scores were made with.
    """
    index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy", csc_backend="numpy")
    none = np.empty(0, np.int32)  # bm25s writes the small files; its own arrays would go unchecked
    index.scores = {**scores, "data": none, "indices": none, "indptr": none}
    index.vocab_dict, index.nonoccurrence_array = vocab, None
    index.save(folder, show_progress=False)
    for name, file in _ARRAYS.items():
        write_array(folder / file, scores[name])
    Postings(folder)  # what can't be opened never gets a manifest


class Postings:
    """The postings in a folder, open for searching. Threads may share them.

    Args:
        folder: The folder that `save_postings` wrote.

    Attributes:
        passages: The number of passages that were indexed.

    Raises:
        OSError, ValueError, KeyError: a file is missing or not what it should be.
    """

    def __init__(self, folder: Path):
        # The postings of word w are those from starts[w] up to starts[w + 1], by passage number.
        self._scores = _map(folder / _ARRAYS["data"])  # (postings,)
        self._passages = _map(folder / _ARRAYS["indices"])  # (postings,)
        self._starts = _map(folder / _ARRAYS["indptr"])  # (words + 1,)
        self._vocab = parse_json((folder / "vocab.index.json").read_bytes())
        self.passages: int = parse_json((folder / "params.index.json").read_bytes())["num_docs"]
        sizes = {len(self._scores), len(self._passages), int(self._starts[-1])}
        if len(sizes) != 1 or len(self._starts) != len(self._vocab) + 1:
            raise ValueError(f"the files of {folder} do not belong together")

    def best(self, words: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best passages that hold one of the words, highest score first, then lowest number.

        Args:
            words: The words of a query; one that comes twice counts twice.
            k: The most passages.

        Returns:
            The numbers and the scores of the passages: two arrays of equal length, at most k.
        """
        times = Counter(self._vocab[word] for word in words if word in self._vocab)
        if not times:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        found, parts = [], []
        for word, count in times.items():
            span = slice(self._starts[word], self._starts[word + 1])
            found.append(self._passages[span])
            parts.append(self._scores[span] * np.float32(count))
        numbers, scores = np.concatenate(found), np.concatenate(parts)
        order = np.argsort(numbers, kind="stable")  # merges runs, quicker than it looks
        numbers = numbers[order]
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))  # the first posting of each passage
        return _highest(numbers[firsts], np.add.reduceat(scores[order], firsts), k)


def _map(file: Path) -> np.ndarray:
    """The array in a file; a plain one, since slices of a `np.memmap` are slow to make."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _highest(numbers: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores, and their numbers, which come in ascending order."""
    if k < len(scores):
        floor = np.partition(scores, len(scores) - k)[len(scores) - k]
        numbers, scores = numbers[scores >= floor], scores[scores >= floor]
    order = np.argsort(-scores, kind="stable")[:k]
    return numbers[order], scores[order]
