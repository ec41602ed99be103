"""An inverted file names the rows that are worth scoring, without looking at all of them.

The rows stand in lists by the nearest of some thousand centres, at 8 bits a value, and a search
scans the lists whose centres are nearest to the query: faiss's `IVF,SQ8`. What is named is scored
anew from the vectors themselves, so a wrong order can't come out, only a row be missed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from exsearch.errors import MissingExtraError
from exsearch.progress import Bars
from exsearch.retrievers.native import native
from exsearch.retrievers.vectors import Vectors
from exsearch.runs import written

INVERTED_FILE = "vectors.faiss"
GOAL = 0.99  # of the exact first 20, on passages as queries; questions lie further off
DEPTH = 20

_SAMPLE = 256  # vectors that the recall is measured on
_STEP = 50_000  # rows that are added at once
_ROWS_A_LIST = 39  # that faiss wants to place a centre by


def build_inverted(vectors: Vectors, folder: Path, bars: Bars, effort: int = 0) -> dict[str, Any]:
    """Write the inverted file of vectors into an index folder, and give the facts to open it.

    In memory are 8 bits for each value of all vectors. The same vectors give the same file.

    Args:
        vectors: The vectors, of which a sample places the centres.
        folder: The index folder.
        bars: Opens the progress bar.
        effort: The number of lists that a search scans; 0 takes the least power of 2 that finds
            99 % of the exact first 20 of a sample of the vectors.

    Returns:
        `effort`, and `recall_at_20`: the share of the exact first 20 that is found for the sample.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    faiss = _faiss()
    count, dimensions = vectors.matrix.shape
    lists = 2 ** round(math.log2(4 * math.sqrt(count)))
    lists = max(1, min(lists, count // _ROWS_A_LIST))
    index = faiss.index_factory(dimensions, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    with bars.open("index", count, "passage") as bar:
        index.train(_spread(vectors, _ROWS_A_LIST * max(lists, 64)))
        for start in range(0, count, _STEP):
            rows = vectors.matrix[start : start + _STEP].astype(np.float32)
            index.add(rows)
            bar.update(len(rows))
    with written(folder / INVERTED_FILE) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    queries = _spread(vectors, _SAMPLE)
    true = [rows for rows, _ in vectors.nearest(queries, DEPTH)]
    facts: dict[str, Any] = {"effort": effort or 1}
    while True:
        inverted = InvertedFile(folder, vectors, facts["effort"])
        found = [rows for rows, _ in inverted.nearest(queries, DEPTH)]
        shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(true, found, strict=True)]
        facts["recall_at_20"] = float(np.mean(shared))
        if effort or facts["recall_at_20"] >= GOAL or facts["effort"] >= lists:
            return facts
        facts["effort"] *= 2


class InvertedFile:
    """An inverted file on disk, open for searching. Threads may share it.

    Args:
        folder: The index folder.
        vectors: The vectors that it was built from.
        effort: The number of lists that a search scans.

    Raises:
        OSError, ValueError, RuntimeError: the file is missing or does not fit the vectors.
        MissingExtraError: faiss is not installed.
    """

    def __init__(self, folder: Path, vectors: Vectors, effort: int):
        faiss = _faiss()
        file = folder / INVERTED_FILE
        index: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        fits = isinstance(index, faiss.IndexIVFScalarQuantizer) and index.ntotal == len(vectors)
        if not fits or index.d != vectors.matrix.shape[1] or not effort >= 1:
            raise ValueError(f"{file.name} is not of these vectors")
        self._index = index
        self._vectors = vectors
        self._settings = faiss.SearchParametersIVF(nprobe=effort)

    def nearest(self, queries: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The best k rows among those that are named, as `Vectors.nearest` gives them.

        A query for which too few are named is compared with all rows.

        Args:
            queries: float32 (queries, dimensions).
            k: The most rows a query, no more than there are.
        """
        wanted = min(2 * k + 40, len(self._vectors))  # codes of 8 bits mix up near neighbours
        if not len(queries):
            return []
        if 2 * wanted > len(self._vectors):
            return self._vectors.nearest(queries, k)
        with native():
            _, named = self._index.search(queries, wanted, params=self._settings)
        found = []
        for query, rows in zip(queries, named, strict=True):
            rows = rows[(rows >= 0) & (rows < len(self._vectors))]
            if len(rows) < k:
                found += self._vectors.nearest(query[None], k)
            else:
                found.append(self._vectors.rank(query, np.unique(rows), k))
        return found


def _spread(vectors: Vectors, count: int) -> np.ndarray:
    """At most so many vectors from all over the matrix, in float32."""
    rows = np.linspace(0, len(vectors) - 1, min(count, len(vectors))).astype(np.int64)
    return vectors.matrix[rows].astype(np.float32)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("an approximate index", "dense", str(error)) from None
    return faiss
