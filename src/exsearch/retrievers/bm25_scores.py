"""A BM25 score is computed once for each word of each passage, from a table of words on disk.

The result is bm25s' own layout, a matrix by columns, but made in bounded memory: bm25s needs some
40 bytes an entry, 40 GB for all of Wikipedia. It does not know passages, only their words.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from exsearch.retrievers.arrays import scratch_array

CHUNK_WORDS = 2_000_000  # worked on at a time; about 50 bytes each


class WordTable:
    """The word numbers of every passage, on disk.

    Args:
        path: The file to write, which whoever makes the table deletes.

    Attributes:
        vocab: The number of each word, from 0.
    """

    def __init__(self, path: Path):
        self.vocab: dict[str, int] = {}
        self._path = path
        self._file = path.open("wb")
        self._ends = array("q", [0])

    def __enter__(self) -> WordTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, words: list[str]) -> None:
        """Add the words of the next passage."""
        vocab = self.vocab
        numbers = array("i", [vocab.setdefault(word, len(vocab)) for word in words])
        numbers.tofile(self._file)
        self._ends.append(self._ends[-1] + len(numbers))

    def lengths(self) -> np.ndarray:
        """The number of words of each passage, int64 (passages,)."""
        return np.diff(np.frombuffer(self._ends, dtype=np.int64))

    def counts(self, bar: tqdm[Any]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Count the words of each passage, chunk by chunk.

        Args:
            bar: A progress bar, which is moved on by passages.

        Yields:
            Word numbers, passage numbers, and how often the word occurs in the passage: three
            arrays of equal length, sorted by word, then by passage.
        """
        self._file.flush()
        table = np.memmap(self._path, dtype=np.int32, mode="r")
        ends = np.frombuffer(self._ends, dtype=np.int64)
        start = 0
        while start < len(self):
            limit = int(ends[start]) + CHUNK_WORDS
            stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")) - 1)
            rows = np.repeat(np.arange(stop - start), np.diff(ends[start : stop + 1]))
            keys = table[ends[start] : ends[stop]].astype(np.int64) * (stop - start) + rows
            keys, counts = np.unique(keys, return_counts=True)
            words, rows = np.divmod(keys, stop - start)
            yield words, rows + start, counts
            bar.update(stop - start)
            start = stop


def compute_scores(
    table: WordTable, k1: float, b: float, folder: Path, *, disable_progress: bool | None
) -> dict[str, Any]:
    """The `scores` of a `bm25s.BM25`, Lucene's variant.

    score(word, passage) = idf tf / (tf + k1 (1 - b + b length / mean length)) with
    idf = log(1 + (N - df + 0.5) / (df + 0.5)) for N passages, df of which hold the word, tf times
    in this one; Kamphuis et al. 2020, "BM25, accurate Lucene". Lengths are in words.

    Args:
        table: The words of all passages.
        k1: How slowly further occurrences of a word add less.
        b: How much longer passages are marked down, from 0 to 1.
        folder: A folder for the large arrays, which are files there.
        disable_progress: True hides the progress bar, None shows it on a terminal only.

    Returns:
        `data` (postings,) the scores, `indices` (postings,) their passages, `indptr` (words + 1,)
        where the postings of each word begin, and `num_docs`.
    """
    with tqdm(total=2 * len(table), desc="score", unit=" rows", disable=disable_progress) as bar:
        frequencies = np.zeros(len(table.vocab), dtype=np.int64)  # passages that hold each word
        for words, _, _ in table.counts(bar):
            frequencies += np.bincount(words, minlength=len(frequencies))
        idf = np.log1p((len(table) - frequencies + 0.5) / (frequencies + 0.5))
        lengths = table.lengths()
        norms = k1 * (1 - b + b * lengths / lengths.mean())
        starts = np.concatenate([[0], np.cumsum(frequencies)])
        data = scratch_array(folder / "data", np.float32, int(starts[-1]))
        indices = scratch_array(folder / "indices", np.int32, int(starts[-1]))
        heads = starts[:-1].copy()  # where the next entry of each word goes
        for words, rows, counts in table.counts(bar):
            firsts = np.flatnonzero(np.diff(words, prepend=-1))
            sizes = np.diff(firsts, append=len(words))
            places = heads[words] + np.arange(len(words)) - np.repeat(firsts, sizes)
            data[places] = idf[words] * counts / (counts + norms[rows])
            indices[places] = rows
            heads[words[firsts]] += sizes
    return {"data": data, "indices": indices, "indptr": starts, "num_docs": len(table)}
