"""One forward pass gives the log-probabilities of chosen tokens, with the head work of no others.

Sequences are padded on the right, so plain causal attention needs no mask: a pad is never attended
to by what stands before it. Scoring and training share this function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's randomness from this seed within, and as if untouched after."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length: at most `budget` tokens each, padding counted.

    A sequence longer than the budget is a batch of its own. Longest first, so that what does not
    fit in memory fails at the start.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for i in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(sequences: Sequence[Sequence[int]], device: torch.device, fill: int = 0) -> Tensor:
    """Token ids as one right-padded tensor (B, T)."""
    longest = max(map(len, sequences))
    rows = [[*s, *[fill] * (longest - len(s))] for s in sequences]
    return torch.tensor(rows, dtype=torch.long, device=device)


def target_log_probs(model: Any, input_ids: Tensor, targets: Tensor) -> Tensor:
    """Log p of the marked tokens, each given all before it in its row.

    Args:
        model: A transformers causal language model.
        input_ids: (B, T), padded on the right.
        targets: (B, T) bool, true at the tokens to score; never at position 0.

    Returns:
        (N,), in row-major order of `targets`; float32, or the model's own type where it is wider;
        differentiable.
    """
    predictors = torch.zeros_like(targets)
    predictors[:, :-1] = targets[:, 1:]  # the state at t - 1 predicts the token at t
    # The head is most of a small model's work: it sees only the states that predict a target.
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: (inputs[0][predictors],)
    )
    try:
        logits = model(input_ids=input_ids, use_cache=False).logits  # (N, V)
    finally:
        hook.remove()
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, dim=-1).gather(-1, input_ids[targets][:, None])[:, 0]
