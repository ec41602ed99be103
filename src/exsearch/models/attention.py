"""Packed attention lets one forward pass hold many sequences, without padding and sharing prefixes.

All new tokens of a pass stand in one row, (1, N). A `Span` of them belongs to one sequence and says
where the keys and values of that whole sequence lie, so that a prefix that several sequences share
is encoded once and attended to by all. The model's own code runs unchanged: this is an attention
function registered with transformers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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
_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some models add to their scores


class States(NamedTuple):
    """What a layer attends with.

    Attributes:
        query: (N, H, D) of the pass's tokens.
        key: (N, G, D) likewise, for G groups of query heads.
        value: (N, G, D).
        scale: What the scores are multiplied by.
        window: Tokens that a token may look back to, itself included; 0 for all.
        dropout: Share of the attention weights left out at random, in training.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int
    dropout: float


class Store(Protocol):
    """Where a pass finds the keys and values that its spans name."""

    def attend(self, layer: int, states: States) -> Tensor:
        """Attention of the layer with this number, (N, H, D)."""
        ...


class PassOnly:
    """A `Store` of nothing but the pass itself; spans count its tokens. Gradients flow."""

    def __init__(self, spans: Sequence[Span], device: torch.device):
        self.new = [span.new for span in spans]
        self.lengths = [len(span.all_places) for span in spans]
        places = np.concatenate([span.all_places for span in spans])
        self.places = torch.from_numpy(places).to(device)
        self.masks: dict[tuple[int, int, int], Tensor | None] = {}
        self.windows: set[int] = set()  # that the model's layers asked for

    def attend(self, layer: int, states: States) -> Tensor:
        """See `Store.attend`."""
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
    """Causal attention of a sequence's last tokens, (T, H, D), to all of it, (G, L, D)."""
    query, key, value, scale, window, dropout = states
    new, (groups, length, width) = len(query), key.shape
    shape = (new, length, window)
    if shape not in masks:
        masks[shape] = _causal_mask(new, length, window, query)
    mask = masks[shape]
    # The groups take the place of a batch, so that no group's keys are copied for its heads.
    heads = query.view(new, groups, -1, width).permute(1, 2, 0, 3)  # (G, H/G, T, D)
    spread = (groups, heads.shape[1], length, width)
    out = scaled_dot_product_attention(
        heads,
        key[:, None].expand(spread),
        value[:, None].expand(spread),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and new > 1,
        scale=scale,
    )
    return out.permute(2, 0, 1, 3).reshape(new, -1, width)


def attend_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of one token a row, whose heads stand in groups, to what its row holds.

    Args:
        query: (B, G, H/G, D).
        key: (B, G, L, D).
        value: (B, G, L, D).
        mask: (B, 1, 1, L), 0 or -inf.
        scale: Of the scores.

    Returns:
        (B, G, H/G, D).
    """
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    # For so few queries two products are faster there than torch's kernel, the keys on the left.
    scores = (key @ (query * scale).transpose(2, 3)).transpose(2, 3)
    return torch.softmax(scores + mask, -1) @ value


def _causal_mask(new: int, length: int, window: int, like: Tensor) -> Tensor | None:
    """(new, length), 0 or -inf; None where `is_causal` says the same or nothing is hidden."""
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
    """Within, the model runs on packed rows (`packed_logits`), forwards and backwards.

    After, it is as it was. It may be entered again within. `weights` speeds up inference on a CPU.
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
    """Logits (M, V), float32 or wider, after the tokens that `wanted` counts.

    To be called within `packed_attention`. The language-model head is a large part of a small
    model's work: it sees only those. On a CPU a few tokens that nothing attends to may be added
    (`linear.padded_rows`).

    Args:
        model: A transformers causal language model for which `check_packable` holds.
        ids: (N,) the tokens of the pass.
        positions: (N,) each token's place in its own sequence.
        store: Knows the sequences.
        wanted: (M,) tokens of the pass.
    """
    tokens, count = len(ids), len(wanted)
    if ids.device.type == "cpu":
        spare = padded_rows(tokens) - tokens
        ids, positions = pad(ids, (0, spare)), pad(positions, (0, spare))
        wanted = pad(wanted, (0, padded_rows(count) - count))
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: (inputs[0][0, wanted],)
    )
    try:
        logits = model(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            store=store,
            tokens=tokens,
        ).logits[:count]
    finally:
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
    """What transformers calls: states are (1, H, N, D), of which the first `tokens` are real."""
    assert store is not None  # `packed_attention` is only entered with one
    if unknown := [n for n in _UNKNOWN if others.get(n) is not None]:
        raise ModelError(f"{type(module).__name__}: attention with {unknown[0]} is not supported")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states[0, :, :tokens].transpose(0, 1) for states in (query, key, value))
    out = store.attend(module.layer_idx, States(q, k, v, scale, sliding_window or 0, dropout))
    spare = query.shape[2] - tokens
    return (pad(out, (0, 0, 0, 0, 0, spare)) if spare else out)[None], None


AttentionInterface.register(NAME, _attention)


def check_packable(model: Any) -> None:
    """Make sure that packing does not change what this model computes.

    Raises:
        ModelError: its layers mix tokens in ways that a packed pass does not know of.
    """
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    name = type(model).__name__
    if others := kinds - _ATTENTION_LAYERS:
        raise ModelError(f"{name} has {sorted(others)[0]} layers, which are not supported here")
    device = next(model.parameters()).device
    tokens = torch.arange(1, 6, device=device) % model.config.get_text_config().vocab_size
    spans = [Span(0, 4, np.arange(4)), Span(4, 1, np.array([0, 1, 4]))]
    positions = torch.tensor([0, 1, 2, 3, 2], device=device)
    with torch.inference_mode():
        last = torch.tensor([3, 4], device=device)
        with packed_attention(model):
            store = PassOnly(spans, device)
            packed = packed_logits(model, tokens, positions, store, last)
        plain = [
            model(input_ids=row[None], use_cache=False).logits[0, -1].to(packed.dtype)
            for row in (tokens[:4], tokens[[0, 1, 4]])
        ]
    if "sliding_attention" in kinds and store.windows == {0}:
        raise ModelError(f"{name} keeps its attention window to itself, which is not supported")
    scale = max(1.0, *(float(p.abs().max()) for p in plain))
    tolerance = scale * (0.1 if model.dtype in (torch.bfloat16, torch.float16) else 1e-3)
    if any(
        not torch.allclose(a, b, atol=tolerance, rtol=0, equal_nan=True)
        for a, b in zip(packed, plain, strict=True)
    ):
        raise ModelError(f"{name} mixes tokens in ways that packing does not know; not supported")
