"""Queries are read from whatever has one a line; a fault names its line."""

from __future__ import annotations

import gzip
import io
import json
import sys
import types
from pathlib import Path

import pytest

from exsearch.data import sample_path
from exsearch.data.queries import STDIN, load_queries
from exsearch.data.questions import load_questions
from exsearch.errors import DataError


def write(folder: Path, text: str | bytes, name: str = "queries.txt") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_text_a_line(tmp_path):
    text = "\ufeffWho was it?\r\n\n  blanks \t\r\n蜜蜂\n[brackets] {braces}"
    expected = {"1": "Who was it?", "3": "blanks", "4": "蜜蜂", "5": "[brackets] {braces}"}
    assert load_queries(write(tmp_path, text)) == expected
    assert load_queries(write(tmp_path, text), 2) == {"1": "Who was it?", "3": "blanks"}
    zipped = write(tmp_path, gzip.compress(text.encode()), "q.txt.gz")
    assert load_queries(zipped) == expected


def test_json_lines_with_and_without_ids(tmp_path):
    lines = [
        {"id": "a", "query": "first", "question": "other"},
        {"_id": 7, "question": "second"},
        {"query": "third \ud800"},
    ]
    file = write(tmp_path, "\n".join(map(json.dumps, lines)))
    assert load_queries(file) == {"a": "first", "7": "second", "3": "third \ufffd"}


def test_question_files_and_tables(tmp_path):
    questions = load_questions(sample_path("dev"))
    assert load_queries(sample_path("dev")) == {q.id: q.question for q in questions}
    table = write(tmp_path, "id,question\nq1,Who?\nq2,Where?\n", "q.csv")
    assert load_queries(table) == {"q1": "Who?", "q2": "Where?"}


def test_standard_input(monkeypatch):
    source = types.SimpleNamespace(buffer=io.BytesIO(b'Who?\n{"query": "Where?"}\n'))
    monkeypatch.setattr(sys, "stdin", source)
    assert load_queries(STDIN) == {"1": "Who?", "2": "Where?"}
    with pytest.raises(DataError, match=r"^-: no query in it"):
        load_queries(STDIN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no query in it; expected one a line"),
        ("\n \n", "no query in it"),
        ("fine\n{half", ":2: not JSON"),
        ('{"query": 5}', 'field "query" is a number'),
        ('{"text": "x"}', 'field "question" is missing'),
        ('{"id": null, "query": "x"}', 'field "id" is null'),
        ('{"id": "2", "query": "x"}\nplain', ':2: the id "2" comes twice'),
        (b"fine\n\xff", ":2: byte 1 is not UTF-8"),
    ],
)
def test_a_fault_names_its_line(tmp_path, text, said):
    with pytest.raises(DataError) as error:
        load_queries(write(tmp_path, text))
    assert said in str(error.value)
    assert str(error.value).startswith(str(tmp_path))
