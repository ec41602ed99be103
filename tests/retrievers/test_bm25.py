"""BM25 scores equal independent implementations, and a damaged index is never searched."""

from __future__ import annotations

import json
import math
import threading
import tracemalloc
from collections import Counter

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.errors import ConfigError, DataError, IndexDamagedError, RetrieverError
from exsearch.records import Passage
from exsearch.retrievers import pieces
from exsearch.retrievers.analyser import Analyser
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.bm25 import K1, B, Bm25Retriever, build_bm25
from exsearch.retrievers.passages import write_passages
from exsearch.retrievers.postings import Postings
from exsearch.runs import MANIFEST, new_folder

PASSAGES = [
    Passage("p0", "Green", "Green is an album by Steve Hillage. Steve made it in 1978."),
    Passage("p1", "Steve Hillage", "Stephen Simpson Hillage is an English musician."),
    Passage("p2", "Miquette Giraudy", "A keyboard player, with her partner Steve Hillage."),
    Passage("p3", "Green", "Green is an album by Steve Hillage. Steve made it in 1978."),
    Passage("p4", "", "The and of."),
    Passage("p5", "Café São", "Röntgen\u2019s naïve \uff46ull albums"),
]
QUERIES = ["Who is the spouse of the Green performer?", "Steve Hillage musician Steve", "albums"]


@pytest.fixture
def index(tmp_path):
    build_bm25(iter(PASSAGES), tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def retriever(index):
    return Bm25Retriever.open(index)


def lucene_scores(documents, query, k1, b):
    """BM25 from its definition, in float64: idf(t) tf / (tf + k1 (1 - b + b length / mean))."""
    n = len(documents)
    mean = sum(map(len, documents)) / n
    scores = np.zeros(n)
    for word in query:
        df = sum(word in document for document in documents)
        idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
        for i, document in enumerate(documents):
            tf = Counter(document)[word]
            scores[i] += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean))
    return scores


def rank_bm25_scores(documents, query, k1, b):
    """rank_bm25's Okapi with Lucene's idf put in; it multiplies by k1 + 1, Lucene does not."""
    index = BM25Okapi(documents, k1=k1, b=b)
    n = len(documents)
    df = Counter(word for document in documents for word in set(document))
    index.idf = {word: math.log(1 + (n - d + 0.5) / (d + 0.5)) for word, d in df.items()}
    return index.get_scores(query) / (k1 + 1)


def wholes(text):
    analyser = Analyser()
    return [whole for chunk in analyser.chunks(text) for whole in analyser.analyse(chunk)[1]]


@pytest.mark.parametrize("reference", [lucene_scores, rank_bm25_scores])
@pytest.mark.parametrize(("k1", "b", "title_weight"), [(1.2, 0.75, 2), (0.9, 0.4, 1), (2, 0.9, 0)])
def test_scores_equal_independent_implementations(tmp_path, reference, k1, b, title_weight):
    passages = [*read_corpus([sample_path("corpus")])][:150] + PASSAGES
    passages = [p for p in passages if not wholes(f"{p.title} {p.text}")]
    assert len(passages) > 100
    options = {"k1": k1, "b": b, "title_weight": title_weight}
    build_bm25(passages, tmp_path / "index", **options, progress=False)
    retriever = Bm25Retriever.open(tmp_path / "index")
    words = Analyser().words
    documents = [words(p.title) * title_weight + words(p.text) for p in passages]
    queries = [*QUERIES, *(p.text for p in passages[:20])]
    for query, found in zip(queries, retriever.search(queries, len(passages)), strict=True):
        scores = reference(documents, words(query), k1, b)
        expected = {p.id: s for p, s in zip(passages, scores, strict=True) if s > 0}
        assert {p.id for p in found} == expected.keys()
        for passage in found:
            assert passage.score == pytest.approx(expected[passage.id], rel=1e-5)


