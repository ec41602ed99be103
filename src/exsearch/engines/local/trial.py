"""A trial by the engine's own cache: prompts share what they have in common, then are written.

What is tried, and compared, is said in `models.trial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from exsearch.engines.base import GREEDY, Request
from exsearch.engines.local.batching import ContinuousBatch
from exsearch.engines.local.cache import KeyValueCache
from exsearch.errors import ModelError
from exsearch.models.attention import States
from exsearch.models.prefixes import Span
from exsearch.models.trial import Pair, check_packable


def check_cacheable(model: Any) -> None:
    """Make sure that neither packing nor the cache changes what this model computes.

    Args:
        model: A transformers causal language model, in evaluation mode.

    Raises:
        ModelError: its layers mix tokens in ways that are not known here, or it can't be run.
    """
    check_packable(model, _written)


class _Watched(KeyValueCache):
    """A cache that refuses what it can't hold: more than one key for a token and a layer."""

    def begin(
        self,
        rows: np.ndarray,
        lengths: np.ndarray,
        spans: Sequence[Span] = (),
        owners: Sequence[int] = (),
    ) -> None:
        self._seen: set[int] = set()
        super().begin(rows, lengths, spans, owners)

    def attend(self, layer: int, states: States) -> Tensor:
        if layer in self._seen:
            raise ModelError(f"attends twice as layer {layer}, which is not supported")
        self._seen.add(layer)
        return super().attend(layer, states)


def _written(model: Any, pairs: Sequence[Pair]) -> list[Sequence[float]]:
    cache = _Watched(64, len(pairs), next(model.parameters()).device)
    batch = ContinuousBatch(model, cache, (), 64, lambda length: None, lambda *counts: None)
    tickets = [batch.submit(Request(p, len(c), forced_ids=c), GREEDY) for p, c in pairs]
    replies: dict[int, Any] = {}
    while batch.busy:
        replies |= dict(batch.step())
    return [replies[ticket].log_probs for ticket in tickets]
