"""Lists are fused as the formulas say, by hand; a place that fails fails the search."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from exsearch.config import parse_config
from exsearch.errors import ConfigError, RetrieverError
from exsearch.records import Passage
from exsearch.retrievers.hybrid import Fusion, HybridRetriever, fuse
from exsearch.retrievers.inner import InnerPlace


def scored(**scores: float | None) -> list[Passage]:
    return [Passage(id_, "", "", score) for id_, score in scores.items()]


def result(lists: Sequence[list[Passage]], fusion: Fusion) -> list[tuple[str, float | None]]:
    return [(passage.id, passage.score) for passage in fuse(lists, fusion)]


def test_reciprocal_ranks_by_hand():
    one, other = scored(a=9.0, b=8.0, c=7.0), scored(c=0.3, d=0.2, a=0.1)
    found = result([one, other], Fusion())
    assert found == [
        ("a", 1 / 61 + 1 / 63),
        ("c", 1 / 63 + 1 / 61),  # as good as a, which stands in the earlier list
        ("b", 1 / 62),
        ("d", 1 / 62),
    ]
    assert result([one, other], Fusion(rrf_k=0, weights=(1, 3))) == [
        ("c", 1 / 3 + 3),
        ("a", 1 + 3 / 3),
        ("d", 3 / 2),
        ("b", 1 / 2),
    ]


def test_ranks_need_no_scores():
    assert [p.id for p in fuse([scored(a=None, b=None), scored(b=None)], Fusion())] == ["b", "a"]


def test_weighted_scores_by_hand():
    one, other = scored(a=9.0, b=8.0, c=7.0), scored(c=0.3, d=0.25, e=0.1)
    fusion = Fusion("weighted", weights=(1, 2))
    assert result([one, other], fusion) == [
        ("c", pytest.approx(0 * 1 + 1 * 2)),
        ("d", pytest.approx(0.75 * 2)),
        ("a", pytest.approx(1.0)),
        ("b", pytest.approx(0.5)),
        ("e", 0.0),
    ]


def test_equal_scores_of_a_list_count_as_found():
    assert result([scored(a=-3.0), scored(b=2.0, c=2.0)], Fusion("weighted")) == [
        ("a", 1.0),
        ("b", 1.0),
        ("c", 1.0),
    ]
    assert fuse([[], []], Fusion("weighted")) == fuse([[], []], Fusion()) == []


def test_the_order_of_places_changes_no_score():
    lists = [scored(a=1.0, b=0.5), scored(b=1.0, c=0.7, a=0.5), scored(c=3.0, b=2.0, a=1.0)]
    for fusion in (Fusion(), Fusion("weighted")):
        expected = dict(result(lists, fusion))
        assert dict(result(lists[::-1], fusion)) == expected
        assert dict(result([lists[1], lists[2], lists[0]], fusion)) == expected


def test_weights_need_scores():
    with pytest.raises(RetrieverError, match="without scores; fuse them by rrf"):
        fuse([scored(a=None)], Fusion("weighted"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1, 0]}, "expected numbers above 0"),
        ({"weights": [1, -1]}, "expected numbers above 0"),
        ({"weights": ["inf"]}, "expected numbers above 0"),
        ({"weights": ["nan"]}, "expected numbers above 0"),
        ({"weights": ["a"]}, "weights.0"),
        ({"depth": 0}, "depth is 0"),
        ({"rrf_k": -1}, "rrf_k is -1"),
        ({"rrf_k": "nan"}, "rrf_k is nan"),
        ({"fusion": "sum"}, "fusion"),
    ],
)
def test_settings_that_can_not_be_used(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_config(Fusion, settings)
    with pytest.raises(ValueError, match="3 weights for 2 places"):
        fuse([[], []], Fusion(weights=(1, 1, 1)))


class Fixed:
    """A place that gives the same passages for any query, and counts."""

    def __init__(self, name: str, found: list[Passage], fault: object = None):
        self.name, self.found, self.fault = name, found, fault
        self.calls: list[tuple[list[str], int]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.calls.append((list(queries), k))
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault is not None:
            return self.fault  # type: ignore[return-value]
        return [self.found[:k] for _ in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        known = {p.id: p for p in self.found}
        self.calls.append((list(ids), 0))
        return [known.get(id_) for id_ in ids]

    def identity(self) -> str:
        return self.name


def hybrid(*places: Fixed, fusion: Fusion | None = None) -> HybridRetriever:
    inner = [InnerPlace(f"place {place.name}", place) for place in places]
    return HybridRetriever(inner, fusion or Fusion())


def test_a_batch_is_one_call_of_each_place():
    one, other = Fixed("1", scored(a=2.0, b=1.0)), Fixed("2", scored(b=2.0, c=1.0))
    found = hybrid(one, other, fusion=Fusion(depth=2)).search(["x", "y", "x"], 1)
    assert [[p.id for p in list_] for list_ in found] == [["b"], ["b"], ["b"]]
    assert one.calls == other.calls == [(["x", "y", "x"], 2)]
    assert hybrid(one).search([], 3) == []


@pytest.mark.parametrize(
    "fault",
    [
        RetrieverError("it is down"),
        RuntimeError("it is down"),
        ["it is down"],
        [[Passage("a", "", "", float("nan"))]],
        [[]] * 3,
    ],
)
def test_a_place_that_fails_fails_the_search(fault: object):
    well, ill = Fixed("1", scored(a=1.0)), Fixed("2", [], fault)
    for places in ((well, ill), (ill, well)):
        with pytest.raises(RetrieverError, match="place 2"):
            hybrid(*places).search(["x"], 3)


def test_passages_are_fetched_where_they_are():
    one, other = Fixed("1", scored(a=None)), Fixed("2", scored(b=None, a=None))
    found = hybrid(one, other).fetch(["b", "none", "a", "b"])
    assert [p and p.id for p in found] == ["b", None, "a", "b"]
    assert other.calls == [(["b", "none"], 0)]
    hybrid(one, other).fetch(["a"])
    assert len(other.calls) == 1


def test_the_identity_is_that_of_the_places_and_the_settings():
    one, other = Fixed("1", []), Fixed("2", [])
    identities = {
        hybrid(one, other).identity(),
        hybrid(other, one).identity(),
        hybrid(one, other, fusion=Fusion("weighted")).identity(),
        hybrid(one, other, fusion=Fusion(weights=(1, 2))).identity(),
        hybrid(one, other, fusion=Fusion(depth=10)).identity(),
    }
    assert len(identities) == 5
    assert hybrid(one, other).identity() in identities
