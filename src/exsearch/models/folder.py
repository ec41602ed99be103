"""A model folder is made ready for an engine that loads it itself; what it must not is refused.

Hugging Face ids stand for folders here, too. It loads no model to run it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils.peft_utils import find_adapter_config_file

from exsearch.models.loading import check_model, load_config, load_model
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

    Raises:
        ModelError: it can't be loaded, or its tensors are not those that its config asks for.
    """
    if not find_adapter_config_file(folder):
        check_model(folder)
        yield folder
        return
    merged = load_model(folder, dtype)
    with scratch_folder(Path(tempfile.gettempdir()) / "exsearch-merged") as whole:
        merged.save_pretrained(whole)
        del merged
        yield str(whole)


def end_ids(folder: str) -> list[int]:
    """The ids that end a turn by the model's generation config, or else by its config."""
    try:
        config = GenerationConfig.from_pretrained(folder)
    except OSError:
        config = GenerationConfig.from_model_config(load_config(folder))
    ends = config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or ())


def shape_of(folder: str) -> dict[str, Any]:
    """The settings that decide which tensors a checkpoint has; for `check_weights`."""
    config = load_config(folder)
    return {name: getattr(config, name, None) for name in _SHAPE}


def check_weights(folder: str, shape: Mapping[str, Any]) -> None:
    """Refuse weights that would fail halfway through: by then the old ones are gone.

    Args:
        folder: What `whole_model` gave.
        shape: The `shape_of` the model that takes the weights over.

    Raises:
        ValueError: another architecture.
    """
    for name, value in shape_of(folder).items():
        if value != shape[name]:
            raise ValueError(f"another architecture ({name} {value}, not {shape[name]})")
