"""Passages are streamed from JSON lines and text files, none lost and none twice."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.packers import PACKERS
from exsearch.data.corpus import count_words, read_corpus, split_text
from exsearch.errors import DataError
from exsearch.records import Passage


@pytest.mark.parametrize("packed", PACKERS)
def test_json_lines_title_optional_and_contents_alias(tmp_path, packed):
    path = tmp_path / f"c.jsonl{packed}"
    lines = [
        {"id": "1", "title": "T", "text": "one", "more": 1},
        {"id": 2, "text": "two"},
        {"id": "3", "title": None, "contents": "three"},
    ]
    path.write_bytes(PACKERS[packed]("\n".join(map(json.dumps, lines)).encode()))
    assert list(read_corpus([path])) == [
        Passage("1", "T", "one"),
        Passage("2", "", "two"),
        Passage("3", "", "three"),
    ]


def test_the_names_of_other_public_corpora(tmp_path):
    path = tmp_path / "c.jsonl"
    lines = [
        {"_id": "d1", "title": "T", "text": "BEIR's", "metadata": {}},
        {"id": 2, "contents": '"The "T" itself"\nFlashRAG\'s\nbody'},
        {"id": 3, "contents": '"Quoted" from the start'},
        {"id": 4, "title": "Own", "contents": '"T"\nbody'},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert list(read_corpus(path)) == [
        Passage("d1", "T", "BEIR's"),
        Passage("2", 'The "T" itself', "FlashRAG's\nbody"),
        Passage("3", "", '"Quoted" from the start'),
        Passage("4", "Own", '"T"\nbody'),
    ]


@pytest.mark.parametrize(("name", "separator"), [("psgs_w100.tsv.gz", "\t"), ("c.csv", ",")])
def test_a_table_is_a_corpus(tmp_path, name, separator):
    rows = [
        ["id", "text", "title"],
        ["1", '"Aaron, or ""Ahron"", spoke.\nHe left."', "Aaron"],
        ["2", "Plain.", '"""Heroes"" (album)"'],
    ]
    text = "\r\n".join(map(separator.join, rows)).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert list(read_corpus(tmp_path / name)) == [
        Passage("1", "Aaron", 'Aaron, or "Ahron", spoke.\nHe left.'),
        Passage("2", '"Heroes" (album)', "Plain."),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\tone\tT\n", 'c.tsv:1: no line of names.*"text" among them'),
        ("id\ttext\n1\tone\tT\n", "c.tsv:2: 3 fields where the line of names has 2"),
        ("id\ttext\n\tone\n", 'c.tsv:2: field "id" is missing'),
        ("id\ttext\n1\tone\n1\ttwo\n", 'c.tsv:3: the id "1" came before'),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, said):
    (tmp_path / "c.tsv").write_text(text)
    with pytest.raises(DataError, match=said):
        list(read_corpus(tmp_path / "c.tsv"))


