"""A plain LoRA adapter is added to the weights that it was trained on, with the bits PEFT gives.

PEFT is not imported for it, and no layer is wrapped first, which takes longer than to read a small
model's weights. What is more than plain, or not whole, is left to PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Settings that change nothing of what a trained adapter adds, or are read here; no other is set.
_KNOWN = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_alpha",
    "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "revision", "target_modules", "task_type",
}  # fmt: skip


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether an adapter's config asks for nothing but LoRA on named linear layers.

    Args:
        config: The values of `adapter_config.json`.
    """
    match config:
        case {
            "peft_type": "LORA",
            "base_model_name_or_path": str(base),
            "r": int(rank),
            "lora_alpha": int() | float(),
            "target_modules": [*targets],
        }:
            rest = {name: value for name, value in config.items() if name not in _KNOWN}
            return (
                bool(base)
                and rank > 0
                and all(isinstance(target, str) for target in targets)
                and config.get("init_lora_weights", True) is True  # others change the base
                and all(v is None or v is False or v in ("none", [], {}) for v in rest.values())
            )
    return False


@torch.no_grad()
def add(model: nn.Module, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Add a plain adapter to a model's float32 weights; False, and nothing done, if it can't be.

    Args:
        model: The model that the adapter was trained on.
        config: The adapter's config, which is plain (`is_plain`).
        tensors: The adapter's tensors by their names.
    """
    rank, ends = config["r"], tuple(f".{name}" for name in config["target_modules"])
    layers = {n: m for n, m in model.named_modules() if f".{n}".endswith(ends)}
    names = {n: [f"base_model.model.{n}.lora_{part}.weight" for part in "BA"] for n in layers}
    if tensors.keys() != {name for both in names.values() for name in both}:
        return False
    found = [(layer, *(tensors[name] for name in names[n])) for n, layer in layers.items()]
    for layer, b, a in found:
        if type(layer) is not nn.Linear or (b.shape, a.shape) != (
            (layer.out_features, rank),
            (rank, layer.in_features),
        ):
            return False
        if {layer.weight.dtype, b.dtype, a.dtype} != {torch.float32}:
            return False
    for layer, b, a in found:
        layer.weight += (b @ a) * (config["lora_alpha"] / rank)
    return True
