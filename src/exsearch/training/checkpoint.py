"""A checkpoint is a folder that plain transformers (or PEFT) loads, whole or not there at all.

A training checkpoint also holds the optimizer's state, as safetensors: nothing here is a pickle.
When a checkpoint is due is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from exsearch.errors import ModelError, RunError
from exsearch.json_files import read_json
from exsearch.models.loading import load_adapter, load_model, load_tokenizer
from exsearch.models.settings import ModelSettings, base_name, write_model_settings
from exsearch.runs import new_folder, verify_folder
from exsearch.training.recipe import MStepConfig

ADAPTER_FILE = "adapter_config.json"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "training_state.json"


def load_trainable(folder: str | Path, config: MStepConfig, device: torch.device) -> Any:
    """A model to train, float32: all weights, or a LoRA adapter where the config or folder has one.

    Args:
        folder: A model folder, an adapter folder, or a Hugging Face id.
        config: Whether an adapter is trained, and of which size.
        device: The device that it is trained on.

    Raises:
        ModelError: an adapter folder where the recipe asks for full fine-tuning, or for an adapter
            of another size; a model that can't be loaded, or a folder that is damaged.
    """
    if adapter_base(Path(folder)):
        _check_adapter(Path(folder), config)
        return load_adapter(folder, torch.float32, trainable=True).to(device)
    model = load_model(folder, torch.float32).to(device)
    if not config.lora_rank:
        return model
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with seeded(0, device):  # the same adapter each time: a run killed early begins again alike
        adapted = get_peft_model(model, lora)
    adapted.peft_config["default"].base_model_name_or_path = base_name(folder)
    return adapted


def _check_adapter(folder: Path, config: MStepConfig) -> None:
    """Refuse an adapter that the recipe does not ask for: it is trained on as it is."""
    if not config.lora_rank:
        raise ModelError(f"{folder} is an adapter: set lora_rank, or merge it first")
    own = read_json(folder / ADAPTER_FILE, ModelError)
    has = {"lora_rank": own.get("r"), "lora_alpha": own.get("lora_alpha")}
    for name, value in has.items():
        if getattr(config, name) != value:
            raise ModelError(
                f"{folder}: an adapter with {name} {value} is trained on as it is: set {name} to "
                f"that instead of {getattr(config, name)}, or merge it first"
            )


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch draw from this seed; afterwards it draws as if nothing had been drawn here.

    Args:
        seed: The seed of all draws in the context.
        device: The device whose randomness is meant, besides the CPU's.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def adapter_base(folder: Path) -> Path | None:
    """The folder (or id) of the model that an adapter folder stands on; None for a whole model."""
    file = folder / ADAPTER_FILE
    if not file.is_file():
        return None
    return Path(read_json(file, ModelError, base_model_name_or_path=str)["base_model_name_or_path"])


def save_model(
    model: Any, tokenizer_folder: str | Path, folder: Path, settings: ModelSettings
) -> None:
    """Write a model and its tokenizer as a complete folder with a manifest.

    Args:
        model: A transformers model, or one with a PEFT adapter.
        tokenizer_folder: A folder or Hugging Face id that holds the tokenizer.
        folder: The folder to write.
        settings: How the model was trained to be asked.
    """
    with new_folder(folder) as out:
        _save_model(model, tokenizer_folder, out)
        write_model_settings(settings, out)


def _save_model(model: Any, tokenizer_folder: str | Path, out: Path) -> None:
    # PEFT would ask the hub for the base's vocabulary, which no training here changes.
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(out, **options)
    load_tokenizer(tokenizer_folder).save_pretrained(out)


def save_training(
    model: Any,
    optimizer: torch.optim.Optimizer,
    step: int,
    tokenizer_folder: str | Path,
    folder: Path,
) -> None:
    """Write all that a killed M-step needs to go on.

    Args:
        model: The model as it is after the step.
        optimizer: The optimizer as it is after the step.
        step: The number of optimizer steps that were taken.
        tokenizer_folder: A folder or Hugging Face id that holds the tokenizer.
        folder: The folder to write.
    """
    with new_folder(folder) as out:
        _save_model(model, tokenizer_folder, out)
        tensors: dict[str, torch.Tensor] = {}
        for i, p in enumerate(_trained(optimizer)):
            for name, value in optimizer.state[p].items():
                tensors[f"{i}.{name}"] = value.detach().cpu().contiguous()
        save_file(tensors, out / OPTIMIZER_FILE)
        (out / STATE_FILE).write_text(json.dumps({"step": step}))


def load_training(optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Put the optimizer's state back, and return the number of optimizer steps already taken.

    Args:
        optimizer: An optimizer over the same weights, in the same order.
        folder: The folder that `save_training` wrote.

    Raises:
        RunError: the folder is damaged.
    """
    verify_folder(folder, remedy="delete it, and what it holds is made anew")
    parameters = list(_trained(optimizer))
    for key, value in load_file(folder / OPTIMIZER_FILE).items():
        index, name = key.split(".", 1)
        p = parameters[int(index)]
        optimizer.state[p][name] = value.to(p.device)  # a fused AdamW's step counter, too
    return read_json(folder / STATE_FILE, RunError, step=int)["step"]


def _trained(optimizer: torch.optim.Optimizer) -> Iterable[torch.Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])
