"""An analyser finds words in any language and script, and an id as a whole."""

from __future__ import annotations

import pytest

from exsearch.errors import ConfigError
from exsearch.records import Passage
from exsearch.retrievers.analyser import Analyser
from exsearch.retrievers.bm25 import Bm25Retriever, build_bm25


def found(tmp_path, texts, query, **settings):
    passages = [Passage(str(n), "", text) for n, text in enumerate(texts)]
    build_bm25(passages, tmp_path / "index", **settings)
    (hits,) = Bm25Retriever.open(tmp_path / "index").search([query], 9)
    return [int(p.id) for p in hits]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GPT-4o-mini", "gpt 4o mini gpt4omini"),
        ("X-43A,", "x 43a x43a"),
        ("RFC 2616", "rfc 2616"),
        ("s-0107", "0107 s0107"),  # s alone is a stopword
        ("I-10, A-10", "10 10 i10 a10"),
        ("CVE\u20112021-44228.", "cve 2021 44228 cve202144228"),
        ("v1.2_final", "v1 2 final v12final"),
        ("1999-2000 3.14 well-known and/or __x__", "1999 2000 3 14 well known x"),
        ("\uff38\uff0d\uff14\uff13\uff21", "x 43a x43a"),
        ("Zo\u00eb's caf\u00e9s", "zoe cafe"),
    ],
)
def test_words(text, words):
    assert Analyser().words(text) == words.split()


@pytest.mark.parametrize("query", ["s-0107", "S0107", "s_0107"])
def test_an_id_is_told_from_its_like(tmp_path, query):
    texts = ["0107", "t-0107 is short", "unit m-0107", "0107 0107 0107"]
    texts += ["the long report says much of other things, and once that s-0107 was seen there"]
    assert found(tmp_path, texts, query)[0] == 4


def test_rare_names_are_found(tmp_path):
    texts = ["GPT-4o is larger", "GPT-4o-mini is small", "a mini with a GPT 4o engine", "RFC 2617"]
    texts += [
        "RFC 2616 is about HTTP",
        "the X-43A flew",
        "the X-43 flew",
        "Zbigniew Brzezi\u0144ski",
    ]
    names = ("GPT-4o-mini", "RFC 2616", "X-43A", "brzezinski")
    assert [found(tmp_path, texts, name)[0] for name in names] == [1, 4, 5, 7]


@pytest.mark.parametrize(
    ("language", "text", "query"),
    [
        ("german", "Die H\u00e4user standen an den Stra\u00dfen", "Haus Strasse"),
        ("french", "Les \u00e9l\u00e8ves mangeaient", "\u00e9l\u00e8ve manger"),
        (
            "russian",
            "\u043d\u043e\u0432\u044b\u0435 \u0434\u043e\u043c\u0430",
            "\u0434\u043e\u043c\u0430\u043c \u043d\u043e\u0432\u044b\u0439",
        ),
        (
            "hindi",
            "\u0932\u0921\u093c\u0915\u093f\u092f\u093e\u0901",
            "\u0932\u0921\u093c\u0915\u0940",
        ),
    ],
)
def test_languages_have_their_own_stems(tmp_path, language, text, query):
    assert found(tmp_path, ["nothing", text], query, language=language) == [1]
    words = Analyser.of(language).words
    assert words(query)
    assert set(words(query)) <= set(words(text))
    assert not set(words(query)) <= set(Analyser().words(text))


def test_stopwords_are_those_of_the_language():
    assert Analyser.of("german").words("der Hund und the cat") == ["hund", "the", "cat"]
    assert Analyser.of("german", stopwords=False).words("der Hund") == ["der", "hund"]
    assert Analyser.of("tamil").stopwords == frozenset()
    assert Analyser.of("").words("The cats of it") == ["the", "cats", "of", "it"]
    assert Analyser.of("english").settings() == Analyser().settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u6771\u4eac\u90fd, 2020", "\u6771\u4eac \u4eac\u90fd 2020"),
        ("\u6c34", "\u6c34"),
        ("\u304c\u304e Wii\u3067", "\u304c\u304e wii \u3067"),
        ("\u0e20\u0e32\u0e29\u0e32", "\u0e20\u0e32 \u0e32\u0e29 \u0e29\u0e32"),
        ("\ud55c\uad6d\uc5b4 \ubb38\uc11c", "\ud55c\uad6d\uc5b4 \ubb38\uc11c"),  # Korean has blanks
    ],
)
def test_scripts_without_blanks_give_pairs(text, words):
    for language in ("english", "german", ""):
        assert Analyser.of(language).words(text) == words.split()


def test_pairs_find_what_stands_within(tmp_path):
    texts = [
        "\u6211\u4f4f\u5728\u4e1c\u4eac\u3002",
        "\u6211\u4f4f\u5728\u5317\u4eac\u5927\u5b66\u65c1\u8fb9\u3002",
    ]
    assert found(tmp_path, texts, "\u5317\u4eac\u5927\u5b66") == [1]


def test_what_is_unknown_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'klingon'"):
        Analyser(stemmer="klingon")
    with pytest.raises(ValueError, match="version 3"):
        Analyser(version=3)
    with pytest.raises(ConfigError, match="did you mean german"):
        build_bm25([], tmp_path / "index", language="germna")
    with pytest.raises(ConfigError, match="known are arabic"):
        Analyser.of("zzz")


def test_version_1_is_as_it_was():
    first = Analyser(version=1)
    assert first.words("The X-43A \u6771\u4eac\u90fd of Zo\u00eb's") == [
        "x",
        "43a",
        "\u6771\u4eac\u90fd",
        "zoe",
    ]
    text = (
        "In the mid 1990s, R\u00f6ntgen\u2019s na\u00efve \uff46ull albums (3.50) in S\u00e3o Paulo"
    )
    assert Analyser().words(text) == first.words(text)
    assert Analyser().words("x" * 999) == first.words("x" * 999) == ["x" * 64]
