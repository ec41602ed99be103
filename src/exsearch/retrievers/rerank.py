"""A re-ranker puts the first passages of another place into the order of a model's scores.

It finds no passage that the place does not: a search gives at most as many as it re-orders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from exsearch.config import check_least
from exsearch.errors import ConfigError, RetrieverError
from exsearch.records import Passage, refuse_text
from exsearch.retrievers.base import refuse_search
from exsearch.retrievers.encoder import passage_text
from exsearch.retrievers.inner import InnerPlace, combined_identity, inner_path, open_combined
from exsearch.retrievers.scorers import ScoreBy, Scorer


@dataclasses.dataclass(frozen=True)
class Reranking:
    """How passages are re-ordered.

    Attributes:
        model: The model that scores: a name, or a path that begins at the combined folder.
        first: The number of passages that are re-ordered.
        score_by: How the model scores; None takes what it says that it is.
    """

    model: str
    first: int = 20
    score_by: ScoreBy | None = None

    def __post_init__(self) -> None:
        check_least(self, first=1)


class RerankRetriever:
    """A place whose first passages a model re-orders. Threads may share it where they may share it.

    Args:
        place: The inner place.
        scorer: The model.
        reranking: How passages are re-ordered.
    """

    def __init__(self, place: InnerPlace, scorer: Scorer, reranking: Reranking):
        self.place, self.scorer, self.reranking = place, scorer, reranking

    @classmethod
    def open(cls, place: str) -> RerankRetriever:
        """Open the combined place in a folder.

        Raises:
            IndexDamagedError: the folder is damaged, or the inner place can't be opened.
            ModelError: the model can't be found or loaded.
            ConfigError: the inner place is on a host that the user did not name.
        """
        folder = Path(place)
        (inner,), reranking = open_combined(folder, "rerank", Reranking, most=1)
        model = reranking.model
        if model.startswith((".", "/")):
            model = inner_path(folder, model)
        return cls(inner, Scorer.open(model, reranking.score_by), reranking)

    @classmethod
    def build(
        cls, passages: Iterable[Passage], place: Any, *, progress: bool = True, **settings: Any
    ) -> int:
        """There is nothing to build: it re-ranks a place that is there.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("rerank re-orders a place that is built: exsearch combine --rerank MODEL")

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The first passages of the place by the model's scores; of equal ones, in their order.

        Args:
            queries: The queries, as plain text; a query that comes twice is searched once.
            k: The most passages a query.

        Raises:
            RetrieverError: the search failed, or the model did.
            TypeError: `queries` is one text.
            ValueError: `k` is below 1.
        """
        refuse_search(queries, k)
        distinct = list(dict.fromkeys(queries))
        if not distinct:
            return []
        lists = self.place.search(distinct, self.reranking.first)
        pairs = [
            (q, passage_text(p)) for q, list_ in zip(distinct, lists, strict=True) for p in list_
        ]
        try:
            scores = iter(self.scorer.scores(pairs))
        except Exception as error:  # a model may fail in any way; the question does, not the job
            raise RetrieverError(f"the re-ranking model failed: {error}") from error
        found: dict[str, list[Passage]] = {}
        for query, list_ in zip(distinct, lists, strict=True):
            own = zip(list_, islice(scores, len(list_)), strict=True)
            scored = [dataclasses.replace(passage, score=score) for passage, score in own]
            found[query] = sorted(scored, key=lambda p: -(p.score or 0))[:k]
        return [found[query] for query in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, from the inner place.

        Raises:
            RetrieverError: they can't be read.
            TypeError: `ids` is one text.
        """
        refuse_text("ids", ids)
        return self.place.fetch(ids)

    def identity(self) -> str:
        """A hash of the inner identity, the model's files and how it is used."""
        used = dataclasses.replace(self.reranking, model="", score_by=self.scorer.score_by)
        return combined_identity("rerank", used, [self.place], model=self.scorer.facts)
