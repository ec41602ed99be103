"""Packed attention lets one forward pass hold many sequences, without padding and sharing prefixes.

All new tokens of a pass stand side by side, (1, N). A `Span` of them belongs to one sequence and
says where the keys and values of that whole sequence lie, so that a prefix that several sequences
share is encoded once and attended to by all. The model's own code runs unchanged: this is an
attention function registered with transformers. It decides neither what a pass holds nor what is
kept of it.

Glossary:
    pass   One call of the model, over N new tokens of many sequences.
    span   The new tokens of one sequence in a pass, with the places of the whole sequence.
    place  Where a store holds the key and the value of one token.
    row    A sequence that adds one token to a pass; its keys and values lie side by side.
    group  Query heads that share keys and values: H heads of size D in G groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from exsearch.errors import ModelError
from exsearch.models.linear import PackedWeights, onednn_linear, padded_rows
from exsearch.models.prefixes import Span

NAME = "exsearch_packed"
# The pass that runs, for models that don't hand on to their layers what they are called with.
_RUNNING: ContextVar[tuple[Store, int] | None] = ContextVar("running", default=None)
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # some models change their scores by these


class States(NamedTuple):
    """The tensors and settings that a layer attends with.

    Attributes:
        query: The queries of the pass's tokens, (N, H, D).
        key: The keys of the pass's tokens, (N, G, D); `attend_span` takes (G, L, D).
        value: The values of the pass's tokens, in the shape of `key`.
        scale: The factor that scores are multiplied by.
        window: The number of tokens that a token looks back to, itself included; 0 is all.
        dropout: The share of the attention weights that is left out at random, in training.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int
    dropout: float


class Store(Protocol):
    """Holds the keys and values that the spans of a pass name, and attends to them."""

    def attend(self, layer: int, states: States) -> Tensor:
        """Attend from the tokens of a pass to their sequences.

        Args:
            layer: The layer's number, from 0.
            states: The queries, keys and values of the pass's tokens.

        Returns:
            What each token reads, (N, H, D).
        """
        ...


class PassOnly:
    """A `Store` of nothing but the pass itself, whose places are its tokens. Gradients flow.

    Args:
        spans: The sequences of the pass, each with one new token at least.
        device: The device of the pass.

    Attributes:
        new: The number of new tokens of each span.
        lengths: The number of tokens of each span's whole sequence.
        places: The places of all spans, one span after the other.
        masks: The masks that were made so far, by new tokens, length and window.
        windows: The attention windows that the model's layers asked for; 0 is none.
    """

    def __init__(self, spans: Sequence[Span], device: torch.device):
        self.new = [span.new for span in spans]
        self.lengths = [len(span.all_places) for span in spans]
        places = np.concatenate([span.all_places for span in spans])
        self.places = torch.from_numpy(places).to(device)
        self.masks: dict[tuple[int, int, int], Tensor | None] = {}
        self.windows: set[int] = set()

    def attend(self, layer: int, states: States) -> Tensor:
        """Attend from the tokens of the pass to their sequences: `Store.attend`.

        Args:
            layer: The layer's number, which plays no part: nothing is kept.
            states: The queries (N, H, D), keys and values (N, G, D) of the pass.

        Returns:
            What each token reads, (N, H, D).
        """
        query, key, value, scale, window, dropout = states
        self.windows.add(window)
        # Gathered and split at once: a slice a span would give each a gradient of full size.
        parts = zip(
            query.split(self.new),
            key.transpose(0, 1).index_select(1, self.places).split(self.lengths, 1),
            value.transpose(0, 1).index_select(1, self.places).split(self.lengths, 1),
            strict=True,
        )
        return torch.cat(
            [attend_span(States(*qkv, scale, window, dropout), self.masks) for qkv in parts]
        )


def attend_span(states: States, masks: dict[tuple[int, int, int], Tensor | None]) -> Tensor:
    """Causal attention of a sequence's last tokens to the whole sequence.

    Args:
        states: The queries of the last T tokens, (T, H, D); keys and values of all L, (G, L, D).
        masks: Masks by T, L and window, which other spans and layers use again; a new one is added.

    Returns:
        What each of the last tokens reads, (T, H, D).
    """
    query, key, value, scale, window, dropout = states
    new, (groups, length, width) = len(query), key.shape
    shape = (new, length, window)
    if shape not in masks:
        masks[shape] = _causal_mask(new, length, window, query)
    mask = masks[shape]
    # The groups take the place of a batch, so that no group's keys are copied for its heads.
    heads = query.view(new, groups, -1, width).permute(1, 2, 0, 3)  # (G, H/G, T, D)
    spread = (-1, heads.shape[1], -1, -1)
    out = scaled_dot_product_attention(
        heads,
        key[:, None].expand(spread),
        value[:, None].expand(spread),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and new > 1,
        scale=scale,
    )
    return out.permute(2, 0, 1, 3).reshape(new, -1, out.shape[-1])


