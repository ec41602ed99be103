"""The exact search equals brute force, row for row, ties included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exsearch.retrievers import vectors as module
from exsearch.retrievers.vectors import Vectors


def write(folder: Path, matrix: np.ndarray) -> Vectors:
    (folder / "v").write_bytes(matrix.tobytes())
    longest = float(np.linalg.norm(matrix.astype(np.float64), axis=1).max(initial=0))
    return Vectors(folder / "v", *matrix.shape, matrix.dtype.name, longest)


def brute_force(matrix: np.ndarray, query: np.ndarray, k: int):
    """Every score, one row at a time, then a stable sort."""
    wide = query.astype(np.float64)
    scores = np.array([(row.astype(np.float64) * wide).sum() for row in matrix])
    best = np.argsort(-scores, kind="stable")[:k]
    return best, scores[best]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("scale", [1, 30])
def test_it_equals_brute_force_with_ties(tmp_path: Path, monkeypatch, dtype: str, scale: int):
    monkeypatch.setattr(module, "_BLOCK", 64)
    monkeypatch.setattr(module, "_SCORES", 3000)
    random = np.random.default_rng(0)
    matrix = random.standard_normal((1000, 48)) * scale
    matrix[200:700] = matrix[random.integers(200, size=500)]  # of rows that are the same
    matrix[700:800] = matrix[:100] * (1 + 1e-7)  # closer than float32 can tell
    matrix = matrix.astype(dtype)
    vectors = write(tmp_path, matrix)
    queries = random.standard_normal((7, 48)).astype(np.float32)
    for k in (1, 20, 333, 1000, 5000):
        batch = vectors.nearest(queries, k)
        assert len(batch) == len(queries)
        for query, (rows, scores) in zip(queries, batch, strict=True):
            expected = brute_force(matrix, query, k)
            np.testing.assert_array_equal(rows, expected[0])
            np.testing.assert_array_equal(scores, expected[1])
            alone = vectors.nearest(query[None], k)[0]
            np.testing.assert_array_equal(rows, alone[0])
            np.testing.assert_array_equal(scores, alone[1])
    assert vectors.nearest(queries[:0], 5) == []


def test_equal_rows_come_in_their_order_wherever_they_stand(tmp_path: Path):
    row = np.random.default_rng(1).standard_normal(384).astype(np.float32)
    vectors = write(tmp_path, np.tile(row, (1001, 1)))
    (found,) = vectors.nearest(row[None], 50)
    np.testing.assert_array_equal(found[0], np.arange(50))
    assert len(set(found[1])) == 1


def test_a_file_of_another_size_is_refused(tmp_path: Path):
    write(tmp_path, np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match="v is not 5 x 3 values of float32"):
        Vectors(tmp_path / "v", 5, 3, "float32", 1.0)


def test_what_is_no_number_is_an_error_and_never_an_empty_list(tmp_path: Path):
    matrix = np.random.default_rng(2).standard_normal((50, 8)).astype(np.float32)
    for value in (np.nan, np.inf):
        matrix[7, 3] = value
        (tmp_path / "v").write_bytes(matrix.tobytes())
        vectors = Vectors(tmp_path / "v", 50, 8, "float32", 3.0)
        for k in (1, 50):
            with pytest.raises(ValueError, match="no finite number"):
                vectors.nearest(matrix[:1], k)
