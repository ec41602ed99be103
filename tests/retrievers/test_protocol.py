"""Each form of reply in use is read; anything else is told by what came."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from exsearch.records import Passage, split_contents
from exsearch.retrievers.protocol import (
    document,
    hits,
    read_fetched,
    read_found,
    read_identity,
)

FENN = Passage("p1", "Ada Fenn", "She was born in Quillmoor.", 2.5)
PLAIN = Passage("p1", "Ada Fenn", "She was born in Quillmoor.")
CONTENTS = '"Ada Fenn"\nShe was born in Quillmoor.'


def read(value: Any, queries: int = 1, k: int = 3) -> list[list[Passage]]:
    return read_found(json.dumps(value).encode(), queries, k)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"result": [[{"document": {"id": "p1", "contents": CONTENTS}, "score": 2.5}]]}, FENN),
        ({"result": [[{"id": "p1", "contents": CONTENTS}]]}, PLAIN),
        ([[{"id": "p1", "contents": CONTENTS}]], PLAIN),
        ([[{"document": {"id": "p1", "contents": CONTENTS}, "score": 2.5}]], FENN),
        ([[{"id": "p1", "title": FENN.title, "text": FENN.text, "score": 2.5}]], FENN),
        ([[{"id": "p1", "title": FENN.title, "contents": FENN.text}]], PLAIN),
        ([[{"id": "p1", "title": FENN.title, "contents": CONTENTS}]], PLAIN),
        ([[{"id": "p1", "title": None, "contents": CONTENTS, "score": None}]], PLAIN),
        ([[{"id": 7, "text": "x", "more": [1]}]], Passage("7", "", "x")),
        ([[{"id": 7, "text": "x", "url": "http://a.b"}]], Passage("7", "", "x", url="http://a.b")),
        ([[{"id": 7, "text": "x", "url": ["javascript:"]}]], Passage("7", "", "x")),
        ([[{"document": {"id": "7", "contents": "x"}, "score": 1}]], Passage("7", "", "x", 1.0)),
    ],
)
def test_every_form_of_reply_is_read(value: Any, expected: Passage) -> None:
    assert read(value) == [[expected]]


def test_a_passage_without_an_id_has_one_by_its_content() -> None:
    one = {"contents": CONTENTS}
    other = {"title": FENN.title, "text": FENN.text}
    (found,), (again,) = read([[one, {"contents": "x"}]]), read([[other, one]])
    assert found[0] == again[0]  # the same content, once
    assert len(again) == 1
    assert found[0].id != found[1].id
    content = f"{FENN.title}\n{FENN.text}".encode()
    assert found[0].id == hashlib.sha256(content).hexdigest()[:32]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"error": "busy"}, '{"error": "busy"}, expected 1 lists'),
        ([], "0 lists of passages, one a query, expected 1"),
        ([[], []], "2 lists of passages"),
        (None, "null, expected 1 lists"),
        ({"result": "x"}, '"x", expected 1 lists'),
        ([None], "null, expected a list of passages"),
        ([[1]], "1, expected a document"),
        ([["text"]], '"text", expected a document'),
        ([[{"document": "text", "score": 1}]], '"text", expected a document'),
        ([[{"id": "a"}]], r'{"id": "a"}, expected a document with contents or text'),
        ([[{"id": "a", "contents": 1}]], "contents is 1"),
        ([[{"id": "a", "text": "\ud800"}]], "text is"),
        ([[{"id": "a", "title": 1, "text": "x"}]], "title is 1"),
        ([[{"id": ["a"], "text": "x"}]], "id is"),
        ([[{"id": True, "text": "x"}]], "id is true"),
        ([[{"id": 1.5, "text": "x"}]], "id is 1.5"),
        ([[{"id": "", "text": "x"}]], "an empty id"),
        ([[{"id": "a", "text": "x", "score": "1"}]], "score"),
        ([[{"id": "a", "text": "x", "score": True}]], "score true"),
        ([[{"id": "a", "text": "x", "score": float("nan")}]], "score NaN"),
        ([[{"id": "a", "text": "x", "score": 10**400}]], "score 1000"),
        ([[{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]], "two passages with the id 'a'"),
        ([[{"id": str(n), "text": "x"} for n in range(4)]], "4 passages where 3 were asked for"),
    ],
)
def test_anything_else_is_told_by_what_came(value: Any, words: str) -> None:
    with pytest.raises(ValueError) as error:
        read(value)
    assert words in str(error.value)
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"<html>\n", b"\xff", b"[" * 100_000, b"[[NaN"], ids=range(5)
)
def test_what_is_no_json(data: bytes) -> None:
    for read_it in (lambda: read_found(data, 1, 1), lambda: read_fetched(data, ["a"])):
        with pytest.raises(ValueError, match="no JSON but"):
            read_it()


def test_fetched_passages_are_those_that_were_asked_for() -> None:
    reply = {"result": [document(FENN), None]}
    assert read_fetched(json.dumps(reply).encode(), ["p1", "p2"]) == [PLAIN, None]
    with pytest.raises(ValueError, match="'p1' where 'p2' was asked for"):
        read_fetched(json.dumps(reply).encode(), ["p2", "p1"])
    with pytest.raises(ValueError, match="2 documents, one an id, expected 1"):
        read_fetched(json.dumps(reply).encode(), ["p1"])


def test_an_identity() -> None:
    assert read_identity(b'{"identity": "x"}') == "x"
    for data in (b"{}", b'{"identity": 1}', b'"x"'):
        with pytest.raises(ValueError, match="expected an identity"):
            read_identity(data)


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("", ""),
        ("", '"Quoted"\nfirst line'),
        ('"', '"'),
        ("two\nlines", "x"),
        ('a "b"\nc', '"a"\n"b"\n'),
        (" ", "\n"),
        ("T", '"T"\n"T"\n'),
        ("é\u2028", "\x00\r\n"),
    ],
)
def test_a_passage_comes_through_whole(title: str, text: str) -> None:
    passage = Passage("p", title, text, 0.1 + 0.2)
    for with_scores in (True, False):
        (found,) = read({"result": [hits([passage], with_scores)]})[0]
        assert (found.id, found.title, found.text) == ("p", title, text)
        assert found.score == (passage.score if with_scores else None)


def test_contents_are_a_title_and_a_text() -> None:
    assert split_contents(CONTENTS) == (FENN.title, FENN.text)
    assert split_contents("no title\nhere") == ("", "no title\nhere")
    assert split_contents('"open\nx') == ("", '"open\nx')
    assert split_contents('"Ada Fenn"\nx', "Other") == ("Other", '"Ada Fenn"\nx')
