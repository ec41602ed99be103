"""Linear layers on a CPU go through oneDNN where that is the faster library for float32.

PyTorch sends float32 products to MKL, which keeps to AVX2 on processors of other makers than its
own; oneDNN, which PyTorch also ships, uses AVX-512 on all of them and is there more than twice as
fast. The precision is the same: plain float32 throughout. The rule is fixed by the processor, not
by a measurement, so that a resumed run takes the same way and ends with the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def onednn_linear(model: nn.Module) -> Iterator[None]:
    """Within, the model's float32 linear layers on a CPU run on oneDNN; changes nothing elsewhere.

    The layers keep their weights and their class; only what `forward` calls changes.
    """
    changed = []
    if onednn_is_faster():
        for module in model.modules():
            if type(module) is nn.Linear and "forward" not in vars(module):
                module.forward = partial(_linear, module)
                changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


@cache
def onednn_is_faster() -> bool:
    """True on processors with AVX-512, where PyTorch was built with oneDNN's linear operator."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def _linear(module: nn.Linear, input: Tensor) -> Tensor:
    plain = input.dtype == module.weight.dtype == torch.float32 and input.device.type == "cpu"
    if not plain or torch.is_autocast_enabled("cpu") or input.numel() == 0:
        return nn.functional.linear(input, module.weight, module.bias)
    if torch.is_grad_enabled() and (input.requires_grad or module.weight.requires_grad):
        return _OneDnnLinear.apply(input, module.weight, module.bias)  # pyright: ignore[reportReturnType]
    return _product(input, module.weight, module.bias)


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`inputs @ weight.T + bias`, (…, I) by (O, I) to (…, O)."""
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    """The same with its gradients, each of which is again one such product."""

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
