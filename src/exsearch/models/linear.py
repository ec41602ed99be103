"""Linear layers on a CPU go through oneDNN where that is the faster library for float32.

PyTorch sends float32 products to MKL, which keeps to AVX2 on processors of other makers than its
own; oneDNN, which PyTorch also ships, uses AVX-512 on all of them and is there more than twice as
fast. With AVX2 alone it is as fast for long passes and up to twice as fast for the few tokens of
writing, once weights are packed: so it serves inference there, and training is left to MKL. The
precision is the same: plain float32 throughout. The rule is fixed by the processor, not by a
measurement, so that a resumed run takes the same way and ends with the same bits. Other layers and
devices are left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_ROWS = 64  # the order is chosen for passes of so many tokens; it suits longer ones as well
_LAYERS: WeakKeyDictionary[nn.Module, list[nn.Linear]] = WeakKeyDictionary()


class PackedWeights:
    """Weights of a model's linear layers in oneDNN's own order, which saves a quarter of the time.

    They take as much memory once more. A layer whose weights have changed since is packed anew.

    Args:
        model: The model; its weights stay as they are.
        limit: The most bytes that all weights of linear layers may have; a larger model is not
            packed.
    """

    def __init__(self, model: nn.Module, limit: int = 2 * 2**30):
        weights = {id(m.weight): m.weight.nbytes for m in _linear_layers(model)}
        self._room = sum(weights.values()) <= limit
        # By id(weight): the weight, its version when it was packed, and the packed one.
        self._packed: dict[int, tuple[Tensor, int, Tensor]] = {}

    def of(self, weight: Tensor) -> Tensor:
        """The weight (O, I) packed, or as it is where the model is above the limit."""
        if not self._room:
            return weight
        known = self._packed.get(id(weight))
        if known and known[0] is weight and known[1] == weight._version:
            return known[2]
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
        self._packed[id(weight)] = weight, weight._version, packed
        return packed


@contextlib.contextmanager
def onednn_linear(model: nn.Module, packed: PackedWeights | None = None) -> Iterator[None]:
    """Let a model's float32 linear layers on a CPU run on oneDNN; nothing else changes.

    The layers keep their weights and their class; only what `forward` calls changes.

    Args:
        model: The model whose layers change.
        packed: The model's packed weights, for inference, where the same weights are used again
            and again; None uses them as they are.
    """
    changed = []
    try:
        for module in _linear_layers(model) if onednn_is_faster() else ():
            # Beside nn.Module's own setter, which takes 2 ms for all layers of a small model.
            if "forward" not in vars(module):
                changed.append(module)
                vars(module)["forward"] = partial(_linear, module, packed)
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)


def _linear_layers(model: nn.Module) -> list[nn.Linear]:
    if model not in _LAYERS:
        _LAYERS[model] = [m for m in model.modules() if type(m) is nn.Linear]
    return _LAYERS[model]


def onednn_is_faster() -> bool:
    """True with AVX-512, and with AVX2 where no gradients are wanted."""
    return _best_instructions() == "AVX512" or (
        _best_instructions() == "AVX2" and not torch.is_grad_enabled()
    )


@cache
def _best_instructions() -> str:
    """The instruction set of the processor; empty where oneDNN's linear operator is missing."""
    if not (
        torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return ""
    return torch.backends.cpu.get_cpu_capability()


def padded_rows(rows: int) -> int:
    """The next larger one of few numbers of rows, where oneDNN is in use; at most a sixteenth more.

    oneDNN keeps code for each number of rows that it has met, about a megabyte for all the shapes
    of a model, and gives none back: passes of any length would take gigabytes in the end.

    Args:
        rows: The number of rows of a matrix, that is, the tokens of a pass.
    """
    if not onednn_is_faster():
        return rows
    step = 1 << max(0, rows.bit_length() - 5)
    return -(-rows // step) * step


def _linear(module: nn.Linear, packed: PackedWeights | None, input: Tensor) -> Tensor:
    plain = input.dtype == module.weight.dtype == torch.float32 and input.device.type == "cpu"
    if not plain or torch.is_autocast_enabled("cpu") or input.numel() == 0:
        return nn.functional.linear(input, module.weight, module.bias)
    if torch.is_grad_enabled() and (input.requires_grad or _is_trained(module)):
        return _OneDnnLinear.apply(input, module.weight, module.bias)  # pyright: ignore[reportReturnType]
    weight = module.weight if packed is None else packed.of(module.weight)
    return _product(input, weight, module.bias)


def _is_trained(module: nn.Linear) -> bool:
    return any(p is not None and p.requires_grad for p in (module.weight, module.bias))


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`inputs @ weight.T + bias`, (…, I) by (O, I) to (…, O)."""
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    """`_product` with its gradients, each of which is again one such product."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        to_inputs, to_weight, to_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])  # (N, O)
        of_inputs = of_weight = of_bias = None
        if to_inputs:
            of_inputs = _product(rows, weight.t()).view_as(inputs)
        if to_weight:
            of_weight = _product(rows.t(), inputs.reshape(-1, inputs.shape[-1]).t())
        if ctx.has_bias and to_bias:
            of_bias = rows.sum(0)
        return of_inputs, of_weight, of_bias
