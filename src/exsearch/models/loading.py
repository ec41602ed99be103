"""A model's tokenizer, weights and adapter are loaded here alone, and nothing of a stranger's runs.

No code that comes with a model is run, no pickle is read, no kernel is fetched, and each tensor
comes from the model's own files: none is made up. A folder that was written here is compared with
its manifest first. It does not know what the model is used for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
)
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from exsearch.errors import MissingExtraError, ModelError, model_errors
from exsearch.json_files import read_json
from exsearch.models import lora
from exsearch.models.settings import VERIFY_VARIABLE, resolve_model
from exsearch.runs import MANIFEST, is_complete, verify_folder

_ADAPTER = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
_TRUST = {"trust_remote_code": False}
_TAKES = (
    "--model takes the name of a model here, a Hugging Face id, a model folder or a finished run"
)


def loading(folder: str | Path) -> AbstractContextManager[None]:
    """One line, a `ModelError`, for whatever the libraries raise on a model they can't load."""
    return model_errors(str(folder), _TAKES)


def verify_model(folder: str | Path) -> None:
    """Compare a model folder that was written here with its manifest, byte by byte.

    Folders of others have no manifest, and `EXSEARCH_VERIFY=0` leaves it out.

    Args:
        folder: A model folder; a Hugging Face id has no manifest.

    Raises:
        ModelError: a file is missing or altered, which the message names.
    """
    path = Path(folder)
    if os.environ.get(VERIFY_VARIABLE) == "0" or not is_complete(path):
        return
    remedy = "delete it, and make or copy the model anew (a run makes its own again)"
    if "files" not in read_json(path / MANIFEST, ModelError, remedy):
        return  # a stranger's file of that name
    verify_folder(path, ModelError, remedy=f"{remedy}; --no-verify takes it as it is")


def load_tokenizer(folder: str | Path, **options: Any) -> Any:
    """The transformers tokenizer of a model folder or a Hugging Face id.

    Args:
        folder: The folder or id; an adapter's folder without a tokenizer has its base's.
        options: More arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        ModelError: it can't be loaded, or needs code that comes with it.
    """
    with loading(folder):
        adapter = Path(folder) / _ADAPTER_CONFIG
        if adapter.is_file() and not (Path(folder) / "tokenizer_config.json").is_file():
            base = read_json(adapter, ModelError, base_model_name_or_path=str)
            folder = resolve_model(base["base_model_name_or_path"])
        return AutoTokenizer.from_pretrained(str(folder), **options, **_TRUST)


def load_config(folder: str | Path, **options: Any) -> Any:
    """The transformers config of a model folder or id, without what would choose code to run.

    Args:
        folder: The folder or id.
        options: More arguments of `AutoConfig.from_pretrained`.

    Raises:
        ModelError: it can't be loaded, or needs code that comes with it.
    """
    with loading(folder):
        config: Any = AutoConfig.from_pretrained(str(folder), **options, **_TRUST)
    # Each may name code of others: kernels that are fetched, classes that are patched, a pickle.
    config._attn_implementation = config._experts_implementation = None
    for name in ("fusion_config", "transformers_weights"):
        vars(config).pop(name, None)
    return config


def load_model(folder: str | Path, dtype: Any, **options: Any) -> Any:
    """A causal language model, in evaluation mode; an adapter is merged into its base.

    Args:
        folder: A model folder, a PEFT adapter's folder, or a Hugging Face id of either.
        dtype: The type of the weights, such as `torch.float32`, or its name.
        options: More arguments of `AutoModelForCausalLM.from_pretrained`.

    Raises:
        ModelError: it can't be loaded, or its tensors are not those that its config asks for.
        MissingExtraError: it is an adapter and no plain one (`lora`), and PEFT is not installed.
    """
    with loading(folder):
        if find_adapter_config_file(str(folder)):
            merged = _load_plain(Path(folder), dtype, **options)
            return merged or load_adapter(folder, dtype, **options).merge_and_unload()
        verify_model(folder)
        return _load_whole(folder, dtype, **options)