def test_scores_are_those_that_bm25s_computes(tmp_path):
    build_bm25(PASSAGES, tmp_path / "index", title_weight=1)
    ours = Postings(tmp_path / "index")
    theirs = bm25s.BM25(k1=K1, b=B, method="lucene")
    words = [Analyser().words(f"{p.title} {p.text}") for p in PASSAGES]
    theirs.index(words, create_empty_token=False, show_progress=False)
    assert len(ours.hashes) == len(theirs.vocab_dict)
    for word in theirs.vocab_dict:
        numbers, scores = ours.best([word], len(PASSAGES))
        dense = np.zeros(len(PASSAGES))
        dense[numbers] = scores
        assert dense == pytest.approx(theirs.get_scores([word]), rel=1e-5)


def test_a_whole_is_one_more_word_that_no_length_counts(tmp_path):
    passages = [Passage("a", "", "the X-43A flew"), Passage("b", "", "an X 43a flew, X flew")]
    build_bm25(passages, tmp_path / "index")
    (found,) = Bm25Retriever.open(tmp_path / "index").search(["x-43a"], 5)
    scores = dict.fromkeys("ab", 0.0)
    for tf in ({"a": 1, "b": 2}, {"a": 1, "b": 1}, {"a": 1}):  # x, 43a, x43a
        idf = math.log(1 + (2 - len(tf) + 0.5) / (len(tf) + 0.5))
        for id_, times in tf.items():
            length = {"a": 3, "b": 5}[id_]
            scores[id_] += idf * times / (times + K1 * (1 - B + B * length / 4))
    assert {p.id: p.score for p in found} == pytest.approx(scores, rel=1e-6)
    assert [p.id for p in found] == ["a", "b"]


def write_first_version(passages, path):
    """An index as version 1 had it; there, bm25s wrote the scores."""
    analyser = Analyser(version=1)
    words = [analyser.words(p.title) * 2 + analyser.words(p.text) for p in passages]
    scores = bm25s.BM25(k1=K1, b=B, method="lucene")
    scores.index(words, create_empty_token=False, show_progress=False)
    with new_folder(path) as folder:
        assert list(write_passages(passages, folder)) == passages
        scores.save(folder / "bm25s", show_progress=False)
        facts = {"kind": "bm25", "version": 1, "passages": len(passages), "left_out": 0}
        facts |= {"title_weight": 2, "analyser": analyser.settings()}
        (folder / "retriever.json").write_text(json.dumps(facts))


