"""Shared prefixes stand once, and every sequence can be read back along its places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.models.prefixes import PrefixTree, shared

sequence = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)
sequences = st.lists(sequence, min_size=1, max_size=12)


def trie_size(sequences):
    """Distinct non-empty prefixes, by brute force."""
    return len({s[:n] for s in sequences for n in range(1, len(s) + 1)})


@given(sequences, st.integers(1, 40))
def test_passes_hold_every_sequence_and_each_prefix_once(sequences, budget):
    seen = []
    for members, spans in shared(sequences, budget):
        seen += members
        written = {}
        for i, span in zip(members, spans, strict=True):
            assert span.all_places[len(span.all_places) - span.new :].tolist() == list(
                range(span.start, span.start + span.new)
            )
            for place, token in zip(span.all_places.tolist(), sequences[i], strict=True):
                assert written.setdefault(place, token) == token
        assert sorted(written) == list(range(len(written)))
        assert len(written) == trie_size([sequences[i] for i in members])
        assert len(written) <= budget or len({sequences[i] for i in members}) == 1
    assert sorted(seen) == list(range(len(sequences)))


def test_one_pass_by_hand():
    ((members, spans),) = shared([(1, 2, 3), (1, 2), (1, 4), (1, 2, 3)], 100)
    assert members == [1, 0, 3, 2]
    assert [(s.start, s.new, s.all_places.tolist()) for s in spans] == [
        (0, 2, [0, 1]),
        (2, 1, [0, 1, 2]),
        (3, 0, [0, 1, 2]),
        (3, 1, [0, 3]),
    ]
    assert [s.alone for s in spans] == [True, False, False, False]


class Pool:
    """What the places of a tree hold, as the engine would fill them."""

    def __init__(self, capacity):
        self.tree, self.holds = PrefixTree(capacity), {}

    def encode(self, ids):
        """Encode what is new of `ids`; the number of new tokens, or None where it does not fit."""
        found = self.tree.find(ids)
        assert tuple(self.holds[p] for p in found.tolist()) == tuple(
            ids[: n + 1] for n in range(len(found))
        )
        places = self.tree.take(len(ids) - len(found))
        if places is None:
            return None
        for n, place in enumerate(places.tolist(), start=len(found)):
            self.holds[place] = ids[: n + 1]
        self.tree.add(ids, np.concatenate([found, places]))
        return len(places)


@given(sequences)
def test_a_tree_knows_what_was_added_and_encodes_each_prefix_once(sequences):
    pool = Pool(200)
    assert sum(pool.encode(s) for s in sequences) == trie_size(sequences)
    for s in sequences:
        assert len(pool.tree.find(s)) == len(s)


@given(st.lists(st.tuples(sequence, st.booleans()), max_size=40), st.integers(16, 24))
def test_a_full_tree_forgets_but_never_mixes_up(rounds, capacity):
    pool = Pool(capacity)
    for ids, new_round in rounds:
        if new_round:
            pool.tree.tick()
        if pool.encode(ids) is None:  # this round's own sequences fill it
            assert not new_round
            pool.tree.tick()
            assert pool.encode(ids) is not None
    pool.tree.clear()
    assert pool.tree.take(capacity) is not None


def test_the_longest_unused_go_first():
    pool = Pool(6)
    for ids in [(1, 1), (2, 2), (3, 3)]:
        pool.tree.tick()
        pool.encode(ids)
    pool.tree.tick()
    pool.tree.find((1, 1))  # used again
    pool.tree.tick()
    pool.encode((4, 4))
    known = [len(pool.tree.find(ids)) for ids in [(1, 1), (2, 2), (3, 3), (4, 4)]]
    assert known == [2, 0, 2, 2]


def test_places_of_this_round_are_not_taken_away():
    pool = Pool(4)
    assert pool.encode((1, 2, 3)) == 3
    assert pool.tree.take(2) is None
    pool.tree.tick()
    assert pool.tree.take(2) is not None


def test_a_tree_grows():
    tree = PrefixTree(2)
    assert tree.take(3) is None
    tree.grow(5)
    taken = tree.take(5)
    assert taken is not None and sorted(taken.tolist()) == [0, 1, 2, 3, 4]
    tree.give_back(taken[:1])
    assert tree.take(1).tolist() == taken[:1].tolist()


@pytest.mark.parametrize("ids", [(), (9,)])
def test_nothing_known_is_found_empty(ids):
    assert PrefixTree(4).find(ids).tolist() == []
