"""A hybrid searches several places and fuses their lists into one, by rank or by score.

Passages with the same id are the same. A place that fails fails the search: the lists of the others
alone are never given for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from exsearch.config import check_least
from exsearch.errors import ConfigError, IndexDamagedError, RetrieverError
from exsearch.records import Passage, refuse_text
from exsearch.retrievers.base import refuse_search
from exsearch.retrievers.inner import (
    COMBINE,
    InnerPlace,
    combined_identity,
    open_combined,
)


@dataclasses.dataclass(frozen=True)
class Fusion:
    """How lists of passages become one.

    Attributes:
        fusion: `rrf` adds up reciprocal ranks, `weighted` scores; see `fuse`.
        weights: What each place counts, above 0; None counts all as 1.
        depth: The number of passages that each place is asked for.
        rrf_k: How little the first ranks stand out, 0 or more; of `rrf` alone.
    """

    fusion: Literal["rrf", "weighted"] = "rrf"
    weights: tuple[float, ...] | None = None
    depth: int = 100
    rrf_k: float = 60.0

    def __post_init__(self) -> None:
        check_least(self, depth=1, rrf_k=0)
        if self.weights is not None and not all(0 < w < math.inf for w in self.weights):
            raise ValueError(f"weights are {list(self.weights)}, expected numbers above 0")

    def weights_of(self, places: int) -> Sequence[float]:
        """The weight of each of so many places.

        Raises:
            ValueError: it has another number of weights.
        """
        if self.weights is None:
            return [1.0] * places
        if len(self.weights) != places:
            raise ValueError(f"{len(self.weights)} weights for {places} places, expected one each")
        return self.weights


def fuse(lists: Sequence[Sequence[Passage]], fusion: Fusion) -> list[Passage]:
    """One list of the passages of several, best first.

    A passage scores the sum, over the lists that hold it, of the list's weight times

    - `rrf`: 1 / (rrf_k + its rank), from 1 (reciprocal rank fusion, Cormack et al. 2009);
    - `weighted`: its score, moved and scaled so that the list's scores run from 0 to 1. A list
      whose scores are all equal gives 1. In a list without it, it has 0, as the last one has.

    Of equal scores, the one that stands in an earlier list comes first, then the higher one there.

    Args:
        lists: The passages that each place found, best first.
        fusion: How they become one.

    Raises:
        RetrieverError: `weighted`, and a passage has no score.
    """
    passages: dict[str, Passage] = {}
    parts: dict[str, list[float]] = {}
    for found, weight in zip(lists, fusion.weights_of(len(lists)), strict=True):
        gains = _scaled(found) if fusion.fusion == "weighted" else _ranks(found, fusion.rrf_k)
        for passage, gain in zip(found, gains, strict=True):
            passages.setdefault(passage.id, passage)
            parts.setdefault(passage.id, []).append(weight * gain)
    scores = {id_: math.fsum(gains) for id_, gains in parts.items()}  # in any order the same
    best = sorted(passages, key=lambda id_: -scores[id_])
    return [dataclasses.replace(passages[id_], score=scores[id_]) for id_ in best]


def _ranks(found: Sequence[Passage], rrf_k: float) -> list[float]:
    return [1 / (rrf_k + rank) for rank in range(1, len(found) + 1)]


def _scaled(found: Sequence[Passage]) -> list[float]:
    scores: list[float] = []
    for passage in found:
        if passage.score is None:
            raise RetrieverError("passages come without scores; fuse them by rrf")
        scores.append(passage.score)
    least, span = min(scores, default=0), max(scores, default=0) - min(scores, default=0)
    return [(score - least) / span if span else 1.0 for score in scores]


class HybridRetriever:
    """Several places that are searched as one. Threads may share it where they may share those.

    Args:
        places: The inner places.
        fusion: How their lists become one.

    Raises:
        ValueError: the fusion has another number of weights.
    """

    def __init__(self, places: Sequence[InnerPlace], fusion: Fusion):
        fusion.weights_of(len(places))
        self.places, self.fusion = places, fusion

    @classmethod
    def open(cls, place: str) -> HybridRetriever:
        """Open the combined place in a folder.

        Raises:
            IndexDamagedError: the folder is damaged, or an inner place can't be opened.
            ConfigError: an inner place is on a host that the user did not name.
        """
        places, fusion = open_combined(Path(place), "hybrid", Fusion)
        try:
            return cls(places, fusion)
        except ValueError as error:
            raise IndexDamagedError(f"{place}: {error}; {COMBINE}") from None

    @classmethod
    def build(
        cls, passages: Iterable[Passage], place: Any, *, progress: bool = True, **settings: Any
    ) -> int:
        """There is nothing to build: a hybrid combines places that are there.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a hybrid combines places that are built: exsearch combine")

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The passages of all places, fused; at most `depth` of each place.

        Args:
            queries: The queries, as plain text; each place gets all of them in one call.
            k: The most passages a query.

        Raises:
            RetrieverError: the search of a place failed.
            TypeError: `queries` is one text.
            ValueError: `k` is below 1.
        """
        refuse_search(queries, k)
        if not queries:
            return []
        found = [place.search(queries, self.fusion.depth) for place in self.places]
        return [fuse(lists, self.fusion)[:k] for lists in zip(*found, strict=True)]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, from the first place that has them.

        Raises:
            RetrieverError: they can't be read.
            TypeError: `ids` is one text.
        """
        refuse_text("ids", ids)
        found: dict[str, Passage | None] = {}
        for place in self.places:
            missing = [id_ for id_ in dict.fromkeys(ids) if found.get(id_) is None]
            if missing:
                found |= zip(missing, place.fetch(missing), strict=True)
        return [found[id_] for id_ in ids]

    def identity(self) -> str:
        """A hash of the inner identities and of how the lists are fused."""
        return combined_identity("hybrid", self.fusion, self.places)
