"""Only what the model sampled, and the gold answer, carries loss; everything else exactly none."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.records import (
    Call,
    CallKind,
    Question,
    StopReason,
    Trajectory,
    WeightedTrajectory,
)
from exsearch.training.batches import (
    TrainingSequence,
    mean_loss_tokens,
    merged,
    micro_batches,
    training_sequences,
    without_negligible,
)

ids = st.lists(st.integers(0, 9), min_size=1, max_size=6).map(tuple)
END = 2


def test_outputs_carry_the_weight_and_prompts_none(weighted):
    item = weighted(([5, 6, 7], [3, END]), ([8, 9], [4, 4, 9, END]), weight=0.5, answer_start=2)
    first, last = training_sequences(item)
    assert first.input_ids == (5, 6, 7, 3, END)
    assert first.loss_weights == (0, 0, 0, 0.5, 0.5)  # the call's end token is an action too
    # the sampled answer (9, END) is gone, the gold answer (1, END) stands in its place
    assert last.input_ids == (8, 9, 4, 4, 1, END)
    assert last.loss_weights == (0, 0, 0.5, 0.5, 0.5, 0.5)
    assert first.sources == last.sources == ("q#0",)


def test_a_forced_frame_carries_no_loss(weighted):
    frame = [6, 7]  # stands at the end of the prompt
    item = weighted(([5, *frame], [9, END]), answer_start=0, stop_reason=StopReason.MAX_STEPS)
    (sequence,) = training_sequences(item)
    assert sequence.input_ids == (5, 6, 7, 1, END)
    assert sequence.loss_weights == (0, 0, 0, 1, 1)


def test_accepted_answers_share_the_weight(weighted):
    item = weighted(
        ([5], [3, END]), ([8], [4, 9, END]),
        weight=0.8, answers=[(1, END), (6, 7, END)], shares=[0.75, 0.25],
    )  # fmt: skip
    thought, first, second = training_sequences(item)
    assert thought.loss_weights == (0, 0.8, 0.8)
    assert first.input_ids == (8, 4, 1, END)
    assert first.loss_weights == pytest.approx((0, 0.6, 0.6, 0.6))
    assert second.input_ids == (8, 4, 6, 7, END)
    assert second.loss_weights == pytest.approx((0, 0.2, 0.2, 0.2, 0.2))
    # z before the answer is in both, and counts once in all
    assert first.loss_weights[1] + second.loss_weights[1] == pytest.approx(0.8)


def test_without_weight_or_answer_there_is_nothing_to_learn(weighted):
    call = ([5], [3, 9, END])
    assert training_sequences(weighted(call, weight=0.0)) == []
    hopeless = weighted(call, answer_start=None, stop_reason=StopReason.MALFORMED)
    hopeless = dataclasses.replace(hopeless, answer_log_probs=(), answer_ids=())
    assert training_sequences(hopeless) == []


def test_a_transcript_is_one_sequence(weighted):
    # each prompt is all that was seen and written before, a user turn (6), and so on
    one, two, three = [5], [5, 3, END, 6], [5, 3, END, 6, 4, END, 6]
    item = weighted((one, [3, END]), (two, [4, END]), (three, [7, 9, END]))
    (sequence,) = training_sequences(item)
    assert sequence.input_ids == (5, 3, END, 6, 4, END, 6, 7, 1, END)
    assert sequence.loss_weights == (0, 1, 1, 0, 1, 1, 0, 1, 1, 1)


def test_a_prompt_that_only_begins_alike_is_no_continuation(weighted):
    item = weighted(([5], [3, END]), ([5, 3, 7], [4, END]), ([5, 3, END], [7, 9, END]))
    assert [s.input_ids for s in training_sequences(item)] == [
        (5, 3, END),
        (5, 3, 7, 4, END),
        (5, 3, END, 7, 1, END),
    ]


@given(
    st.lists(st.tuples(ids, ids), min_size=1, max_size=4),
    st.lists(ids, min_size=1, max_size=3),
    st.floats(0.01, 1),
    st.data(),
)
def test_total_loss_weight_is_what_was_sampled_and_the_gold_answers(calls, answers, weight, data):
    """Whatever the calls are: Σ weights = w · (latent tokens + Σ_j r_j · tokens of answer j)."""
    start = data.draw(st.integers(0, len(calls[-1][1]) - 1))
    trajectory = Trajectory(
        Question("q", "?", ("a",)), (), tuple(Call(CallKind.THINK, p, o) for p, o in calls),
        "a", StopReason.ANSWERED, answer_start=start,
    )  # fmt: skip
    item = WeightedTrajectory(trajectory, weight, (-1.0,) * len(answers), tuple(answers))
    sequences = training_sequences(item)
    latent = sum(len(o) for _, o in calls[:-1]) + start
    expected = weight * (latent + sum(map(len, answers)) / len(answers))
    assert math.fsum(w for s in sequences for w in s.loss_weights) == pytest.approx(expected)
    assert all(len(s.input_ids) == len(s.loss_weights) for s in sequences)
    assert all(s.loss_weights[0] == 0 for s in sequences)  # nothing predicts the first token
    assert mean_loss_tokens([item]) == pytest.approx(expected / weight)


def sequence(pairs):
    ids, weights = zip(*pairs, strict=True)
    return TrainingSequence(ids, (0.0, *weights[1:]), ("q#0",))


weighted_ids = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.25, 1.0])), min_size=2, max_size=6
).map(sequence)


@given(st.lists(weighted_ids, min_size=1, max_size=8), st.integers(1, 30))
def test_micro_batches_hold_each_prefix_once_with_all_of_its_weight(sequences, budget):
    """By brute force: per pass, a distinct prefix that carries loss is one target."""
    found: dict[tuple[int, ...], float] = {}
    for batch in micro_batches(sequences, budget):
        prefix_of = {}
        for span in batch.spans:
            ids = batch.ids[span.all_places].tolist()
            for n, place in enumerate(span.all_places.tolist()):
                prefix_of[place] = tuple(ids[: n + 1])
                assert batch.positions[place] == n
        assert len(set(prefix_of.values())) == len(batch.ids)
        targets = [
            (*prefix_of[p], t)
            for p, t in zip(batch.predictors.tolist(), batch.targets.tolist(), strict=True)
        ]
        assert len(set(targets)) == len(targets)
        for target, weight in zip(targets, batch.weights.tolist(), strict=True):
            found[target] = found.get(target, 0.0) + weight
    expected: dict[tuple[int, ...], float] = {}
    for s in sequences:
        for n, weight in enumerate(s.loss_weights):
            if weight:
                prefix = s.input_ids[: n + 1]
                expected[prefix] = expected.get(prefix, 0.0) + weight
    assert found == pytest.approx(expected)


def test_equal_sequences_are_merged_and_their_weights_added():
    a = TrainingSequence((1, 2), (0.0, 0.25), ("q#0",))
    b = TrainingSequence((1, 2), (0.0, 0.5), ("q#1",))
    other = TrainingSequence((1, 3), (0.0, 0.1), ("q#2",))
    assert merged([a, other, b]) == [
        TrainingSequence((1, 2), (0.0, 0.75), ("q#0", "q#1")),
        other,
    ]


def test_a_trajectory_is_negligible_by_its_weight_and_not_by_its_answers(weighted):
    """Four equal samples with six equal answers: each w_k · r_kj is 1/24, none is negligible."""
    answers = [(n, END) for n in range(3, 9)]
    samples = [
        weighted(([5], [3 + k, 9, END]), weight=0.25, answers=answers, sample=k) for k in range(4)
    ]
    assert without_negligible(samples, 0.05) == (samples, 0.0)
    many = [weighted(([5], [k, 9, END]), weight=0.01, sample=k) for k in range(100)]
    assert without_negligible(many, 0.05) == (many, 0.0)  # nor is one of a hundred


def test_a_negligible_answer_hands_its_part_to_the_others(weighted):
    """By hand: w_1 = 0.8 with r = 0.72, 0.27, 0.01; w_2 = 0.02 is below 0.05 · 0.8."""
    large = weighted(
        ([5], [3, END]), ([8], [4, 9, END]),
        weight=0.8, answers=[(1, END), (6, 7, END), (6, 9, END)], shares=[0.72, 0.27, 0.01],
    )  # fmt: skip
    small = weighted(([8], [4, 9, END]), weight=0.02, sample=1)
    (kept,), left_out = without_negligible([large, small], 0.05)
    assert left_out == pytest.approx(0.8 * 0.01 + 0.02)
    assert kept.answer_ids == ((1, END), (6, 7, END))
    thought, first, second = training_sequences(kept)
    assert thought.loss_weights == (0, 0.8, 0.8)
    assert first.loss_weights[1:] == pytest.approx([0.8 * 0.72 / 0.99] * 3)
    assert second.loss_weights[1:] == pytest.approx([0.8 * 0.27 / 0.99] * 4)
    # z carries w_k in all, as if there were no third answer
    assert first.loss_weights[1] + second.loss_weights[1] == pytest.approx(0.8)
    assert without_negligible([large, small], 0.0) == ([large, small], 0.0)
    assert without_negligible([], 0.05) == ([], 0.0)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.lists(st.floats(-60, 0), min_size=1, max_size=7),
    st.floats(0, 0.9),
)
def test_every_token_of_z_carries_all_of_its_weight(weights, scores, least):
    """By brute force, in transcript context: Σ_j of the weights on each token of z is w_k."""
    calls = (
        Call(CallKind.THINK, (5,), (3, END)),
        Call(CallKind.THINK, (5, 3, END, 6), (4, 9, END)),
    )
    trajectory = Trajectory(
        Question("q", "?", ("a",)), (), calls, "a", StopReason.ANSWERED, answer_start=1
    )
    answers = tuple((10 + j, END) for j in range(len(scores)))
    samples = [WeightedTrajectory(trajectory, w, tuple(scores), answers) for w in weights]
    kept, left_out = without_negligible(samples, least)
    for item in kept:
        sequences = training_sequences(item)
        for place in (1, 2, 4):
            z = sum(s.loss_weights[place] for s in sequences)
            assert z == pytest.approx(item.weight)
    found = sum(item.weight for item in kept)
    assert found >= max(weights)  # the heaviest stays
    total = sum(weights)
    best = max(scores)
    shares = [math.exp(score - best) for score in scores]
    lost = sum(share for share in shares if share < least) / sum(shares)
    dropped = sum(w for w in weights if w < least * max(weights))
    assert left_out == pytest.approx(dropped + (total - dropped) * lost, abs=1e-12)


def test_mean_loss_tokens_passes_over_what_carries_none(weighted):
    long = weighted(([5], [3, 3, 3, END]), ([8], [4, 9, END]), weight=0.9)  # 4 + 1 + 2
    short = weighted(([8], [4, 9, END]), weight=0.1)  # 1 + 2
    unweighted = weighted(([5], [3] * 50), weight=0.0)
    assert mean_loss_tokens([long, short, unweighted]) == pytest.approx((7 + 3) / 2)
    assert mean_loss_tokens([unweighted]) == 0.0
