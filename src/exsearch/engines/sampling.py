"""Sampling picks one token a row by the Gumbel-max rule, with noise keyed by row, position, token.

Drawing token v of argmax(logits/T + Gumbel noise) is drawing from softmax(logits/T) (Gumbel 1954).
The noise is a hash of its key, so a row's tokens do not depend on the rows beside it, on the order
of the batch, or on any global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from exsearch.engines.base import Sampling

if TYPE_CHECKING:
    from torch import Tensor

# The noise below lies in [-3.14, 22.9], so a token this far behind the best can never win.
NOISE_RANGE = 26.1


def gumbel_noise(keys: np.ndarray, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise for aligned arrays of row keys, positions and token ids; float64.

    The hash is splitmix64's finaliser (Steele et al. 2014), applied twice.
    """
    with np.errstate(over="ignore"):
        x = _mix(
            keys.astype(np.uint64) + positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )
        x = _mix(x + tokens.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
    uniform = ((x >> np.uint64(32)).astype(np.float64) + 0.5) / 2.0**32
    return -np.log(-np.log(uniform))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample(
    logits: Tensor, keys: np.ndarray, positions: np.ndarray, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits: (B, V), any float type; taken to float32.
        keys: (B,) each row's stream.
        positions: (B,) each row's counter within its stream.
        sampling: What to draw from.

    Returns:
        tokens (B,), their log p at temperature 1 and their log q under `sampling`, float32 (B,).
    """
    logits = logits.float()  # (B, V)
    log_p = torch.log_softmax(logits, dim=-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
        return tokens, _pick(log_p, tokens), torch.zeros(len(tokens), device=logits.device)
    log_q = log_p if sampling.is_model else _proposal(logits, sampling)
    scores = log_q.double().cpu()  # (B, V)
    rows, candidates = torch.nonzero(
        scores > scores.max(dim=-1, keepdim=True).values - NOISE_RANGE, as_tuple=True
    )
    noise = gumbel_noise(keys[rows.numpy()], positions[rows.numpy()], candidates.numpy())
    noisy = torch.full_like(scores, float("-inf"))
    noisy[rows, candidates] = scores[rows, candidates] + torch.from_numpy(noise)
    tokens = noisy.argmax(dim=-1).to(logits.device)
    return tokens, _pick(log_p, tokens), _pick(log_q, tokens)


def _proposal(logits: Tensor, sampling: Sampling) -> Tensor:
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
