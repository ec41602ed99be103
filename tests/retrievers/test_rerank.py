"""A re-ranked order equals that of a loop over the first passages with the model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import CrossEncoder

from exsearch.errors import RetrieverError
from exsearch.records import Passage
from exsearch.retrievers import build_index, open_retriever
from exsearch.retrievers.combine import combine
from exsearch.retrievers.encoder import passage_text
from exsearch.retrievers.inner import InnerPlace
from exsearch.retrievers.rerank import Reranking, RerankRetriever
from exsearch.retrievers.scorers import Scorer
from places import PASSAGES
from tiny_rerankers import save_tiny_cross_encoder

QUERIES = ["Who discovered polonium and radium?", "the longest river in Poland"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rerank")
    save_tiny_cross_encoder(folder / "cross")
    build_index(PASSAGES, folder / "bm25", progress=False)
    reranking = Reranking(str(folder / "cross" / "model"), first=6)
    combine([folder / "bm25"], folder / "index", reranking=reranking)
    return folder


def test_the_order_equals_brute_force(folder: Path):
    bm25, place = open_retriever(folder / "bm25"), open_retriever(folder / "index", cache=0)
    model = CrossEncoder(str(folder / "cross" / "model"), device="cpu")
    changed = 0
    for query, found in zip(QUERIES, place.search(QUERIES, 4), strict=True):
        (first,) = bm25.search([query], 6)
        scores = {p.id: float(model.predict((query, passage_text(p)))) for p in first}
        expected = sorted(first, key=lambda p: -scores[p.id])[:4]
        assert [p.id for p in found] == [p.id for p in expected]
        assert [p.score for p in found] == pytest.approx([scores[p.id] for p in found], rel=1e-5)
        changed += [p.id for p in expected] != [p.id for p in first[:4]]
    assert changed
    for found, first in zip(place.search(QUERIES, 50), bm25.search(QUERIES, 6), strict=True):
        assert {p.id for p in found} == {p.id for p in first}
    assert place.search([""], 3) == [[]]


class Fixed:
    def __init__(self, found: list[Passage]):
        self.found = found

    def search(self, queries: Any, k: int) -> list[list[Passage]]:
        return [self.found[:k] for _ in queries]

    def fetch(self, ids: Any) -> list[Any]:
        return [None for _ in ids]

    def identity(self) -> str:
        return "fixed"


def by(score: Any, first: int = 20) -> RerankRetriever:
    scorer = Scorer(lambda pairs: [score(*pair) for pair in pairs], "cross-encoder", "facts")
    found = [Passage(id_, "", text, 1.0) for id_, text in zip("abcd", "2131", strict=True)]
    return RerankRetriever(InnerPlace("it", Fixed(found)), scorer, Reranking("m", first))


def test_of_equal_scores_the_first_order_holds():
    (found,) = by(lambda query, text: float(text)).search(["x"], 4)
    assert [(p.id, p.score) for p in found] == [("c", 3.0), ("a", 2.0), ("b", 1.0), ("d", 1.0)]
    (found,) = by(lambda query, text: float(text), first=2).search(["x"], 4)
    assert [p.id for p in found] == ["a", "b"]


def test_a_pair_is_scored_once():
    seen: list[tuple[str, str]] = []
    place = by(lambda *pair: float(seen.append(pair) or 0))
    place.search(["x", "y", "x"], 2)
    assert len(seen) == 8 and len({query for query, _ in seen}) == 2


def test_a_model_that_fails_fails_the_search():
    def fails(query: str, text: str) -> float:
        raise RuntimeError("out of memory")

    for score, said in ((fails, "out of memory"), (lambda *_: float("nan"), "not finite")):
        with pytest.raises(RetrieverError, match=f"re-ranking model failed: .*{said}"):
            by(score).search(["x"], 3)


def test_the_identity_is_that_of_the_place_and_the_model(folder: Path, tmp_path: Path):
    first = open_retriever(folder / "index").identity()
    save_tiny_cross_encoder(tmp_path / "other", seed=1)
    for n, (model, settings) in enumerate(
        [("cross", {"first": 7}), ("other", {"first": 6}), ("cross", {"first": 6})]
    ):
        base = folder if model == "cross" else tmp_path
        reranking = Reranking(str(base / model / "model"), **settings)
        combine([folder / "bm25"], tmp_path / str(n), reranking=reranking)
        assert (open_retriever(tmp_path / str(n)).identity() == first) is (n == 2)
