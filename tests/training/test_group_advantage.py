"""Group advantage follows the clipped policy gradient, as worked out on a vocabulary of three."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from whole_loss import weighted_loss

from exsearch.records import StopReason
from exsearch.training.batches import mean_loss_tokens, policy_sequences
from exsearch.training.e_step import EStepConfig, weigh
from exsearch.training.m_step import m_step, usable_questions
from exsearch.training.recipe import MStepConfig

END = 2
P = torch.tensor([0.5, 0.25, 0.25])  # of the constant model


def log_probs_of(item, factor=1.0):
    """The item with each token's log p at sampling such that the ratio is now `factor`."""
    calls = tuple(
        dataclasses.replace(
            call, log_probs=tuple(math.log(P[i].item() / factor) for i in call.output_ids)
        )
        for call in item.trajectory.calls
    )
    return dataclasses.replace(item, trajectory=dataclasses.replace(item.trajectory, calls=calls))


def gradient(model, sequences, clip):
    model.zero_grad()
    loss = weighted_loss(model, sequences, clip=clip)
    loss.backward()
    return loss.item(), model.lm_head.bias.grad.clone()


@pytest.mark.parametrize("advantage", [1.5, -1.5])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_loss_and_gradient_by_hand(constant_model, weighted, advantage, ratio):
    """One sampled token 1: loss - min(r A, clip(r) A), and d r / d logits is r (e_1 - p)."""
    item = log_probs_of(weighted(([0], [1]), weight=advantage), ratio)
    loss, found = gradient(constant_model, policy_sequences(item), clip=0.2)
    clipped = min(max(ratio, 0.8), 1.2)
    assert loss == pytest.approx(-min(ratio * advantage, clipped * advantage), rel=1e-5)
    counts = ratio * advantage <= clipped * advantage  # else the clipped term is less, and constant
    expected = -advantage * ratio * (torch.tensor([0.0, 1.0, 0.0]) - P) * counts
    assert torch.allclose(found, expected, atol=1e-6)


def test_tokens_that_samples_share_are_clipped_each_by_its_own_sign(constant_model, weighted):
    """Two samples begin with the same token: one is to become likelier, the other less likely."""
    ratio, clip = 1.5, 0.2
    up = log_probs_of(weighted(([0], [1, 0]), weight=2.0, sample=0), ratio)
    down = log_probs_of(weighted(([0], [1, END]), weight=-1.0, sample=1), ratio)
    loss, found = gradient(
        constant_model, [*policy_sequences(up), *policy_sequences(down)], clip=clip
    )
    # Up is clipped at 1.2 and gives no gradient; down is not, as 1.5 is above 0.8.
    assert loss == pytest.approx(-(2 * 2.0 * 1.2 - 2 * 1.5), rel=1e-5)
    eye = torch.eye(3)
    expected = 1.5 * ((eye[1] - P) + (eye[END] - P))
    assert torch.allclose(found, expected, atol=1e-6)


def test_all_that_was_sampled_counts_and_the_gold_answer_nothing(weighted):
    item = log_probs_of(weighted(([0], [1, END]), ([0, 0], [0, 1, END]), answers=[(1, 1, END)]))
    first, second = policy_sequences(item)
    assert first.input_ids == (0, 1, END)
    assert second.input_ids == (0, 0, 0, 1, END)  # its own answer, not the gold one
    assert second.loss_weights == (0, 0, 1, 1, 1)
    assert mean_loss_tokens([item], policy=True) == 5
    assert policy_sequences(dataclasses.replace(item, weight=0.0)) == []
    calls = tuple(dataclasses.replace(call, log_probs=()) for call in item.trajectory.calls)
    unknown = dataclasses.replace(item.trajectory, calls=calls)
    with pytest.raises(ValueError, match="has no log p of its tokens"):
        policy_sequences(dataclasses.replace(item, trajectory=unknown))


def test_what_was_cut_off_has_reward_0_and_groups_without_variance_are_counted(
    tiny_engine, annotated
):
    right, other = annotated[0], annotated[1]
    cut = dataclasses.replace(
        right, answer="", answer_start=None, stop_reason=StopReason.MAX_TOKENS, sample=1
    )
    right = dataclasses.replace(right, answer=right.question.answers[0], sample=0)
    alike = [dataclasses.replace(other, answer="x", sample=n) for n in range(2)]
    config = EStepConfig(samples=2, weighting="group_advantage")
    items = weigh([right, cut, *alike], tiny_engine, config)
    assert [item.weight for item in items] == pytest.approx([1, -1, 0, 0], abs=1e-4)
    usable = usable_questions(items, -math.inf)
    assert (usable.questions, usable.no_signal) == ([[0, 1]], 1)


def test_an_m_step_makes_the_rewarded_sample_likelier(constant_model, weighted):
    model = constant_model
    good = log_probs_of(weighted(([0], [1, 1]), weight=1.0, sample=0))
    bad = log_probs_of(weighted(([0], [0, 0]), weight=-1.0, sample=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    config = MStepConfig(learning_rate=0.1, max_grad_norm=math.inf, rise_share=0.0)
    figures = m_step(model, optimizer, [good, bad], config, policy=True)
    after = torch.softmax(model.lm_head.bias.detach(), 0)
    assert after[1] > P[1] and after[0] < P[0]
    assert (figures["loss_tokens"], figures["mean_loss_tokens"]) == (4, 2.0)
    # By hand: Σ over tokens of -A (e - p) is -2 (e_1 - e_0), over 1 question x 2 tokens.
    logits = torch.log(P) + 0.1 * torch.tensor([-1.0, 1.0, 0.0])
    assert torch.allclose(after, torch.softmax(logits, 0), atol=1e-5)
