"""An inverted file finds nearly all of the nearest, scores them exactly, and says how many."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")

from exsearch.errors import MissingExtraError
from exsearch.progress import Bars
from exsearch.retrievers.inverted import GOAL, INVERTED_FILE, InvertedFile, build_inverted
from exsearch.retrievers.vectors import Vectors

COUNT, DIMENSIONS = 8000, 32


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    random = np.random.default_rng(0)
    centres = random.standard_normal((200, DIMENSIONS))
    rows = centres[random.integers(200, size=COUNT)]
    rows = rows + random.standard_normal((COUNT, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, matrix: np.ndarray) -> Vectors:
    (folder / "vectors").write_bytes(matrix.tobytes())
    return Vectors(folder / "vectors", *matrix.shape, "float32", 1.001)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, matrix: np.ndarray):
    folder = tmp_path_factory.mktemp("inverted")
    vectors = write(folder, matrix)
    return folder, vectors, build_inverted(vectors, folder, Bars(False))


def test_what_it_states_is_what_it_finds(built, matrix: np.ndarray):
    folder, vectors, facts = built
    assert facts["recall_at_20"] >= GOAL
    assert 1 < facts["effort"] < 128  # neither one list nor all: it was sought
    sample = matrix[:: COUNT // 400]
    inverted = InvertedFile(folder, vectors, facts["effort"])
    shared = 0.0
    for (rows, scores), (true, true_scores) in zip(
        inverted.nearest(sample, 20), vectors.nearest(sample, 20), strict=True
    ):
        known = dict(zip(true, true_scores, strict=True))
        shared += len(known.keys() & set(rows)) / 20 / len(sample)
        assert all(known.get(row, score) == score for row, score in zip(rows, scores, strict=True))
        assert list(scores) == sorted(scores, reverse=True)
    assert shared == pytest.approx(facts["recall_at_20"], abs=0.01)
    low = [set(rows) for rows, _ in InvertedFile(folder, vectors, 1).nearest(sample, 20)]
    assert low != [set(rows) for rows, _ in vectors.nearest(sample, 20)]


def test_there_are_never_fewer_than_k(built, matrix: np.ndarray):
    folder, vectors, _ = built
    inverted = InvertedFile(folder, vectors, 1)
    for k in (1, 300, 1900, COUNT):
        (found,) = inverted.nearest(matrix[:1], k)
        assert len(set(found[0])) == k
    assert inverted.nearest(matrix[:0], 3) == []


def test_the_same_vectors_give_the_same_bytes(built, matrix: np.ndarray, tmp_path: Path):
    folder, _, facts = built
    assert build_inverted(write(tmp_path, matrix), tmp_path, Bars(False)) == facts
    assert (tmp_path / INVERTED_FILE).read_bytes() == (folder / INVERTED_FILE).read_bytes()


def test_the_effort_can_be_given(built, matrix: np.ndarray, tmp_path: Path):
    facts = build_inverted(write(tmp_path, matrix), tmp_path, Bars(False), effort=1)
    assert facts["effort"] == 1
    assert facts["recall_at_20"] < built[2]["recall_at_20"]


def test_threads_find_what_one_finds(built, matrix: np.ndarray):
    folder, vectors, facts = built
    inverted = InvertedFile(folder, vectors, facts["effort"])
    expected = [rows.tolist() for rows, _ in inverted.nearest(matrix[:50], 10)]
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda _: inverted.nearest(matrix[:50], 10), range(16))
        assert all([rows.tolist() for rows, _ in each] == expected for each in found)


def test_a_file_of_other_vectors_is_refused(built, matrix: np.ndarray, tmp_path: Path):
    folder, vectors, _ = built
    (tmp_path / INVERTED_FILE).write_bytes((folder / INVERTED_FILE).read_bytes())
    with pytest.raises(ValueError, match=r"vectors\.faiss is not of these vectors"):
        InvertedFile(tmp_path, write(tmp_path, matrix[1:]), 1)
    with pytest.raises(ValueError, match="is not of these vectors"):
        InvertedFile(folder, vectors, 0)
    data = (folder / INVERTED_FILE).read_bytes()
    (tmp_path / INVERTED_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises((RuntimeError, ValueError)):
        InvertedFile(tmp_path, vectors, 1)


def test_the_missing_extra_is_named(built, monkeypatch):
    folder, vectors, _ = built
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"exsearch\[dense\]"):
        InvertedFile(folder, vectors, 1)


def test_the_benchmark_s_small_run_works():
    command = [sys.executable, "-m", "benchmarks.dense_indexes", "--small", "--json"]
    done = subprocess.run([*command, "--only", "IVF i8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    systems = json.loads(done.stdout.splitlines()[-1])["systems"]
    assert systems["faiss IVF i8"]["rescored"]["recall"] >= 0.97
