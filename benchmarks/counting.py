"""Counting says how much work a set of sequences is at least: distinct tokens, FLOP, bytes.

Two prompts that begin alike need their common beginning once, so the least work is one pass over
each node of the sequences' trie. Nothing here is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from benchmarks.machine import Ceiling
from exsearch.records import Call, Trajectory

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Trie:
    """The nodes of a trie of sequences, and the sum of their depths (a child of the root: 1)."""

    nodes: int
    depths: int


def trie(sequences: Sequence[Ids]) -> Trie:
    """Count the distinct prefixes of some sequences: in sorted order, those not in the one before.

    Example:
        >>> trie([(1, 2, 3), (1, 2, 4)])
        Trie(nodes=4, depths=9)
    """
    nodes = depths = 0
    before: Ids = ()
    for ids in sorted(sequences):
        shared = common_prefix(before, ids)
        nodes += len(ids) - shared
        depths += (len(ids) - shared) * (len(ids) + shared + 1) // 2
        before = ids
    return Trie(nodes, depths)


def common_prefix(a: Ids, b: Ids) -> int:
    """How many ids two sequences begin with alike."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a forward pass of a Llama-like model costs.

    Attributes:
        body: Weights that multiply every token: all linear layers but the head.
        head: Weights of the head (tied or not).
        attention: FLOP for one pair of a token and one that it attends to, itself included.
        cache: Bytes of keys and values of one token.
        weight: Bytes of one weight.
    """

    body: int
    head: int
    attention: int
    cache: int
    weight: int = 4

    @classmethod
    def of(cls, model: Any) -> Shape:
        """The shape of a transformers model."""
        config = model.config.get_text_config()
        head = model.get_output_embeddings().weight
        modules = (m for m in model.modules() if type(m).__name__ == "Linear")
        linear = {id(m.weight): m.weight.numel() for m in modules if m.weight is not head}
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        layers, bytes_ = config.num_hidden_layers, head.element_size()
        return cls(
            body=sum(linear.values()),
            head=head.numel(),
            # Two products of the head's width, scores and values: 2 FLOP an element each.
            attention=4 * layers * config.num_attention_heads * size,
            cache=2 * layers * config.num_key_value_heads * size * bytes_,
            weight=bytes_,
        )

    def flops(self, tokens: int, pairs: int, predictions: int) -> int:
        """FLOP for so many tokens, pairs that attend, and positions that need the head."""
        return 2 * self.body * tokens + self.attention * pairs + 2 * self.head * predictions

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights that a decoding step reads."""
        return (self.body + self.head) * self.weight


@dataclasses.dataclass(frozen=True)
class Work:
    """What rollouts of some trajectories asked for, and the least that they need.

    A token is distinct where no other call has the same ids up to it. All but the last of an output
    go through the model; each is drawn from logits at the position before it.
    """

    trajectories: int
    calls: int
    prompt_tokens: int
    output_tokens: int
    distinct_tokens: int  # of prompts and outputs
    distinct_prompt_tokens: int
    distinct_prompts: int

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> Work:
        """Count."""
        calls = [c for t in trajectories for c in t.calls]
        prompts = {c.prompt_ids for c in calls}
        return cls(
            trajectories=len(trajectories),
            calls=len(calls),
            prompt_tokens=sum(len(c.prompt_ids) for c in calls),
            output_tokens=sum(len(c.output_ids) for c in calls),
            distinct_tokens=trie([(*c.prompt_ids, *c.output_ids) for c in calls]).nodes,
            distinct_prompt_tokens=trie(list(prompts)).nodes,
            distinct_prompts=len(prompts),
        )


@dataclasses.dataclass(frozen=True)
class Floor:
    """Seconds at the machine's ceiling, by phase; and those of all products, however arranged.

    Passes that mix prompts and decoding may undercut the sum of the phases, never the products.
    """

    prompts: float
    decoding: float
    products: float

    @property
    def total(self) -> float:
        """Both phases, one after the other."""
        return self.prompts + self.decoding


def prompt_seconds(prompts: Sequence[Ids], shape: Shape, ceiling: Ceiling) -> float:
    """The floor of encoding prompts: each distinct token once, the head at each prompt's end."""
    nodes = trie(prompts)
    return shape.flops(nodes.nodes, nodes.depths, len(set(prompts))) / ceiling.flops


def step_seconds(rows: Sequence[Ids], shape: Shape, ceiling: Ceiling) -> float:
    """The floor of one decoding step that puts the last token of each row through the model.

    Equal rows are one. All weights are read once, and the keys and values of each distinct token
    before; the products and the reading may overlap.
    """
    distinct = set(rows)
    pairs = sum(map(len, distinct))
    flops = shape.flops(len(distinct), pairs, len(distinct))
    bytes_ = shape.weight_bytes + shape.cache * trie(list(distinct)).nodes
    return max(flops / ceiling.flops, bytes_ / ceiling.read)


def decoding_seconds(
    trajectories: Sequence[Sequence[Call]], shape: Shape, ceiling: Ceiling
) -> float:
    """The floor of decoding the calls of trajectories that run side by side, none ever waiting.

    The first step takes the first token of each, the second the next, of whichever call.
    """
    rows_of = [list(_decoded(calls)) for calls in trajectories]
    return sum(
        step_seconds([row for row in rows if row], shape, ceiling)
        for rows in zip_longest(*rows_of, fillvalue=())
    )


def _decoded(calls: Sequence[Call]) -> Iterator[Ids]:
    """What is in a row when each token that goes through the model does; the last does not."""
    for call in calls:
        for written in range(1, len(call.output_ids)):
            yield (*call.prompt_ids, *call.output_ids[:written])


def floor(trajectories: Sequence[Trajectory], shape: Shape, ceiling: Ceiling) -> Floor:
    """The floor of rolling out some trajectories."""
    calls = [c for t in trajectories for c in t.calls]
    prompts = [c.prompt_ids for c in calls]
    seen = trie([(*c.prompt_ids, *c.output_ids[:-1]) for c in calls])
    drawn = len(set(prompts)) + seen.nodes - trie(prompts).nodes
    return Floor(
        prompt_seconds(prompts, shape, ceiling),
        decoding_seconds([t.calls for t in trajectories], shape, ceiling),
        shape.flops(seen.nodes, seen.depths, drawn) / ceiling.flops,
    )