def test_an_index_of_version_1_is_searched_as_before(tmp_path):
    passages = [*read_corpus([sample_path("corpus")])]
    write_first_version(passages, tmp_path / "first")
    build_bm25(passages, tmp_path / "index")
    queries = [*QUERIES, *(p.title for p in passages[:50]), "unknownword"]
    found, expected = (
        Bm25Retriever.open(tmp_path / name).search(queries, 20) for name in ("first", "index")
    )
    assert [[p.id for p in hits] for hits in found] == [[p.id for p in e] for e in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert [p.score for p in ours] == pytest.approx([p.score for p in theirs], rel=1e-5)
    with pytest.raises(ConfigError, match=r"of version 1.*`exsearch index`"):
        Bm25Retriever.update([], tmp_path / "first", remove=["none"])


@pytest.mark.parametrize("words", [1, 5, 17])
def test_the_size_of_the_chunks_changes_no_byte(tmp_path, monkeypatch, words):
    build_bm25(PASSAGES, tmp_path / "whole")
    monkeypatch.setattr(pieces, "CHUNK", words)
    monkeypatch.setattr(pieces, "_REMEMBERED", words)
    build_bm25(PASSAGES, tmp_path / "chunks")
    manifests = [(tmp_path / name / MANIFEST).read_text() for name in ("whole", "chunks")]
    assert manifests[0] == manifests[1]


def test_it_is_a_retriever_that_gives_whole_passages(retriever):
    assert isinstance(retriever, Retriever)
    assert len(retriever) == len(PASSAGES)
    first = retriever.search(["Giraudy"], 3)[0][0]
    assert (first.id, first.title, first.text) == ("p2", PASSAGES[2].title, PASSAGES[2].text)
    assert retriever.fetch(["p5", "none", "p0"]) == [PASSAGES[5], None, PASSAGES[0]]
    assert retriever.fetch([]) == []


def test_equal_scores_come_in_the_order_of_the_corpus(tmp_path):
    passages = [Passage(f"{n}", "same", "words here") for n in range(50)]
    build_bm25(passages, tmp_path / "index")
    retriever = Bm25Retriever.open(tmp_path / "index")
    for k in (1, 7, 50, 99):
        (found,) = retriever.search(["same words"], k)
        assert [p.id for p in found] == [f"{n}" for n in range(min(k, 50))]


def test_a_batch_equals_single_queries(retriever):
    queries = ["", *QUERIES, "unknownword", "the of"]
    assert retriever.search(queries, 3) == [retriever.search([q], 3)[0] for q in queries]
    assert retriever.search([], 3) == []


@pytest.mark.parametrize("query", ["", "  \n", "the of and", "?!", "\x00\ud800", "unknownword"])
def test_nothing_is_found_for_nothing(retriever, query):
    assert retriever.search([query], 5) == [[]]


def test_fewer_than_k_where_fewer_match(retriever):
    (found,) = retriever.search(["english musician"], 5)
    assert [p.id for p in found] == ["p1"]
    assert all(p.score > 0 for p in found)


def test_accents_case_width_and_apostrophes_are_folded(retriever):
    for query in ("CAFE sao", "café", "Rontgen", "RÖNTGEN'S", "full", "naive"):
        assert [p.id for p in retriever.search([query], 1)[0]] == ["p5"], query


def test_monstrous_queries_are_answered(retriever):
    queries = ["steve " * 200_000, "x" * 1_000_000, "\x00\x1b[31m steve\u202e", "steve \ud800"]
    found = retriever.search(queries, 2)
    assert [bool(each) for each in found] == [True, False, True, True]


@settings(max_examples=200, deadline=None)
@given(query=st.text(max_size=80), k=st.integers(1, 9))
def test_any_query_is_answered(shared_index, query, k):
    (found,) = shared_index.search([query], k)
    scores = [p.score for p in found]
    assert scores == sorted(scores, reverse=True)
    assert len(found) <= k


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory):
    path = tmp_path_factory.mktemp("shared") / "index"
    build_bm25(PASSAGES, path)
    return Bm25Retriever.open(path)


def test_unusable_arguments(retriever):
    with pytest.raises(ValueError, match="k is 0"):
        retriever.search(["x"], 0)
    with pytest.raises(TypeError, match=r"ids is one text"):
        retriever.fetch("p1")
    with pytest.raises(TypeError, match=r"write \['one query'\]"):
        retriever.search("one query", 3)


