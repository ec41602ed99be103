"""Vectors are the rows of a matrix in a file, memory-mapped; the nearest rows are found exactly.

A score is a dot product in float64, taken row by row, so that it is the same however many rows and
queries are looked at together. It does not know what a row stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_BLOCK = 16_384  # rows that are multiplied at once
_NO_NUMBER = "the vectors hold what is no finite number"
_SCORES = 16 << 20  # float32 scores that are held at once, 64 MB


class Vectors:
    """A matrix on disk, open for searching. Threads may share it.

    Args:
        file: The rows, one after the other, little-endian.
        rows: The number of rows.
        dimensions: The number of values of a row.
        dtype: Their type, `float32` or `float16`.
        longest: The length of the longest row, for the error of a float32 product.

    Raises:
        OSError, ValueError: the file is missing or of another size.
    """

    def __init__(self, file: Path, rows: int, dimensions: int, dtype: str, longest: float):
        kind = np.dtype(dtype).newbyteorder("<")
        if file.stat().st_size != rows * dimensions * kind.itemsize:
            raise ValueError(f"{file.name} is not {rows} x {dimensions} values of {dtype}")
        self.matrix = np.asarray(np.memmap(file, kind, "r", shape=(rows, dimensions)))
        self._longest = longest

    def __len__(self) -> int:
        return len(self.matrix)

    def nearest(self, queries: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The k best rows for each query, highest score first, then lowest row.

        Args:
            queries: float32 (queries, dimensions).
            k: The most rows a query.

        Returns:
            The rows and their scores, for each query: two arrays of at most k.

        Raises:
            ValueError: a score is no finite number, because the file is damaged.
        """
        found = []
        for some, scores in self._products(queries):
            for query, row in zip(some, scores, strict=True):
                found.append(self.rank(query, self._candidates(query, row, k), k))
        return found

    def rank(self, query: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of some rows, as `nearest` gives them.

        Args:
            query: float32 (dimensions,).
            rows: The rows to score, each once.
            k: The most rows.
        """
        wide = query.astype(np.float64)
        scores = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            # Not BLAS, which may round equal rows differently.
            scores[part] = (self.matrix[rows[part]].astype(np.float64) * wide).sum(axis=1)
        if not np.isfinite(scores).all():
            raise ValueError(_NO_NUMBER)
        best = np.lexsort((rows, -scores))[:k]
        return rows[best], scores[best]

    def _candidates(self, query: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
        """The rows that may be among the best k, whatever the rounding of their float32 scores."""
        if k >= len(scores):
            return np.arange(len(scores))
        if not np.isfinite(scores).all():
            raise ValueError(_NO_NUMBER)
        floor = np.partition(scores, len(scores) - k)[len(scores) - k]
        # The error of a float32 product of d values: at most d 2^-24 |a| |b|; of two, the double.
        unit = np.finfo(np.float32).eps / 2
        error = len(query) * unit * np.linalg.norm(query) * self._longest
        return np.flatnonzero(scores >= floor - 2 * error)

    def _products(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Some queries at a time with their float32 products with all rows: (queries, rows)."""
        step = max(1, _SCORES // max(1, len(self)))
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            scores = np.empty((len(some), len(self)), np.float32)
            for row in range(0, len(self), _BLOCK):
                block = self.matrix[row : row + _BLOCK].astype(np.float32, copy=False)
                scores[:, row : row + len(block)] = some @ block.T
            yield some, scores