def _load_plain(folder: Path, dtype: Any, **options: Any) -> Any | None:
    """A plain adapter added to its base; None where it is PEFT's matter, or PEFT says why not."""
    if dtype not in (torch.float32, "float32") or not (folder / _ADAPTER).is_file():
        return None
    verify_model(folder)
    config = read_json(folder / _ADAPTER_CONFIG, ModelError)
    if not lora.is_plain(config):
        return None
    base = resolve_model(config["base_model_name_or_path"])
    if find_adapter_config_file(base):
        return None
    model = load_model(base, dtype, **options)
    return model if lora.add(model, config, load_file(folder / _ADAPTER)) else None


def check_model(folder: str | Path) -> None:
    """Refuse a model folder that `load_model` would, but load only the names of its tensors.

    Args:
        folder: A model folder or a Hugging Face id, no adapter.

    Raises:
        ModelError: as in `load_model`; an architecture that transformers does not know passes.
    """
    verify_model(folder)
    with loading(folder):
        if type(load_config(folder)) in MODEL_FOR_CAUSAL_LM_MAPPING:
            _load_whole(folder, "auto", device_map="meta")


def _load_whole(folder: str | Path, dtype: Any, **options: Any) -> Any:
    gguf = {name: options[name] for name in ("gguf_file",) if name in options}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(folder),
        config=load_config(folder, **gguf),
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are told below, like the others
        output_loading_info=True,
        **options,
        **_TRUST,
    )
    model, found = loaded
    others = (name for name, *_ in found["mismatched_keys"])
    _check_tensors(folder, found["missing_keys"], found["unexpected_keys"], others)
    return model


def load_adapter(folder: str | Path, dtype: Any, *, trainable: bool = False, **options: Any) -> Any:
    """A PEFT adapter on its base model.

    Args:
        folder: The adapter's folder or Hugging Face id.
        dtype: The type of the base model's weights, or its name.
        trainable: True lets the adapter's weights be trained.
        options: More arguments of `AutoModelForCausalLM.from_pretrained`, for the base.

    Raises:
        ModelError: adapter or base can't be loaded, or tensors are missing or too many.
        MissingExtraError: PEFT is not installed.
    """
    verify_model(folder)
    try:
        from peft import PeftConfig, PeftModelForCausalLM
    except ImportError as error:
        raise MissingExtraError("loading an adapter", "local", str(error)) from None
    with loading(folder):
        # PEFT itself would fall back on a pickle.
        if not cached_file(str(folder), _ADAPTER, _raise_exceptions_for_missing_entries=False):
            raise ModelError(
                f"{folder}: an adapter without {_ADAPTER}; a pickle (.bin) may hold code and is "
                "not read: save the adapter with safe_serialization=True"
            )
        config: Any = PeftConfig.from_pretrained(str(folder))
        base_name = config.base_model_name_or_path
        if config.is_prompt_learning or not base_name:
            kind = f"of type {config.peft_type.value}" if base_name else "without a base model"
            raise ModelError(f"{folder}: an adapter {kind} can't be merged")
        base_name = resolve_model(base_name)
        if find_adapter_config_file(base_name):
            raise ModelError(f"{folder}: its base {base_name} is an adapter, too: merge that first")
        base = load_model(base_name, dtype, **options)
        config.inference_mode = not trainable
        model = PeftModelForCausalLM(base, config)
        mapping = getattr(base, "_checkpoint_conversion_mapping", {})
        found = model.load_adapter(
            str(folder), "default", is_trainable=trainable, key_mapping=mapping
        )
        _check_tensors(folder, found.missing_keys, found.unexpected_keys)
        return model


def _check_tensors(
    folder: str | Path,
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Iterable[str] = (),
) -> None:
    """Refuse files that lack a tensor, or hold one that has no place or another shape."""
    for names, what in (
        (missing, "missing from its files"),
        (mismatched, "of another shape than its config says"),
        (unexpected, "that its config has no place for"),
    ):
        if found := sorted(names):
            raise ModelError(
                f"{folder}: tensors {what}: {len(found)}, the first is {found[0]}; its weights and "
                "its config don't belong together: copy or save the model anew"
            )