def attend_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of one token a row to what its row holds.

    Args:
        query: The queries of the B tokens, heads in groups, (B, G, H/G, D).
        key: The keys of the rows, (B, G, L, D).
        value: The values of the rows, (B, G, L, D).
        mask: What is added to the scores, (B, 1, 1, L): 0, or -inf where a row holds nothing.
        scale: The factor that scores are multiplied by.

    Returns:
        What each token reads, (B, G, H/G, D).
    """
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    # For so few queries two products are faster there than torch's kernel, the keys on the left.
    scores = (key @ (query * scale).transpose(2, 3)).transpose(2, 3)
    return torch.softmax(scores + mask, -1) @ value


def _causal_mask(new: int, length: int, window: int, like: Tensor) -> Tensor | None:
    """A mask of 0 and -inf, (new, length); None where `is_causal` does it or nothing is hidden."""
    windowed = bool(window) and length > window
    if not windowed and (new == length or new == 1):
        return None
    at = torch.arange(length - new, length, device=like.device)[:, None]
    column = torch.arange(length, device=like.device)
    hidden = column > at
    if windowed:
        hidden |= column <= at - window
    return like.new_zeros(new, length).masked_fill_(hidden, -torch.inf)


@contextlib.contextmanager
def packed_attention(model: Any, weights: PackedWeights | None = None) -> Iterator[None]:
    """Let a model run on packed passes (`packed_logits`), forwards and backwards.

    Afterwards the model is as it was before. The context may be entered again within itself.

    Args:
        model: A transformers causal language model.
        weights: The model's packed weights, which speed up inference on a CPU; None does without.
    """
    configs = {id(c): c for c in (model.config, model.config.get_text_config())}.values()
    before = [(c, c._attn_implementation) for c in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = NAME
        with onednn_linear(model, weights):
            yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name


def packed_logits(
    model: Any, ids: Tensor, positions: Tensor, store: Store, wanted: Tensor
) -> Tensor:
    """Run one pass, within `packed_attention`, and return the logits after wanted tokens.

    The language-model head is a large part of a small model's work: only those tokens go through
    it. On a CPU a few tokens that nothing attends to may be added (`linear.padded_rows`).

    Args:
        model: A transformers causal language model for which `check_packable` holds.
        ids: The tokens of the pass, (N,).
        positions: Each token's index in its own sequence, (N,).
        store: The store that knows the spans of the pass.
        wanted: The tokens of the pass after which logits are wanted, (M,).

    Returns:
        The logits after the wanted tokens, (M, V), float32 or wider.
    """
    tokens, count = len(ids), len(wanted)
    if ids.device.type == "cpu":
        spare = padded_rows(tokens) - tokens
        ids, positions = pad(ids, (0, spare)), pad(positions, (0, spare))
        wanted = pad(wanted, (0, padded_rows(count) - count))
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: (inputs[0][0, wanted],)
    )
    running = _RUNNING.set((store, tokens))
    try:
        logits = model(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            store=store,
            tokens=tokens,
        ).logits[:count]
    finally:
        _RUNNING.reset(running)
        hook.remove()
    return logits if logits.dtype == torch.float64 else logits.float()


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    store: Store | None = None,
    tokens: int = 0,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for a layer: states are (1, H, N, D), the first `tokens` are real."""
    if store is None:
        if (running := _RUNNING.get()) is None:
            raise ModelError(
                f"{type(module).__name__}: m_step.gradient_checkpointing is not supported here; "
                "set it to false"
            )
        store, tokens = running
    if unknown := [n for n in _UNKNOWN if others.get(n) is not None]:
        raise ModelError(f"has attention with {unknown[0]}, which is not supported")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states[0, :, :tokens].transpose(0, 1) for states in (query, key, value))
    out = store.attend(module.layer_idx, States(q, k, v, scale, sliding_window or 0, dropout))
    spare = query.shape[2] - tokens
    return (pad(out, (0, 0, 0, 0, 0, spare)) if spare else out)[None], None


AttentionInterface.register(NAME, _attention)