def test_threads_may_share_it(retriever):
    expected = retriever.search(QUERIES, 5)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(retriever.search(QUERIES, 5)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_the_analyser_is_saved_with_the_index(tmp_path):
    build_bm25(PASSAGES, tmp_path / "index", language="")
    retriever = Bm25Retriever.open(tmp_path / "index")
    assert retriever.analyser.settings() == Analyser("", ()).settings()
    assert [p.id for p in retriever.search(["album"], 9)[0]] == ["p0", "p3"]  # not p5: no stems
    assert [p.id for p in retriever.search(["of"], 9)[0]] == ["p4"]


def test_the_same_corpus_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        build_bm25(PASSAGES, tmp_path / name)
    manifests = [(tmp_path / name / MANIFEST).read_text() for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_the_identity_is_of_the_content_and_not_of_the_place(tmp_path, retriever):
    build_bm25(PASSAGES, tmp_path / "same")
    build_bm25(PASSAGES[:-1], tmp_path / "fewer")
    build_bm25(PASSAGES, tmp_path / "other_scores", k1=0.9)
    same, fewer, other = (
        Bm25Retriever.open(tmp_path / name).identity() for name in ("same", "fewer", "other_scores")
    )
    assert same == retriever.identity()
    assert len({same, fewer, other}) == 3


@pytest.mark.parametrize(
    ("passages", "error", "said"),
    [
        ([], DataError, "the corpus is empty"),
        ([Passage("a", "", "the of")], DataError, "no passage has a word"),
        ([*PASSAGES, PASSAGES[0]], DataError, r'"p0" comes twice \(passages 1, 7\)'),
    ],
)
def test_a_failed_build_leaves_nothing(tmp_path, passages, error, said):
    with pytest.raises(error, match=said):
        build_bm25(passages, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_keeps_the_old_index(index):
    def broken():
        yield PASSAGES[0]
        raise DataError("bad line")

    with pytest.raises(DataError, match="bad line"):
        build_bm25(broken(), index)
    assert len(Bm25Retriever.open(index)) == len(PASSAGES)
    (index / "retriever.json").unlink()
    build_bm25(PASSAGES[:2], index)  # a damaged index is replaced as well
    assert len(Bm25Retriever.open(index)) == 2


def test_a_build_never_replaces_what_is_no_index(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is no index"):
        build_bm25(PASSAGES, tmp_path)
    with pytest.raises(ConfigError, match="is no index"):
        build_bm25(PASSAGES, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(ConfigError, match="k1=-1"):
        build_bm25(PASSAGES, tmp_path / "index", k1=-1)


def test_no_file_holds_a_pickle(index):
    for path in index.rglob("*.npy"):
        np.load(path, allow_pickle=False)
    assert {p.suffix for p in index.rglob("*") if p.is_file()} == {".npy", ".json", ".jsonl"}


def test_every_damaged_file_is_named(index):
    files = [p for p in index.rglob("*") if p.is_file() and p.name != MANIFEST]
    assert len(files) == 12
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        with pytest.raises(IndexDamagedError, match=f"{path.name}.*`exsearch index`"):
            Bm25Retriever.open(index, hashes=False)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(IndexDamagedError, match=f"{path.name}.*`exsearch index`"):
            Bm25Retriever.open(index)
        path.unlink()
        with pytest.raises(IndexDamagedError, match=f"{path.name}.*`exsearch index`"):
            Bm25Retriever.open(index)
        path.write_bytes(data)
    assert Bm25Retriever.open(index)


def test_other_folders_are_no_index(tmp_path, index):
    with pytest.raises(IndexDamagedError, match="`exsearch index`"):
        Bm25Retriever.open(tmp_path / "none")
    (index / MANIFEST).unlink()
    with pytest.raises(IndexDamagedError, match="manifest"):
        Bm25Retriever.open(index)


@pytest.mark.parametrize(
    "change", [{"version": 99}, {"kind": "dense"}, {"analyser": {"new": 1}}, {"passages": 5}]
)
def test_an_index_of_another_version_is_refused(index, change):
    facts = json.loads((index / "retriever.json").read_text()) | change
    (index / "retriever.json").write_text(json.dumps(facts))
    (index / MANIFEST).write_text('{"files": {}}')
    with pytest.raises(IndexDamagedError, match=r"not an index that this exsearch can read"):
        Bm25Retriever.open(index)


def test_a_passage_altered_while_open_is_a_retriever_error(index):
    retriever = Bm25Retriever.open(index)
    with (index / "passages.jsonl").open("r+b") as file:
        file.write(b"#")
    with pytest.raises(RetrieverError, match="BM25 search failed"):
        retriever.search(["green"], 5)
    with pytest.raises(RetrieverError, match="a passage can't be read"):
        retriever.fetch(["p0"])


def test_opening_reads_no_array(tmp_path):
    passages = [Passage(str(n), "", " ".join(f"w{n}x{m}" for m in range(200))) for n in range(400)]
    build_bm25(passages, tmp_path / "index")
    Bm25Retriever.open(tmp_path / "index", hashes=False)
    tracemalloc.start()
    retriever = Bm25Retriever.open(tmp_path / "index", hashes=False)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert retriever.fetch(["399"]) == passages[-1:]
    assert held < 500_000  # the arrays of 80,000 words are more than 2 million
