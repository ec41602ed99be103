"""The loss of several sequences at once, as a test wants it: one pass, whatever they share."""

from __future__ import annotations

from exsearch.models.attention import packed_attention
from exsearch.training.batches import micro_batches
from exsearch.training.m_step import batch_loss


def weighted_loss(model, sequences, clip=0.0):
    """- Σ weight · log p over all tokens of the sequences that carry loss."""
    (batch,) = micro_batches(sequences, 10**9)
    with packed_attention(model):
        return batch_loss(model, batch, clip)
