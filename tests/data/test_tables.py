"""Rows of Parquet files are read as JSON would have them, and strictly."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.data.tables import read_parquet
from exsearch.errors import DataError, MissingExtraError
from exsearch.records import Hop, Passage, Question


def write(path: Path, columns: dict, **options) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_a_corpus_in_row_groups(tmp_path: Path):
    columns = {
        "id": list(range(1000)),
        "title": pyarrow.array(["One", None] * 500).dictionary_encode(),
        "contents": [f"Text {number}." for number in range(1000)],
        "vector": [[0.5] * 4] * 1000,
    }
    path = write(tmp_path / "c.parquet", columns, row_group_size=100)
    passages = list(read_corpus(path))
    assert len(passages) == 1000
    assert passages[:2] == [Passage("0", "One", "Text 0."), Passage("1", "", "Text 1.")]
    assert passages[-1] == Passage("999", "", "Text 999.")


def test_questions_with_lists_and_nested_values(tmp_path: Path):
    hop = {"question": "Q", "answer": "X", "answer_short": None, "support_id": "p1"}
    columns = {
        "id": pyarrow.array(["a", "b", "c"], pyarrow.large_string()),
        "question": ["Who?", "When?", "Where?"],
        "golden_answers": [["X", "Y"], [], None],
        "supporting": [["p1"], None, []],
        "decomposition": [[hop], None, []],
    }
    assert load_questions(write(tmp_path / "q.parquet", columns)) == [
        Question("a", "Who?", ("X", "Y"), ("p1",), (Hop("Q", "X", None, "p1"),)),
        Question("b", "When?"),
        Question("c", "Where?"),
    ]


def test_answers_as_texts_and_ids_from_rows(tmp_path: Path):
    columns = {"question": ["Who?", "When?"], "answers": ["['X', 'Y']", "May"]}
    found = load_questions(write(tmp_path / "q.parquet", columns))
    assert [(q.id, q.answers) for q in found] == [("q-1", ("X", "Y")), ("q-2", ("May",))]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["x", "y"]}, 'c.parquet:1: field "id" is missing'),
        ({"id": ["1", None], "text": ["x", "y"]}, 'c.parquet:2: field "id" is null'),
        (
            {"id": ["1", "2"], "text": [b"x", b"y"]},
            'c.parquet:1: field "text" is of the type bytes',
        ),
        ({"id": ["1", "2"], "text": [["x"], []]}, 'c.parquet:1: field "text" is a list'),
        ({"id": ["1", "2"], "text": [{"a": 1}, None]}, 'c.parquet:1: field "text" is an object'),
        ({"id": [1.0, 2.0], "text": ["x", "y"]}, 'c.parquet:1: field "id" is a number, expected'),
        ({"id": ["1", "1"], "text": ["x", "y"]}, 'c.parquet:2: the id "1" came before'),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, columns, said: str):
    with pytest.raises(DataError, match=said):
        list(read_corpus(write(tmp_path / "c.parquet", columns)))


def test_a_row_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("exsearch.data.tables.MAX_LINE", 1000)
    path = write(
        tmp_path / "c.parquet", {"id": [1, 2, 3], "text": ["x" * 900, "x" * 99, "x" * 2000]}
    )
    rows = read_parquet(path, "corpus")
    assert [next(rows)[0], next(rows)[0]] == [1, 2]
    with pytest.raises(DataError, match=r"c\.parquet:3: a row of more than"):
        next(rows)


@pytest.mark.parametrize("damage", ["cut", "altered", "other"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str):
    path = write(tmp_path / "c.parquet", {"id": list(range(99)), "text": ["x" * 99] * 99})
    data = path.read_bytes()
    changed = {"cut": data[:-9], "altered": data[:40] + b"\xff" * 60 + data[100:], "other": b"x"}
    path.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"c\.parquet: no Parquet file, or damaged after row 0"):
        list(read_corpus(path))


def test_without_the_extra(tmp_path: Path, monkeypatch):
    path = write(tmp_path / "c.parquet", {"id": [1], "text": ["x"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"a Parquet file .*exsearch\[files\]"):
        list(read_corpus(path))
