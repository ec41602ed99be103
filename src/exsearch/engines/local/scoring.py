"""Scoring gives the log-probabilities of continuations, as tails on what the cache already holds.

Each prompt is encoded once, whatever follows it; a continuation costs its own tokens and the last
one of its prompt, whose state predicts the first. Nothing is sampled.

Glossary:
    pass   One call of the model, over new tokens of many pairs.
    place  Where the cache's pool holds the key and the value of one token.
    span   The new tokens of one pair in a pass, with the places of the whole pair.
    tail   The places of a continuation, which are given back after the pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from exsearch.engines.local.cache import KeyValueCache
from exsearch.models.attention import packed_logits
from exsearch.models.prefixes import Span

Pair = tuple[tuple[int, ...], tuple[int, ...]]  # prompt and continuation


def tail_log_probs(
    model: Any, cache: KeyValueCache, pairs: Sequence[Pair], token_budget: int
) -> Iterator[tuple[Pair, tuple[float, ...], int]]:
    """Each pair with the log p of its continuation's tokens and the tokens encoded for it.

    Args:
        model: A transformers causal language model.
        cache: The cache of the model, which then knows all prompts.
        pairs: Prompts and continuations, neither empty. In sorted order they share the most.
        token_budget: The most tokens in one pass; a pair with more has a pass of its own.
    """
    waiting = list(reversed(pairs))
    while waiting:
        cache.tree.tick()
        batch: list[Pair] = []
        spans: list[Span] = []
        tails: list[np.ndarray] = []
        new = 0
        while waiting:
            prompt, continuation = waiting[-1]
            known = cache.tree.find(prompt[:-1])
            count = len(prompt) - len(known) + len(continuation) - 1
            if spans and new + count > token_budget:
                break
            batch.append(waiting.pop())
            places = cache.take(len(prompt) - 1 - len(known))
            tail = cache.take(len(continuation))  # not kept: no prompt goes on from it
            all_places = np.concatenate([known, places])
            cache.tree.add(prompt[:-1], all_places)
            spans.append(Span(new, count, np.concatenate([all_places, tail])))
            tails.append(tail)
            new += count
        scores = _run(model, cache, batch, spans)
        for tail in tails:
            cache.tree.give_back(tail)
        for pair, span, values in zip(batch, spans, scores, strict=True):
            yield pair, values, span.new


def _run(
    model: Any, cache: KeyValueCache, batch: Sequence[Pair], spans: Sequence[Span]
) -> list[tuple[float, ...]]:
    """One pass over a batch of pairs; log p of each continuation's tokens."""
    empty = np.empty(0, np.int64)
    cache.begin(empty, empty, spans, [-1] * len(spans))
    ids: list[int] = []
    positions: list[np.ndarray] = []
    states: list[int] = []  # tokens of the pass that predict a target
    for (prompt, continuation), span in zip(batch, spans, strict=True):
        length = len(span.all_places)
        ids += (*prompt, *continuation[:-1])[length - span.new :]
        positions.append(np.arange(length - span.new, length))
        end = span.start + span.new
        states += range(end - len(continuation), end)
    device = cache.device
    targets = torch.tensor([t for _, c in batch for t in c], device=device)
    logits = packed_logits(
        model,
        torch.tensor(ids, device=device),
        torch.from_numpy(np.concatenate(positions)).to(device),
        cache,
        torch.tensor(states, device=device),
    )
    values = logits.gather(-1, targets[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
    parts = values.cpu().split([len(c) for _, c in batch])
    return [tuple(part.tolist()) for part in parts]
