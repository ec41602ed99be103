"""The key/value cache of an engine: a pool of known prefixes, and one buffer for each live row.

Prompts are encoded into the pool, where equal prefixes share their places (`PrefixTree`). A
sequence that is being written has its keys and values side by side in a row of its own, so that one
attention call serves all rows. It holds no requests and samples nothing.

Glossary:
    pass    One call of the model, over new tokens of many sequences.
    pool    The keys and values of known prefixes.
    place   An index into the pool: where the key and the value of one token lie.
    span    The new tokens of one sequence in a pass, with the places of the whole sequence: a
            prompt, or what is to be scored.
    row     The buffer of one sequence that is being written, or that sequence.
    column  An index into a row: where the key and the value of one of its tokens lie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exsearch.engines.config import CACHE_SHARE
from exsearch.models.attention import States, attend_rows, attend_span
from exsearch.models.prefixes import PrefixTree, Span

_COLUMNS = 256  # rows grow by so many at a time
_MOST = 32768  # tokens: the prompts of a large batch of questions
_LEAST = 4096


@dataclasses.dataclass
class _Pass:
    """What the next pass holds: first a token for each writing row, then the spans.

    B rows write, and the pass has N tokens in all.
    """

    rows: Tensor  # (B,) the rows that write
    columns: Tensor  # (B,) where their new token goes
    height: int  # rows 0 to height - 1 are attended over
    mask: Tensor | None  # (height, 1, 1, W) added to the scores of W columns
    spans: Sequence[Span]
    span_places: list[Tensor]  # (L,) each, all places of a span
    places: Tensor  # (N - B,) of the spans' new tokens
    owners: Sequence[int]  # the row that each span becomes; -1 for none
    masks: dict[tuple[int, int, int], Tensor | None] = dataclasses.field(default_factory=dict)


def suitable_capacity(config: Any, dtype: torch.dtype, memory: int) -> int:
    """The number of places, a power of two, that suits a machine: `CACHE_SHARE` of its memory.

    Args:
        config: The model's text configuration.
        dtype: The type of its keys and values.
        memory: Bytes of memory in all, free or not: what is free changes from run to run, and with
            the places also which tokens share a pass, and so the last bits of their floats.
    """
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    token = 2 * config.num_hidden_layers * groups * width * dtype.itemsize
    places = int(CACHE_SHARE * memory / token)
    return min(_MOST, max(_LEAST, 1 << max(0, places.bit_length() - 1)))


class KeyValueCache:
    """A `Store` (see `attention`) for generation and scoring.

    Args:
        capacity: The number of places in the pool; it grows where a pass needs more.
        rows: The most rows; they get their memory when they are first used.
        device: The device of the keys and values.

    Attributes:
        tree: The known prefixes, and which places are theirs.
        row_count: The most rows.
        width: The number of columns of each row.
    """

    def __init__(self, capacity: int, rows: int, device: torch.device):
        self.tree = PrefixTree(capacity)
        self.row_count, self.width, self.device = rows, 0, device
        self._height = 0  # rows that have memory: one question does not need that of many
        # For each layer the pool's keys and values, (G, places, D), and the rows', (height, G, W,
        # D), for W columns and G groups of heads of size D.
        self._layers: dict[int, list[Tensor]] = {}
        self._pass: _Pass | None = None

    def take(self, count: int) -> np.ndarray:
        """Take `count` places of the pool, which grows where old prefixes leave too few."""
        places = self.tree.take(count)
        while places is None:
            self.tree.grow(max(2 * self.tree.capacity, self.tree.capacity + count))
            for layer in self._layers.values():
                layer[:2] = [_longer(t, self.tree.capacity, 1) for t in layer[:2]]
            places = self.tree.take(count)
        return places

    def widen(self, tokens: int) -> None:
        """Give every row at least so many columns."""
        if tokens > self.width:
            self.width = -(-tokens // _COLUMNS) * _COLUMNS
            for layer in self._layers.values():
                layer[2:] = [_longer(t, self.width, 2) for t in layer[2:]]

    def begin(
        self,
        rows: np.ndarray,
        lengths: np.ndarray,
        spans: Sequence[Span] = (),
        owners: Sequence[int] = (),
    ) -> None:
        """Say what the next pass holds.

        Args:
            rows: The rows that write one token each, (B,).
            lengths: The number of tokens that each of them holds already, (B,).
            spans: Prompts, or what is to be scored, with places of the pool.
            owners: For each span the row that it becomes, or -1.
        """
        self._have_rows(max(int(rows.max(initial=-1)), *owners, -1) + 1)
        height, mask = 0, None
        if len(rows):
            height, widest = int(rows.max()) + 1, int(lengths.max()) + 1
            held = np.ones(height, np.int64)  # an empty row sees one column, not none
            held[rows] = lengths + 1
            visible = torch.arange(widest) < torch.from_numpy(held)[:, None]
            mask = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)[:, None, None]
        new = [s.all_places[len(s.all_places) - s.new :] for s in spans]
        self._pass = _Pass(
            self._tensor(rows),
            self._tensor(lengths),
            height,
            None if mask is None else mask.to(self.device),
            spans,
            [self._tensor(s.all_places) for s in spans],
            self._tensor(np.concatenate([np.empty(0, np.int64), *new])),
            owners,
        )

    def _have_rows(self, count: int) -> None:
        """Give so many rows memory: of one, eight, 64, …, so that it is seldom copied."""
        if count > self._height:
            while self._height < count:
                self._height = max(1, 8 * self._height)
            self._height = min(self._height, self.row_count)
            for layer in self._layers.values():
                layer[2:] = [_longer(t, self._height, 0) for t in layer[2:]]

    def keep(self, row: int, start: int, places: np.ndarray) -> None:
        """Copy keys and values of a row into the pool.

        Args:
            row: The row that is copied from.
            start: The first column that is copied.
            places: The places that take the columns from there on.
        """
        into = self._tensor(places)
        for pool_k, pool_v, rows_k, rows_v in self._layers.values():
            pool_k.index_copy_(1, into, rows_k[row, :, start : start + len(places)])
            pool_v.index_copy_(1, into, rows_v[row, :, start : start + len(places)])

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` columns of the row `source` to the row `target`."""
        for layer in self._layers.values():
            for rows in layer[2:]:
                rows[target, :, :tokens] = rows[source, :, :tokens]

    def attend(self, layer: int, states: States) -> Tensor:
        """Store the keys and values of a pass, and attend: `attention.Store.attend`.

        Nothing is dropped out, as nothing is trained.

        Args:
            layer: The layer's number, from 0.
            states: The queries (N, H, D), keys and values (N, G, D) of the pass.

        Returns:
            What the tokens of the pass read, (N, H, D).
        """
        query, key, value, scale, window, _ = states
        now = self._pass
        assert now is not None
        if layer not in self._layers:
            self._layers[layer] = self._new_layer(key, value)
        pool_k, pool_v, rows_k, rows_v = self._layers[layer]
        writing = len(now.rows)
        parts: list[Tensor] = []
        if writing:
            rows_k[now.rows, :, now.columns] = key[:writing]
            rows_v[now.rows, :, now.columns] = value[:writing]
            parts.append(self._write(now, query[:writing], rows_k, rows_v, scale, window))
        if now.spans:
            pool_k.index_copy_(1, now.places, key[writing:].transpose(0, 1))
            pool_v.index_copy_(1, now.places, value[writing:].transpose(0, 1))
        for span, all_places, owner in zip(now.spans, now.span_places, now.owners, strict=True):
            new = slice(writing + span.start, writing + span.start + span.new)
            k = key[new].transpose(0, 1) if span.alone else pool_k.index_select(1, all_places)
            v = value[new].transpose(0, 1) if span.alone else pool_v.index_select(1, all_places)
            if owner >= 0:
                k = rows_k[owner, :, : len(all_places)].copy_(k)
                v = rows_v[owner, :, : len(all_places)].copy_(v)
            if span.new:
                parts.append(attend_span(States(query[new], k, v, scale, window, 0.0), now.masks))
        return torch.cat(parts)

    def _write(
        self, now: _Pass, query: Tensor, rows_k: Tensor, rows_v: Tensor, scale: float, window: int
    ) -> Tensor:
        """Attention of one token a row, (B, H, D), all rows in one call."""
        assert now.mask is not None
        heads, width = query.shape[1:]
        full = len(now.rows) == now.height
        if not full:  # some rows below the highest are empty
            query = query.new_zeros(now.height, heads, width).index_copy_(0, now.rows, query)
        mask, columns = now.mask, now.mask.shape[-1]
        if window and columns > window:
            behind = torch.arange(columns, device=self.device) <= now.columns[:, None] - window
            hidden = torch.zeros(now.height, columns, dtype=torch.bool, device=self.device)
            hidden[now.rows] = behind
            mask = mask.masked_fill(hidden[:, None, None], -torch.inf)
        groups = rows_k.shape[1]
        out = attend_rows(
            query.reshape(now.height, groups, heads // groups, width),
            rows_k[: now.height, :, :columns],
            rows_v[: now.height, :, :columns],
            mask.to(query.dtype),
            scale,
        ).reshape(now.height, heads, -1)
        return out if full else out.index_select(0, now.rows)

    def _new_layer(self, key: Tensor, value: Tensor) -> list[Tensor]:
        both = [(states, *states.shape[1:]) for states in (key, value)]
        pool = [s.new_empty(groups, self.tree.capacity, size) for s, groups, size in both]
        # Zeros, not garbage: what is masked away must still be finite.
        rows = [s.new_zeros(self._height, groups, self.width, size) for s, groups, size in both]
        return [*pool, *rows]

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)


def _longer(tensor: Tensor, size: int, dim: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = size
    longer = tensor.new_zeros(shape)
    longer.narrow(dim, 0, tensor.shape[dim]).copy_(tensor)
    return longer
