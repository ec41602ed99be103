"""The M-step minimises exactly the loss of the method; its steps can be worked out by hand."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch
from transformers import LlamaForCausalLM
from whole_loss import weighted_loss

from exsearch.errors import TrainingError
from exsearch.records import Question
from exsearch.training.batches import TrainingSequence, merged, training_sequences
from exsearch.training.m_step import (
    learning_rate,
    m_step,
    new_optimizer,
    steps_total,
    usable_questions,
)
from exsearch.training.recipe import MStepConfig

LOG2 = math.log(2)  # the constant model: -log p is LOG2 for token 0 and 2 · LOG2 for 1 and 2
END = 2


@pytest.fixture
def random_items(weighted):
    """Weighted trajectories of several questions, of very different lengths."""
    draw = random.Random(0)

    def ids(n):
        return [draw.randrange(3, 700) for _ in range(n)]

    def item(n, sample):
        question = Question(f"q{n}", "?", ("a",))
        calls = [(ids(draw.randrange(3, 20)), ids(draw.randrange(1, 12))) for _ in range(3)]
        answers = [ids(draw.randrange(1, 4)) for _ in range(2)]
        return weighted(
            *calls, weight=draw.random(), answers=answers, question=question, sample=sample
        )

    return [item(n, sample) for n in range(6) for sample in range(2)]


def gradient(model, sequences):
    model.zero_grad()
    loss = weighted_loss(model, sequences)
    loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(grads)


def plain_sgd(model):
    """An optimizer without a memory: its step shows the gradient."""
    return torch.optim.SGD(model.parameters(), lr=1.0)


# --- the loss ---


def test_the_loss_by_hand(constant_model, weighted):
    # Thought: prompt 1, output 0 2.  Last call: prompt 1 1, frame 0, answer 1 2.  Weight 1/2.
    #   L = 1/2 · [(1 + 2) + 1 + (2 + 2)] · log 2 = 4 · log 2
    item = weighted(([1], [0, END]), ([1, 1], [0, 0, END]), weight=0.5, answers=[(1, END)])
    loss = weighted_loss(constant_model, training_sequences(item))
    assert loss.item() == pytest.approx(4 * LOG2, rel=1e-6)


def test_the_loss_of_several_answers_by_hand(constant_model, weighted):
    # Frame 0; answers (0 2) with share 3/4 and (1 1 2) with share 1/4.  Weight 1.
    #   L = [1 + 3/4 · (1 + 2) + 1/4 · (2 + 2 + 2)] · log 2 = 4.75 · log 2
    item = weighted(([1], [0, 1, END]), answers=[(0, END), (1, 1, END)], shares=[0.75, 0.25])
    loss = weighted_loss(constant_model, training_sequences(item))
    assert loss.item() == pytest.approx(4.75 * LOG2, rel=1e-6)


def test_the_gradient_by_hand(constant_model):
    # d/d logits of -w · log p(0) is w · (p - onehot(0)) = (-1/4, 1/8, 1/8) for w = 1/2;
    # the head's bias gets it once for each token that carries loss, and for no other.
    sequence = TrainingSequence((1, 2, 1, 0), (0.0, 0.0, 0.0, 0.5), ("q#0",))
    weighted_loss(constant_model, [sequence]).backward()
    expected = torch.tensor([-0.25, 0.125, 0.125])
    assert torch.allclose(constant_model.lm_head.bias.grad, expected, atol=1e-7)


def test_prompts_and_passages_carry_exactly_none(constant_model, weighted):
    """On a model that does not look back, other prompts give the same loss to the last bit."""

    def loss(prompt, output, frame=0):
        item = weighted((prompt, output), ([1, 1], [frame, 0, END]))
        return weighted_loss(constant_model, training_sequences(item)).item()

    assert loss([1, 0, 2], [0, END]) == loss([2, 2, 0], [0, END]) == loss([0, 1, 1], [0, END])
    assert loss([1, 0, 2], [0, END]) != loss([1, 0, 2], [1, END])
    assert loss([1, 0, 2], [0, END]) != loss([1, 0, 2], [0, END], frame=1)


def test_states_that_predict_no_target_get_no_gradient(tiny_model, weighted):
    """The last state at t only predicts t + 1: it has a gradient where t + 1 is learned."""
    seen = []

    def keep(_module, _inputs, output):
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    tiny_model.model.register_forward_hook(keep)
    item = weighted(([5, 6, 7], [30, END]), ([8, 9, 10, 11], [40, 41, END]), answer_start=2)
    for sequence in training_sequences(item):
        seen.clear()
        weighted_loss(tiny_model, [sequence]).backward()
        moved = seen[0].grad[0].abs().sum(-1) > 0  # (T,)
        learned = [weight != 0 for weight in sequence.loss_weights]
        assert moved.tolist() == [*learned[1:], False]


def test_the_sampled_answer_is_not_a_target(tiny_model, weighted):
    def loss(sampled):
        item = weighted(([5, 6], [30, *sampled, END]), answers=[(50, 51, END)])
        return weighted_loss(tiny_model, training_sequences(item)).item()

    assert loss([60]) == loss([70, 71, 72])


def test_merging_leaves_loss_and_gradient_the_same(tiny_model, weighted):
    thought = ([5, 6, 7], [30, 31, END])
    items = [
        weighted(thought, ([8, 9], [40, 41, END]), weight=0.7, sample=0),
        weighted(thought, ([8, 9], [40, 42, END]), weight=0.2, sample=1),
        weighted(thought, ([8, 9, 10], [40, 42, END]), weight=0.1, sample=2),
    ]
    apart = [s for item in items for s in training_sequences(item)]
    together = merged(apart)
    assert (len(apart), len(together)) == (6, 3)
    (loss, grad), (merged_loss, merged_grad) = (gradient(tiny_model, s) for s in (apart, together))
    assert merged_loss == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(merged_grad, grad, rtol=0, atol=1e-6 * grad.abs().max().item())


def test_a_transcript_gives_the_same_loss_in_one_sequence_as_in_many(tiny_model, weighted):
    one = ([5, 6], [30, END])
    two = ([5, 6, 30, END, 7], [31, 32, END])
    three = ([5, 6, 30, END, 7, 31, 32, END, 8], [40, 9, END])
    chained = training_sequences(weighted(one, two, three, weight=0.5, answers=[(50, END)]))
    assert len(chained) == 1
    apart = [
        TrainingSequence((*p, *o), (*[0.0] * len(p), *[0.5] * len(o)), ("q#0",))
        for p, o in (one, two, (three[0], [40, 50, END]))
    ]
    (loss, grad), (apart_loss, apart_grad) = (gradient(tiny_model, s) for s in (chained, apart))
    assert loss == pytest.approx(apart_loss, rel=1e-6)
    assert torch.allclose(grad, apart_grad, rtol=0, atol=1e-6 * grad.abs().max().item())


def test_what_stands_beside_it_changes_nothing(tiny_model):
    short = TrainingSequence((5, 6, 30), (0.0, 0.0, 1.0), ("a",))
    long = TrainingSequence((7, *range(40, 70)), (0.0, *[0.5] * 30), ("b",))
    together = weighted_loss(tiny_model, [short, long]).item()
    apart = weighted_loss(tiny_model, [short]).item() + weighted_loss(tiny_model, [long]).item()
    assert together == pytest.approx(apart, rel=1e-6)


# --- the step ---


def one_step(model, items, **settings):
    """The figures of a single optimizer step over all items, and the change of all weights."""
    before = [p.detach().clone() for p in model.parameters()]
    config = MStepConfig(
        learning_rate=1.0, questions_per_step=100, max_grad_norm=1e9, min_weight=0.0, **settings
    )
    steps = []
    m_step(model, plain_sgd(model), items, config, on_step=steps.append)
    changes = zip(model.parameters(), before, strict=True)
    return steps, torch.cat([(p.detach() - b).flatten() for p, b in changes])


def test_micro_batches_leave_the_step_the_same(tiny_model_folder, random_items):
    results = []
    for budget in (1, 100, 100_000):
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        results.append(one_step(model, random_items, token_budget=budget))
    (few, change), *others = results
    assert change.abs().max() > 0
    for steps, other in others:
        assert steps[0]["loss"] == pytest.approx(few[0]["loss"], rel=1e-6)
        assert torch.allclose(other, change, rtol=0, atol=1e-5 * change.abs().max().item())


def test_a_step_is_divided_by_questions_and_mean_tokens(constant_model, weighted):
    # q0: thought 0 0 0 2, frame 0, answer 1 2: 7 tokens, (3 + 2 + 1 + 4) · log 2 = 10 · log 2
    # q1: frame 0, answer 1 2: 3 tokens, 5 · log 2.  Mean tokens 5, two questions.
    long = weighted(([1], [0, 0, 0, END]), ([1], [0, 1, END]), question=Question("q0", "?", ("a",)))
    short = weighted(([1], [0, 1, END]), question=Question("q1", "?", ("a",)))
    steps, _ = one_step(constant_model, [long, short])
    assert steps[0]["loss"] == pytest.approx((10 + 5) * LOG2 / (2 * 5), rel=1e-6)


def test_a_long_trajectory_is_not_weighed_down(constant_model, weighted):
    """A token weighs what its trajectory weighs, however many others stand beside it."""

    def change(tokens):
        first = weighted(
            ([1], [0] * tokens), ([1], [0, 1, END]), question=Question("q0", "?", ("a",))
        )
        second = weighted(([1], [0, 1, END]), question=Question("q1", "?", ("a",)))
        sequences = [s for item in (first, second) for s in training_sequences(item)]
        constant_model.zero_grad()
        weighted_loss(constant_model, sequences).backward()
        return constant_model.lm_head.bias.grad.clone()

    one_more = torch.tensor([-0.5, 0.25, 0.25])  # p - onehot(0), with weight 1
    assert torch.allclose(change(9) - change(8), one_more, atol=1e-5)
    assert torch.allclose(change(2) - change(1), one_more, atol=1e-5)


def test_what_is_left_out_is_told_as_a_share(tiny_model, weighted):
    questions = [Question(f"q{n}", "?", ("a",)) for n in range(2)]
    items = [
        weighted(([5], [30, 9, END]), weight=w, question=q, sample=k)
        for q in questions
        for k, w in enumerate((0.99, 0.01))
    ]
    for scale in (1.0, 1e-6):  # `likelihood` weights do not sum to 1
        scaled = [dataclasses.replace(i, weight=scale * i.weight) for i in items]
        figures = m_step(tiny_model, plain_sgd(tiny_model), scaled, MStepConfig(min_weight=0.05))
        assert figures["left_out_share"] == pytest.approx(0.01)
        assert (figures["sequences"], figures["loss_tokens"]) == (1, 3)
        figures = m_step(tiny_model, plain_sgd(tiny_model), scaled, MStepConfig(min_weight=0.0))
        assert figures["left_out_share"] == 0


@pytest.mark.parametrize("transcript", [False, True])
def test_equal_samples_with_equal_answers_teach_every_answer(constant_model, weighted, transcript):
    """K = 4, six answers, `min_weight` 0.05: each is learned with 1/6, and z with all of w_k.

    By hand on the constant model: thought 0 2, frame 0, an answer of one token and the end.
    """
    thought = ([1], [0, END])
    last = ([1, 0, END, 1] if transcript else [1, 1], [0, 0, END])
    answers = [(0, END), (1, END), (0, 0, END), (0, 1, END), (1, 0, END), (1, 1, END)]
    items = [weighted(thought, last, weight=0.25, answers=answers, sample=k) for k in range(4)]
    config = MStepConfig(learning_rate=1.0, min_weight=0.05, questions_per_step=1)
    steps = []
    figures = m_step(constant_model, plain_sgd(constant_model), items, config, on_step=steps.append)
    assert figures["left_out_share"] == 0
    # -log p in units of log 2: token 0 is 1, 1 and 2 are 2 each
    z = (1 + 2) + 1
    y = (3 + 4 + 4 + 5 + 5 + 6) / 6
    tokens = 3 + (2 + 2 + 3 + 3 + 3 + 3) / 6
    assert steps[0]["loss"] == pytest.approx((z + y) * LOG2 / tokens, rel=1e-6)


def test_usable_questions_count_what_they_leave_out(weighted):
    def item(n, weight, score):
        made = weighted(([5], [30, 9, END]), weight=weight, question=Question(f"q{n}", "?", ("a",)))
        return dataclasses.replace(made, answer_log_probs=(score,))

    good = [item(0, 0.9, -1.0), item(0, 0.1, -20.0)]
    hopeless = [item(1, 0.5, -9.0), item(1, 0.5, -9.5)]
    nothing = [item(2, 0.0, -math.inf)]
    chosen = usable_questions([*good, *hopeless, *nothing], min_log_likelihood=-8.0)
    assert chosen.questions == [[0, 1]]
    assert (chosen.no_signal, chosen.hopeless) == (1, 1)
    mixed = usable_questions([good[0], hopeless[0], good[1]], -8.0)
    assert mixed.questions == [[0, 2]]  # found by id, wherever they stand
    assert len(usable_questions([*good, *hopeless], -math.inf).questions) == 2


def test_learning_rate_by_hand():
    config = MStepConfig(learning_rate=1.0, rise_share=0.2)
    # 10 steps: a rise over 2, then half a cosine over 8
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[4] == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert rates[6] == pytest.approx(0.5)
    assert 0 < rates[9] < 0.04
    assert [learning_rate(0, 1, config), learning_rate(0, 0, config)] == [1.0, 1.0]


def test_steps_total():
    config = MStepConfig(epochs=3, questions_per_step=8)
    assert [steps_total(n, config) for n in (0, 1, 8, 9)] == [0, 3, 3, 6]


def test_the_loss_falls(tiny_model, random_items):
    config = MStepConfig(learning_rate=1e-3, epochs=8, questions_per_step=6)
    steps = []
    m_step(
        tiny_model, new_optimizer(tiny_model, config), random_items, config, on_step=steps.append
    )
    assert len(steps) == 8
    assert steps[-1]["loss"] < 0.9 * steps[0]["loss"]
    assert not tiny_model.training


def test_gradient_checkpointing_changes_nothing(tiny_model_folder, random_items):
    changes = []
    for checkpointing in (False, True):
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        _, change = one_step(model, random_items, gradient_checkpointing=checkpointing)
        changes.append(change)
    assert torch.allclose(*changes, rtol=0, atol=1e-6 * changes[0].abs().max().item())


def test_shared_prefixes_go_through_the_model_once(tiny_model, weighted):
    items = [
        weighted(([5, 6, 7, 8], [30 + k, END]), ([5, 6, 9], [40, 41, END]), weight=0.5, sample=k)
        for k in range(2)
    ]
    figures = m_step(tiny_model, plain_sgd(tiny_model), items, MStepConfig())
    # thoughts 5 6 7 8 (30|31) END share four tokens; the last calls are 5 6 9 40 1 END, the same
    assert figures["sequence_tokens"] == 6 + 6 + 6
    assert figures["tokens"] == 8 + 4


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_stopped_m_step_goes_on_with_the_same_bits(tiny_model_folder, random_items, dropout):
    config = MStepConfig(learning_rate=1e-3, epochs=2, questions_per_step=2)

    def fresh():
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder, attention_dropout=dropout)
        return model, new_optimizer(model, config)

    undisturbed, optimizer = fresh()
    whole = m_step(undisturbed, optimizer, random_items, config, seed="s")
    model, optimizer = fresh()

    def stop(figures):
        if figures["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        m_step(model, optimizer, random_items, config, seed="s", on_step=stop)
    torch.rand(7)  # whatever happened meanwhile
    rest = m_step(model, optimizer, random_items, config, seed="s", first_step=4)
    assert {**rest, "seconds": 0} == {**whole, "seconds": 0}  # counts are of the whole M-step
    for a, b in zip(undisturbed.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_sample(tiny_model, random_items):
    with torch.no_grad():
        tiny_model.model.norm.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"the loss is nan .* q\d#\d"):
        m_step(tiny_model, plain_sgd(tiny_model), random_items)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(tiny_model, weighted):
    weight = tiny_model.model.norm.weight
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=r"the gradient is not finite .* q#0;"):
        m_step(tiny_model, plain_sgd(tiny_model), [weighted(([5], [30, 9, END]))])
    assert torch.equal(weight, before)


def test_nothing_to_learn_takes_no_step(tiny_model, weighted):
    figures = m_step(tiny_model, plain_sgd(tiny_model), [weighted(([5], [30, 9, END]), weight=0.0)])
    assert (figures["questions"], figures["optimizer_steps"], figures["without_signal"]) == (
        0,
        0,
        1,
    )
