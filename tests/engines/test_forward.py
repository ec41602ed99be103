"""One forward pass gives what a plain one with all logits gives, in batches that fit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from exsearch.engines.forward import padded, target_log_probs, token_batches  # noqa: E402

lengths = st.lists(st.integers(0, 60), max_size=20)


@given(lengths, st.integers(1, 200))
def test_batches_hold_everything_once_within_the_budget(lengths, budget):
    batches = list(token_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
        assert longest == lengths[batch[0]]


@given(lengths, st.integers(1, 200))
def test_the_longest_come_first_and_no_batch_could_join_the_next(lengths, budget):
    batches = list(token_batches(lengths, budget))
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch, following in pairwise(batches):
        assert following and (len(batch) + 1) * lengths[batch[0]] > budget


def test_sequences_are_padded_on_the_right():
    rows = padded([(1, 2, 3), (4,)], torch.device("cpu"), fill=9)
    assert rows.tolist() == [[1, 2, 3], [4, 9, 9]]


SEQUENCES = [(5, 6, 7, 8, 9, 10), (11, 12, 13), (14, 15)]
TARGETS = [(1, 3, 5), (2,), (1,)]


def scored(model, sequences, targets):
    ids = padded(sequences, torch.device("cpu"))
    marks = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(targets):
        marks[row, list(columns)] = True
    return target_log_probs(model, ids, marks)


def test_chosen_tokens_score_as_with_all_logits(tiny_engine):
    got = scored(tiny_engine.model, SEQUENCES, TARGETS)
    want = []
    for sequence, columns in zip(SEQUENCES, TARGETS, strict=True):
        logits = tiny_engine.model(input_ids=torch.tensor([sequence])).logits[0]
        log_p = torch.log_softmax(logits.double(), -1)
        want += [log_p[c - 1, sequence[c]].item() for c in columns]
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx(want, abs=1e-5)


def test_the_gradient_is_that_of_a_plain_pass(tiny_engine):
    model = tiny_engine.model
    weight = model.get_input_embeddings().weight
    try:
        (a,) = torch.autograd.grad(scored(model, SEQUENCES, TARGETS).sum(), weight)
        plain = torch.zeros(())
        for sequence, columns in zip(SEQUENCES, TARGETS, strict=True):
            logits = model(input_ids=torch.tensor([sequence])).logits[0]
            plain = plain + sum(torch.log_softmax(logits, -1)[c - 1, sequence[c]] for c in columns)
        (b,) = torch.autograd.grad(plain, weight)
    finally:
        model.zero_grad()
    assert a.abs().max() > 0
    assert torch.allclose(a, b, atol=1e-5)


def test_the_model_is_left_as_it_was(tiny_engine):
    head = tiny_engine.model.get_output_embeddings()
    scored(tiny_engine.model, SEQUENCES, TARGETS)
    assert not head._forward_pre_hooks
    ids = torch.tensor([[5, 10**6]])  # no such token: the pass fails
    with pytest.raises(IndexError):
        target_log_probs(tiny_engine.model, ids, torch.tensor([[False, True]]))
    assert not head._forward_pre_hooks
