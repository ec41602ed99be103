"""A model folder is read before an engine loads it: adapters are merged, what can't be is refused.

Hugging Face ids stand for folders here, too. It loads no model to run it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig

from exsearch.runs import scratch_folder

# What decides which tensors a model has.
_SHAPE = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "head_dim",
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "tie_word_embeddings",
)  # fmt: skip


@contextlib.contextmanager
def whole_model(folder: str, dtype: str) -> Iterator[str]:
    """The folder itself, or for a PEFT adapter a temporary one with base and adapter merged.

    Args:
        folder: A model folder, or a Hugging Face id.
        dtype: The type of the merged weights, such as `bfloat16`.
    """
    if not (Path(folder) / "adapter_config.json").is_file():
        yield folder
        return
    from peft import AutoPeftModelForCausalLM

    merged: Any = AutoPeftModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
    ).merge_and_unload()
    with scratch_folder(Path(tempfile.gettempdir()) / "exsearch-merged") as whole:
        merged.save_pretrained(whole)
        del merged
        yield str(whole)


def end_ids(folder: str) -> list[int]:
    """The ids that end a turn by the model's generation config, or else by its config."""
    try:
        config = GenerationConfig.from_pretrained(folder)
    except OSError:
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    ends = config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or ())


def shape_of(folder: str) -> dict[str, Any]:
    """The settings that decide which tensors a checkpoint has; for `check_weights`."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return {name: getattr(config, name, None) for name in _SHAPE}


def check_weights(folder: str, shape: Mapping[str, Any]) -> None:
    """Refuse weights that would fail halfway through: by then the old ones are gone.

    Args:
        folder: A model folder, or a Hugging Face id.
        shape: The `shape_of` the model that takes the weights over.

    Raises:
        ValueError: another architecture, no weights, or a damaged file.
    """
    for name, value in shape_of(folder).items():
        if value != shape[name]:
            raise ValueError(f"another architecture ({name} {value}, not {shape[name]})")
    if not Path(folder).is_dir():  # a Hugging Face id
        return
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError("no *.safetensors in it")
    for file in files:
        with safe_open(file, framework="pt"):  # compares the file's size with its header
            pass