def test_a_url_is_taken_over_and_what_is_none_is_left_out_and_counted(tmp_path, caplog):
    urls = ["https://a.example/1", "javascript:alert(1)", "", None, ["x"]]
    lines = [json.dumps({"id": str(n), "text": "x", "url": url}) for n, url in enumerate(urls)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    passages = list(read_corpus(tmp_path / "c.jsonl"))
    assert [p.url for p in passages] == ["https://a.example/1", "", "", "", ""]
    assert "in 2 lines, the first is line 2; it is left out there" in caplog.text
    (tmp_path / "c.csv").write_text("id,text,url\n1,x,https://a.example/1\n2,y,\n")
    assert [p.url for p in read_corpus(tmp_path / "c.csv")] == ["https://a.example/1", ""]


def test_blank_passages_come_as_they_are(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 1, "title": "T", "text": ""}\n{"id": 2, "text": null}\n')
    assert list(read_corpus(path)) == [Passage("1", "T", ""), Passage("2", "", "")]


def test_sources_may_hold_files_of_one_name(tmp_path):
    for folder in ("a/docs", "b/docs", "c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "README.md").write_text(f"Of {folder}.")
    (tmp_path / "a/docs/own.md").write_text("Own.")
    sources = [tmp_path / "a" / "docs", tmp_path / "b" / "docs", tmp_path / "c" / "README.md"]
    ids = {p.text: p.id for p in read_corpus(sources)}
    assert ids == {
        "Of a/docs.": "a/docs/README.md#1",
        "Of b/docs.": "b/docs/README.md#1",
        "Of c.": "c/README.md#1",
        "Own.": "own.md#1",
    }
    assert {p.text: p.id for p in read_corpus(sources[::-1])} == ids
    with pytest.raises(DataError, match="came before"):
        list(read_corpus([tmp_path / "c", tmp_path / "c" / "README.md"]))


def test_what_a_folder_holds_besides_texts_is_named(tmp_path, caplog):
    for name in ("a.md", "b.markdown", "c.rst", "d.doc", "e.xml", "f.jsonl", "g", ".hidden.pdf"):
        (tmp_path / name).write_text("Text.")
    assert [p.id for p in read_corpus(tmp_path)] == ["a.md#1", "b.markdown#1", "c.rst#1"]
    assert "passed over 4 of other types: d.doc, e.xml, f.jsonl, …" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "```sh\n# make it\n```\n\n# The Title\n", "The Title"),
        ("a.md", "~~~~\n# no\n```\n# no\n~~~\n~~~~\n\n# The Title\n", "The Title"),
        ("a.markdown", "```\n# in a block that never ends\n", "a"),
        ("a.md", "#\n\nnot a heading\n", "a"),
        ("a.rst", "# no\n\nThe Title\r\n=========\r\n\nText\n----\n", "The Title"),
        ("a.rst", "Text only.\n\n* item\n", "a"),
    ],
)
def test_the_title_of_a_text(tmp_path, name, text, title):
    (tmp_path / name).write_bytes(text.encode())
    assert {p.title for p in read_corpus(tmp_path / name)} == {title}


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
        ('{"id": "2", "text": ["x"]}', 'field "text" is a list'),
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
    (tmp_path / "c.doc").write_bytes(b"\xff")
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
    with pytest.raises(DataError, match=r"no \.txt, \.md, \.markdown, \.rst, .* file in this"):
        list(read_corpus([tmp_path]))
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"types: c\.jsonl\); name a file of passages itself"):
        list(read_corpus([tmp_path]))
    with pytest.raises(DataError, match="the corpus is empty"):
        list(read_corpus([tmp_path / "c.jsonl"]))
    with pytest.raises(DataError, match=r"did you mean c\.jsonl"):
        list(read_corpus([tmp_path / "c.json"]))
    (tmp_path / "c.json").write_text("x")
    with pytest.raises(DataError, match=r"unknown type of corpus, expected \.jsonl"):
        list(read_corpus([tmp_path / "c.json"]))
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


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("漢" * 1000, [300, 300, 300, 100]),
        ("東京は日本の首都である。" * 60, [324, 324, 72]),  # whole sentences
        ("「雨だ。」と彼は言った。" * 60, [360, 360]),
        ("ไทย" * 250, [300, 300, 150]),
        ("ประเทศไทย " * 40, [329, 69]),  # whole phrases
        ("x" * 25_000, [10_000, 10_000, 5_000]),
        ("|a|b" * 5_000, [10_000, 10_000]),
    ],
)
def test_text_without_blanks_is_cut_by_sentence_and_length(text, sizes):
    pieces = list(split_text(text))
    assert [len(piece) for piece in pieces] == sizes
    assert "".join(" ".join(pieces).split()) == "".join(text.split())
    assert all(count_words(piece) <= 100 for piece in pieces)


def test_foreign_names_do_not_move_the_cuts_of_english_text():
    names = "Tokyo (東京, Tōkyō) is not in Siam (ไทย) at all. Musume (娘。, girl) sings. "
    pieces = list(split_text(names * 20))
    assert [len(piece.split()) for piece in pieces] == [98, 98, 84]
