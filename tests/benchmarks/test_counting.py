"""Tokens, FLOP and bytes are counted as one counts them by hand."""

from __future__ import annotations

import random

import pytest
from benchmarks.counting import (
    Shape,
    Trie,
    Work,
    common_prefix,
    decoding_seconds,
    floor,
    prompt_seconds,
    step_seconds,
    trie,
)
from benchmarks.machine import Ceiling

from exsearch.records import Call, CallKind, Question, StopReason, Trajectory

# body 10 weights, head 5; 3 FLOP a pair; 2 bytes of cache a token; 4 bytes a weight
SHAPE = Shape(body=10, head=5, attention=3, cache=2, weight=4)
COMPUTE_BOUND = Ceiling(flops=1.0, read=1e12, copy=1.0)
MEMORY_BOUND = Ceiling(flops=1e12, read=1.0, copy=1.0)


def test_a_trie_counts_each_common_beginning_once():
    assert trie([(1, 2, 3), (1, 2, 4), (1, 2), (5,)]) == Trie(nodes=5, depths=1 + 2 + 3 + 3 + 1)
    assert trie([]) == Trie(0, 0)
    assert trie([(1, 2), (1, 2)]) == trie([(1, 2)])


def test_a_trie_against_the_set_of_all_prefixes():
    draw = random.Random(0)
    sequences = [tuple(draw.choices((0, 1), k=draw.randint(1, 8))) for _ in range(50)]
    prefixes = {s[:n] for s in sequences for n in range(1, len(s) + 1)}
    assert trie(sequences) == Trie(len(prefixes), sum(map(len, prefixes)))


def test_common_prefix():
    assert common_prefix((1, 2, 3), (1, 2)) == 2
    assert common_prefix((1, 2), (1, 3)) == 1
    assert common_prefix((), (1,)) == 0


def test_flops_by_hand():
    assert SHAPE.flops(tokens=2, pairs=3, predictions=1) == 2 * 10 * 2 + 3 * 3 + 2 * 5


def test_the_shape_of_a_llama_by_hand(tiny_engine):
    shape = Shape.of(tiny_engine.model)
    # Two layers, width 48, 4 heads of 12 with 2 of keys and values, 96 within the MLP.
    assert shape.body == 2 * (48 * 48 + 2 * 48 * 24 + 48 * 48 + 3 * 48 * 96)
    assert shape.head == tiny_engine.model.config.vocab_size * 48
    # q·k and p·v: 12 products and sums each, for 4 heads in 2 layers.
    assert shape.attention == 2 * 4 * (2 * 12 + 2 * 12)
    assert shape.cache == 2 * (24 + 24) * 4


def test_prompts_that_begin_alike_are_encoded_once():
    # 4 nodes, depths 1 + 2 + 3 + 3; the head at two ends.
    assert prompt_seconds([(1, 2, 3), (1, 2, 4)], SHAPE, COMPUTE_BOUND) == SHAPE.flops(4, 9, 2)


def test_a_step_takes_the_longer_of_products_and_reading():
    rows = [(1, 2), (1, 3), (1, 3)]  # two distinct, three nodes
    assert step_seconds(rows, SHAPE, COMPUTE_BOUND) == SHAPE.flops(2, 4, 2)
    assert step_seconds(rows, SHAPE, MEMORY_BOUND) == 4 * (10 + 5) + 2 * 3


def call(prompt, output):
    return Call(CallKind.THINK, prompt, output)


def test_the_last_token_of_an_output_needs_no_step():
    calls = [[call((1,), (2, 3))], [call((1,), (4,))]]
    expected = step_seconds([(1, 2)], SHAPE, COMPUTE_BOUND)
    assert decoding_seconds(calls, SHAPE, COMPUTE_BOUND) == expected
    assert decoding_seconds(calls[1:], SHAPE, COMPUTE_BOUND) == 0


def test_no_trajectory_waits_for_another():
    """One decodes in its second call what the other does in its first: two steps, not three."""
    first = [call((1,), (2,)), call((3,), (4, 5))]
    second = [call((1,), (6, 7, 8))]
    expected = [[(3, 4), (1, 6)], [(1, 6, 7)]]
    assert decoding_seconds([first, second], SHAPE, MEMORY_BOUND) == sum(
        step_seconds(rows, SHAPE, MEMORY_BOUND) for rows in expected
    )


@pytest.fixture
def trajectories():
    question = Question("q", "Who?")
    calls = [[call((1, 2), (3, 4)), call((1, 5), (6,))], [call((1, 2), (3, 7))]]
    return [Trajectory(question, (), tuple(c), "", StopReason.ANSWERED) for c in calls]


def test_the_work_of_trajectories_by_hand(trajectories):
    assert Work.of(trajectories) == Work(
        trajectories=2,
        calls=3,
        prompt_tokens=6,
        output_tokens=5,
        distinct_tokens=7,  # 1, 12, 123, 1234, 1237, 15, 156
        distinct_prompt_tokens=3,
        distinct_prompts=2,
    )


def test_the_floor_of_trajectories_by_hand(trajectories):
    least = floor(trajectories, SHAPE, COMPUTE_BOUND)
    assert least.prompts == SHAPE.flops(3, 1 + 2 + 2, 2)
    assert least.decoding == SHAPE.flops(1, 3, 1)  # 123, the same in both trajectories
    assert least.total == least.prompts + least.decoding == least.products
