"""Prefixes that sequences share: within one pass (`shared`), or among all so far (`PrefixTree`).

This module counts places; it holds no tensors.

Glossary:
    pass   One call of the model, over new tokens of many sequences.
    pool   Keys and values that are kept from pass to pass.
    place  Where the key and the value of one token lie: an index into a pool, or into the tokens of
           the pass itself.
    span   The new tokens of one sequence in a pass, with the places of the whole sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Span:
    """The new tokens of one sequence in a pass, with the places of the whole sequence.

    Attributes:
        start: The first new token, counted in the spans' tokens of the pass.
        new: The number of new tokens; they follow one another, and the last places are theirs.
        all_places: The places of the whole sequence of L tokens, new ones included, int64 (L,).
    """

    start: int
    new: int
    all_places: np.ndarray

    @property
    def alone(self) -> bool:
        """True where nothing stands before the new tokens."""
        return self.new == len(self.all_places)


def shared(
    sequences: Sequence[Sequence[int]], budget: int
) -> Iterator[tuple[list[int], list[Span]]]:
    """Passes over sequences, each with what they have in common encoded once.

    Args:
        sequences: The token ids of each sequence.
        budget: The most new tokens in one pass; a sequence with more has a pass of its own.

    Yields:
        For each pass the numbers of its sequences, and their spans; places count the tokens of the
        pass. A sequence that comes twice has a span without new tokens the second time.
    """
    # In sorted order a sequence has its longest common prefix with the one before it.
    tokens = [np.asarray(s, np.int64) for s in sequences]
    members: list[int] = []
    spans: list[Span] = []
    size, before, all_places = 0, np.empty(0, np.int64), np.empty(0, np.int64)
    for i in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        known = _common(before, tokens[i])
        if members and size + len(tokens[i]) - known > budget:
            yield members, spans
            members, spans, size, known = [], [], 0, 0
        new = len(tokens[i]) - known
        all_places = np.concatenate([all_places[:known], np.arange(size, size + new)])
        members.append(i)
        spans.append(Span(size, new, all_places))
        size, before = size + new, tokens[i]
    if members:
        yield members, spans


class PrefixTree:
    """A radix tree over token ids with one place a token.

    Where places run out, the branches that were not used for the longest time are forgotten first.

    Args:
        capacity: The number of places.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forget all sequences, so that every place is free."""
        self._root = _Node(np.empty(0, np.int64), np.empty(0, np.int64), None)
        # Taken from the end, so that the lowest places, whose memory is in use, come first.
        self._free = list(range(self.capacity - 1, -1, -1))
        self._clock = 0

    def grow(self, capacity: int) -> None:
        """Raise the number of places to `capacity`."""
        self._free[:0] = range(capacity - 1, self.capacity - 1, -1)
        self.capacity = max(self.capacity, capacity)

    def tick(self) -> None:
        """Begin a new round: what was found or added before it may be forgotten."""
        self._clock += 1

    def find(self, ids: Sequence[int]) -> np.ndarray:
        """The places of the longest known prefix of `ids`; they stay until the next round."""
        parts = [node.places[:same] for node, same in self._descend(np.asarray(ids, np.int64))]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def add(self, ids: Sequence[int], places: np.ndarray) -> None:
        """Remember token ids and their places.

        Args:
            ids: The token ids of a sequence.
            places: One place for each id; for a known prefix those that `find` gave.
        """
        tokens = np.asarray(ids, np.int64)
        way = list(self._descend(tokens))
        known = sum(same for _, same in way)
        if known == len(tokens):
            return
        node, same = way[-1] if way else (self._root, 0)
        if same < len(node.ids):  # they part within the node
            node = node.split(same)
        node.children[int(tokens[known])] = _Node(tokens[known:], places[known:], node, self._clock)

    def _descend(self, tokens: np.ndarray) -> Iterator[tuple[_Node, int]]:
        """The nodes along `tokens`, each with how many of its own are the same; marks them used."""
        node = self._root
        while len(tokens) and (child := node.children.get(int(tokens[0]))):
            child.used = self._clock
            same = _common(child.ids, tokens)
            yield child, same
            if same < len(child.ids):
                return
            node, tokens = child, tokens[same:]

    def take(self, count: int) -> np.ndarray | None:
        """Take `count` free places; None where even forgetting old branches leaves too few."""
        if len(self._free) < count:
            self._forget(count - len(self._free))
        if len(self._free) < count:
            return None
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return np.array(taken[::-1], np.int64)

    def give_back(self, places: np.ndarray) -> None:
        """Free places that no sequence needs any more."""
        self._free.extend(places.tolist())

    def _forget(self, count: int) -> None:
        """Cut leaves that were not used in this round, those unused longest first."""
        while count > 0:
            leaves = [n for n in self._root.walk() if not n.children and n.used < self._clock]
            if not leaves:
                return
            for leaf in sorted(leaves, key=lambda n: n.used):
                assert leaf.parent is not None
                del leaf.parent.children[int(leaf.ids[0])]
                self.give_back(leaf.places)
                count -= len(leaf.places)
                if count <= 0:
                    return


class _Node:
    """A run of tokens that follows the tokens of its parent; `used` is its latest round."""

    __slots__ = ("children", "ids", "parent", "places", "used")

    def __init__(self, ids: np.ndarray, places: np.ndarray, parent: _Node | None, used: int = 0):
        self.ids, self.places, self.parent, self.used = ids, places, parent, used
        self.children: dict[int, _Node] = {}

    def split(self, length: int) -> _Node:
        """Make the first `length` tokens a node of their own, and return that node."""
        assert self.parent is not None
        head = _Node(self.ids[:length], self.places[:length], self.parent, self.used)
        self.parent.children[int(self.ids[0])] = head
        self.ids, self.places, self.parent = self.ids[length:], self.places[length:], head
        head.children[int(self.ids[0])] = self
        return head

    def walk(self) -> list[_Node]:
        """All nodes below this one."""
        found, stack = [], list(self.children.values())
        while stack:
            node = stack.pop()
            found.append(node)
            stack.extend(node.children.values())
        return found


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """The length of the common prefix of two sequences of ids."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length
