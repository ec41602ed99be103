"""A trial shows, over a few tokens, whether a model computes in passes what it computes alone.

Two sequences that begin alike are packed as in training, and run in whatever other way an engine
has. Windows are short meanwhile, so that the trial reaches beyond them. Nothing of the model is
changed by it.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exsearch.errors import ModelError
from exsearch.models.attention import PassOnly, packed_attention, packed_logits
from exsearch.models.prefixes import shared

Pair = tuple[tuple[int, ...], tuple[int, ...]]  # prompt and continuation
Way = Callable[[Any, Sequence[Pair]], list[Sequence[float]]]

_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
_EXACT = 2e-4  # of the largest logit: what rounding in float32 makes of a log-prob
_ROUGH = 0.02  # the same for a model that plain transformers itself rounds as far apart
_SHORT = 3  # tokens that a window spans during the trial
_PAIRS = (((1, 2, 3, 4, 5, 6), (7, 8)), ((1, 2, 3, 4, 9, 10), (11, 12)))  # sixteenths, in ids


def check_packable(model: Any, *ways: Way) -> None:
    """Make sure that packing does not change what this model computes.

    Args:
        model: A transformers causal language model, in evaluation mode.
        ways: Other ways to run the model, which have to agree as well: functions that give the
            log-probs of the continuations' tokens, for each pair of a prompt and a continuation.

    Raises:
        ModelError: its layers mix tokens in ways that are not known here, or it can't be run.
    """
    name = type(model).__name__
    config = model.config.get_text_config()
    if others := set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS:
        raise ModelError(f"{name} has {min(others)} layers, which are not supported here")
    try:
        _try(model, config, ways)
    except Exception as error:
        reason = str(error) if isinstance(error, ModelError) else f"can't be run: {error!r}"
        raise ModelError(f"{name} {textwrap.shorten(reason, 300, placeholder=' …')}") from error


def _try(model: Any, config: Any, ways: Sequence[Way]) -> None:
    device, size = next(model.parameters()).device, config.vocab_size
    # Over the whole vocabulary: its first ids are often of tokens that no training has seen.
    ids = [(i * max(1, size // 16) + 3) % size for i in range(16)]
    pairs = [(tuple(ids[i] for i in p), tuple(ids[i] for i in c)) for p, c in _PAIRS]
    windows: set[int] = set()
    with torch.inference_mode(), contextlib.ExitStack() as stack:
        whole, scale = _alone(model, pairs, device)
        expected = whole
        if stack.enter_context(_short_windows(model, config)):
            expected, scale = _alone(model, pairs, device)
        if not torch.isfinite(expected).all():
            return  # said where the model is used
        # Where rounding grows from layer to layer, it already differs with the size of a batch.
        single = torch.cat([_alone(model, [pair], device)[0] for pair in pairs])
        noise = 8 * float((single - expected).abs().max())
        stack.enter_context(packed_attention(model))
        try:
            found = [_packed(model, pairs, device, windows), *(way(model, pairs) for way in ways)]
        except Exception as error:
            if windows or isinstance(error, ModelError):
                raise
            found = []
    if not windows:  # no layer called the attention of this package
        raise ModelError("attends by code of its own, which is not supported")
    if windows == {0} and not torch.equal(expected, whole):
        raise ModelError("keeps its attention window to itself, which is not supported")
    half = model.dtype in (torch.bfloat16, torch.float16)
    tolerance = scale * (0.1 if half else min(max(_EXACT, noise / scale), _ROUGH))
    if any((expected - torch.tensor(f)).abs().max() > tolerance for f in found):
        raise ModelError("mixes tokens in ways that packing does not know; not supported")


@contextlib.contextmanager
def _short_windows(model: Any, config: Any) -> Iterator[bool]:
    """Let all attention windows span a few tokens only; True where there are any."""
    before = [
        (holder, name, value)
        for holder in (config, *model.modules())
        for name, value in vars(holder).items()
        if ("window" in name and "layers" not in name) or name == "local_attention"
        if type(value) is int and value > _SHORT
    ]
    try:
        for holder, name, _ in before:
            setattr(holder, name, _SHORT)
        yield bool(before)
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


def _alone(model: Any, pairs: Sequence[Pair], device: torch.device) -> tuple[Tensor, float]:
    """Log p of the continuations' tokens, (P, T), by plain transformers; the largest logit."""
    ids = torch.tensor([[*prompt, *continuation] for prompt, continuation in pairs], device=device)
    length = len(pairs[0][1])
    logits = model(input_ids=ids, use_cache=False).logits[:, -length - 1 : -1].double()
    scores = logits.log_softmax(-1).gather(-1, ids[:, -length:, None])[..., 0]
    return scores.float().cpu(), max(1.0, float(logits.abs().max()))


def _packed(
    model: Any, pairs: Sequence[Pair], device: torch.device, windows: set[int]
) -> list[Sequence[float]]:
    """The same log-probs from one pass, as training has it; adds the windows asked for."""
    sequences = [(*prompt, *continuation) for prompt, continuation in pairs]
    ((members, spans),) = shared(sequences, 64)
    size = spans[-1].start + spans[-1].new
    ids, positions = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for i, span in zip(members, spans, strict=True):
        ids[span.all_places] = sequences[i]
        positions[span.all_places] = np.arange(len(sequences[i]))
    store = PassOnly(spans, device)
    store.windows = windows
    logits = packed_logits(
        model,
        torch.from_numpy(ids).to(device),
        torch.from_numpy(positions).to(device),
        store,
        torch.arange(size, device=device),
    ).log_softmax(-1)
    places = {i: span.all_places for i, span in zip(members, spans, strict=True)}
    length = len(pairs[0][1])
    return [
        [float(logits[at, token]) for at, token in zip(places[i][-length - 1 :], c, strict=False)]
        for i, (_, c) in enumerate(pairs)
    ]
