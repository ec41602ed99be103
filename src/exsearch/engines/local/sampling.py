"""Sampling picks one token a row by the Gumbel-max rule, with noise keyed by row, position, token.

Drawing token v of argmax(logits/T + Gumbel noise) is drawing from softmax(logits/T) (Gumbel 1954).
The noise is a hash of its key, so a row's tokens do not depend on the rows beside it, on the order
of the batch, or on any global state.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from exsearch.engines.base import Sampling
from exsearch.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

# Tokens further behind the best than this many nats are nearly all of them, and hardly ever drawn.
_NEAR = 12.0


def gumbel_noise(keys: np.ndarray, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise (`method.md`, Randomness), a hash of its arguments.

    The hash is splitmix64's finaliser (Steele et al. 2014), applied twice.

    Args:
        keys: The names of streams of randomness, (N,) or (1,).
        positions: How many tokens were drawn from each stream before, (N,) or (1,).
        tokens: The token ids, (N,).

    Returns:
        The noise, float64 (N,).
    """
    uniform = (_hash(keys, positions, tokens).astype(np.float64) + 0.5) / 2.0**32
    return -np.log(-np.log(uniform))


def _hash(keys: np.ndarray, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """32 bits for aligned (or broadcast) keys, positions and tokens."""
    with np.errstate(over="ignore"):
        x = _mix(
            keys.astype(np.uint64) + positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )
        x = _mix(x + tokens.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
    return x >> np.uint64(32)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample(
    logits: Tensor,
    keys: np.ndarray,
    positions: np.ndarray,
    sampling: Sampling,
    forced: np.ndarray | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits: The model's scores, (B, V), of any float type; they are taken to float32.
        keys: The name of each row's stream of randomness, (B,).
        positions: How many tokens each row has drawn from its stream before, (B,).
        sampling: The distribution to draw from.
        forced: Tokens to take in place of drawn ones, (B,); -1 draws. None draws all.

    Returns:
        The tokens (B,), their log p at temperature 1 and their log q under `sampling`, in nats,
        float32 (B,).

    Raises:
        EngineError: the best score of a row is not finite.
    """
    logits = logits.float()  # (B, V)
    if not torch.isfinite(logits.amax(dim=-1)).all():
        raise EngineError("the model's scores are not finite: its weights are damaged or diverged")
    scores = logits
    if not sampling.is_model and sampling.temperature > 0:
        scores = _proposal(logits, sampling)
    if forced is not None and (forced >= 0).all():
        tokens = torch.from_numpy(forced)
    elif sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        tokens = torch.from_numpy(_gumbel_argmax(scores, keys, positions))
    tokens = tokens.to(logits.device)
    if forced is not None:
        given = torch.from_numpy(forced).to(logits.device)
        tokens = torch.where(given >= 0, given, tokens)
    log_p = _pick(torch.log_softmax(logits, dim=-1), tokens)
    if sampling.temperature == 0:
        return tokens, log_p, torch.zeros_like(log_p)
    return tokens, log_p, log_p if sampling.is_model else _pick(scores, tokens)


def _gumbel_argmax(scores: Tensor, keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Argmax of score + noise in each row, float64, with the noise of few tokens worked out.

    Those near the best score come first. A token far behind can overtake them only with a noise
    that its hash alone, before any logarithm, almost always rules out.
    """
    best = scores.amax(dim=-1)  # (B,)
    near = (scores > (best - _NEAR)[:, None]).cpu().numpy()
    values = scores.cpu().numpy()
    tokens = np.empty(len(values), np.int64)
    for b, row in enumerate(values):
        candidates = np.flatnonzero(near[b])
        key, position = keys[b : b + 1], positions[b : b + 1]
        noisy = row[candidates] + gumbel_noise(key, position, candidates)
        lead = int(noisy.argmax())
        tokens[b] = candidates[lead]
        # What may overtake: beyond `lead`'s margin over the best token that is not near.
        margin = noisy[lead] - (float(best[b]) - _NEAR)
        lucky = np.flatnonzero(_hash(key, position, _all_tokens(len(row))) >= _least_hash(margin))
        far = lucky[~near[b][lucky]]
        if len(far):
            rest = row[far] + gumbel_noise(key, position, far)
            other = int(rest.argmax())
            if rest[other] > noisy[lead]:
                tokens[b] = far[other]
    return tokens


@cache
def _all_tokens(count: int) -> np.ndarray:
    return np.arange(count)


def _least_hash(noise: float) -> int:
    """The smallest 32-bit hash whose noise may exceed this; a little too small, never too large."""
    return max(0, int(math.exp(-math.exp(-noise)) * 2**32) - 4)


def _proposal(logits: Tensor, sampling: Sampling) -> Tensor:
    """Log q (B, V) of a temperature and `top_p`: the likeliest tokens up to that mass are kept."""
    log_q = torch.log_softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, index = log_q.sort(dim=-1, descending=True)
        before = ordered.exp().cumsum(dim=-1) - ordered.exp()  # mass of the likelier tokens
        dropped = torch.zeros_like(log_q, dtype=torch.bool).scatter(
            -1, index, before >= sampling.top_p
        )
        log_q = torch.log_softmax(log_q.masked_fill(dropped, float("-inf")), dim=-1)
    return log_q


def _pick(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens[:, None])[:, 0]
