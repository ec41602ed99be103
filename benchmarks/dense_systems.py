"""Approximate indexes of several libraries behind one shape, for `benchmarks.dense_indexes`.

Each builds from a memory-mapped matrix on one thread, writes its files, opens them mapped into
memory where the library can, and searches one query at a time with an `effort` that buys recall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Search = Callable[[np.ndarray, int, int], np.ndarray]  # query (dimensions,), k, effort -> rows
STEP = 50_000  # rows that are added at once


class Faiss:
    """An index of faiss, by the text of its factory."""

    package = "faiss"
    efforts = (4, 8, 16, 32, 64, 128, 256, 512)

    def __init__(self, name: str, factory: str, parameter: str):
        self.name, self.factory, self.parameter = name, factory, parameter

    def build(self, matrix: np.ndarray, folder: Path) -> None:
        """Write the index of the rows of a matrix."""
        import faiss

        faiss.omp_set_num_threads(1)
        lists = 2 ** round(math.log2(4 * math.sqrt(len(matrix))))
        metric = faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(matrix.shape[1], self.factory.format(lists=lists), metric)
        sample = np.random.default_rng(0).permutation(len(matrix))[: 39 * lists]
        if not index.is_trained:
            index.train(matrix[np.sort(sample)].astype(np.float32))
        for start in range(0, len(matrix), STEP):
            index.add(matrix[start : start + STEP].astype(np.float32))
        faiss.write_index(index, str(folder / "index.faiss"))

    def open(self, folder: Path) -> Search:
        """Open what `build` wrote."""
        import faiss

        faiss.omp_set_num_threads(1)
        flag = faiss.IO_FLAG_MMAP_IFC
        index = faiss.read_index(str(folder / "index.faiss"), flag)
        space = faiss.ParameterSpace()

        def search(query: np.ndarray, k: int, effort: int) -> np.ndarray:
            least = k if self.parameter == "efSearch" else 1
            space.set_index_parameter(index, self.parameter, max(effort, least))
            return index.search(query[None], k)[1][0]

        return search


class Usearch:
    """The graph of usearch, with values of one type."""

    package = "usearch"
    efforts = (32, 64, 128, 256, 512, 1024)

    def __init__(self, dtype: str):
        self.name, self.dtype = f"usearch HNSW {dtype}", dtype

    def build(self, matrix: np.ndarray, folder: Path) -> None:
        """Write the index of the rows of a matrix."""
        from usearch.index import Index

        index = Index(ndim=matrix.shape[1], metric="ip", dtype=self.dtype)
        for start in range(0, len(matrix), STEP):
            rows = matrix[start : start + STEP].astype(np.float32)
            index.add(np.arange(start, start + len(rows)), rows, threads=1)
        index.save(folder / "index.usearch")

    def open(self, folder: Path) -> Search:
        """Open what `build` wrote."""
        from usearch.index import Index

        index: Any = Index.restore(folder / "index.usearch", view=True)

        def search(query: np.ndarray, k: int, effort: int) -> np.ndarray:
            index.expansion_search = max(effort, k)
            return index.search(query, k, threads=1).keys.astype(np.int64)

        return search


class Turbovec:
    """The 4-bit codes of turbovec, all of which are scanned: `effort` changes nothing."""

    package = "turbovec"
    name = "turbovec 4 bit, scan"
    efforts = (1,)

    def build(self, matrix: np.ndarray, folder: Path) -> None:
        """Write the index of the rows of a matrix."""
        from turbovec import TurboQuantIndex

        index = TurboQuantIndex(matrix.shape[1], 4)
        sample = np.random.default_rng(0).permutation(len(matrix))[:1024]
        index.calibrate(matrix[np.sort(sample)].astype(np.float32))
        for start in range(0, len(matrix), STEP):
            index.add(matrix[start : start + STEP].astype(np.float32))
        index.write(str(folder / "index.tv"))

    def open(self, folder: Path) -> Search:
        """Open what `build` wrote."""
        from turbovec import TurboQuantIndex

        index: Any = TurboQuantIndex.load(str(folder / "index.tv"))
        index.prepare()

        def search(query: np.ndarray, k: int, effort: int) -> np.ndarray:
            return np.asarray(index.search(query[None], k)[1])[0].astype(np.int64)

        return search


SYSTEMS: tuple[Any, ...] = (
    Usearch("f16"),
    Usearch("i8"),
    Faiss("faiss HNSW32 f32", "HNSW32,Flat", "efSearch"),
    Faiss("faiss HNSW32 i8", "HNSW32,SQ8", "efSearch"),
    Faiss("faiss IVF f16", "IVF{lists},SQfp16", "nprobe"),
    Faiss("faiss IVF i8", "IVF{lists},SQ8", "nprobe"),
    Faiss("faiss IVF 4 bit", "IVF{lists},PQ192x4fs", "nprobe"),
    Turbovec(),
)
