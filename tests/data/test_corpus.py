"""Passages are streamed from JSON lines and text files, none lost and none twice."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.data.corpus import read_corpus, split_text
from exsearch.errors import DataError
from exsearch.records import Passage


def test_json_lines_title_optional_and_contents_alias(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    lines = [
        {"id": "1", "title": "T", "text": "one", "more": 1},
        {"id": 2, "text": "two"},
        {"id": "3", "title": None, "contents": "three"},
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    assert list(read_corpus([path])) == [
        Passage("1", "T", "one"),
        Passage("2", "", "two"),
        Passage("3", "", "three"),
    ]


def test_it_streams(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "text": "one"}\nbroken\n')
    passages = read_corpus([path])
    assert next(passages).id == "1"
    with pytest.raises(DataError, match=r"c.jsonl:2: not JSON"):
        next(passages)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "2"}', 'field "text" is missing'),
        ('{"id": "2", "text": "  "}', 'field "text" is'),
        ('{"id": "2", "title": 5, "text": "x"}', 'field "title" is a number'),
        ('{"id": "1", "text": "x"}', 'the id "1" came before'),
    ],
)
def test_bad_lines(tmp_path, line, said):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "text": "one"}\n' + line)
    with pytest.raises(DataError, match=said) as caught:
        list(read_corpus([path]))
    assert caught.value.line == 2


def test_ids_are_distinct_across_sources(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "1", "text": "one"}\n')
    with pytest.raises(DataError, match=r"b.jsonl:1: the id"):
        list(read_corpus([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]))


def test_folder_is_sorted_and_titled(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "b" / "Über.md").write_text("\ufeffIntro.\n\n## The Title ##\n\nText.\n")
    (tmp_path / "a.txt").write_text("# no heading here\r\n\r\nBody")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "c.pdf").write_bytes(b"\xff")
    passages = list(read_corpus([tmp_path]))
    assert [(p.id, p.title) for p in passages] == [
        ("a.txt#1", "a"),
        ("b/Über.md#1", "The Title"),
    ]
    assert passages[0].text == "# no heading here\nBody"


def test_a_single_text_file_is_a_source(tmp_path):
    (tmp_path / "a.md").write_text("# Title\n\nBody")
    assert [p.id for p in read_corpus([tmp_path / "a.md"])] == ["a.md#1"]


def test_unusable_sources(tmp_path):
    with pytest.raises(DataError, match=r"no \.txt or \.md file"):
        list(read_corpus([tmp_path]))
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"name its \.jsonl file itself"):
        list(read_corpus([tmp_path]))
    with pytest.raises(DataError, match="the corpus is empty"):
        list(read_corpus([tmp_path / "c.jsonl"]))
    with pytest.raises(DataError, match=r"did you mean c\.jsonl"):
        list(read_corpus([tmp_path / "c.json"]))
    (tmp_path / "c.csv").write_text("x")
    with pytest.raises(DataError, match=r"unknown type of corpus, expected \.jsonl"):
        list(read_corpus([tmp_path / "c.csv"]))
    (tmp_path / "bad.txt").write_bytes(b"ok \xff")
    with pytest.raises(DataError, match=r"bad\.txt: byte 4 is not UTF-8"):
        list(read_corpus([tmp_path]))


def test_pieces_end_with_sentences_and_paragraphs():
    sentence = "One two three four five six seven eight nine ten."
    text = " ".join([sentence] * 12) + "\n\n" + sentence + "\n\n" + sentence
    first, second = split_text(text)
    assert first == " ".join([sentence] * 10)
    assert second == f"{sentence} {sentence}\n{sentence}\n{sentence}"
    long_paragraph = " ".join([sentence] * 6)
    assert list(split_text(f"{long_paragraph}\n\n{sentence}")) == [long_paragraph, sentence]


def test_abbreviations_and_quotes_are_kept():
    text = 'He said "Stop." Then e.g. nothing (at all.) Well!'
    assert list(split_text(text)) == [text]
    assert next(split_text(text, words=3)) == 'He said "Stop."'


def test_a_sentence_without_end_is_cut_between_words():
    pieces = list(split_text("word " * 250))
    assert [len(piece.split()) for piece in pieces] == [100, 100, 50]


@given(st.text(alphabet="ab.!? \n\"')", max_size=300), st.integers(1, 20))
def test_no_word_is_lost_and_no_piece_too_long(text, words):
    pieces = list(split_text(text, words))
    assert " ".join(pieces).split() == text.split()
    assert all(0 < len(piece.split()) <= words for piece in pieces)
