"""A GGUF file becomes a model folder of plain float32 weights, once; the cache keeps it.

The weights are dequantised, so they are close to the original ones, not equal.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from exsearch.errors import MissingExtraError, ModelError
from exsearch.runs import cache_folder, is_complete, new_folder

logger = logging.getLogger(__name__)
GGUF = ".gguf"
_TIED = 0.98  # two quantisations of one matrix agree at least so well (cosine); others not at all


def gguf_model(file: Path) -> Path:
    """The folder of a converted GGUF file; converts it (a minute or two for half a GB) once.

    Args:
        file: The file; another with the same content has the same folder.

    Raises:
        ModelError: it can't be read, or is of an architecture that transformers does not know.
        MissingExtraError: transformers or gguf is not installed.
    """
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from None
    folder = cache_folder() / f"{file.stem}-{digest[:12]}"
    if not is_complete(folder):
        logger.warning("%s is converted into %s, once", file, folder)
        convert(file, folder)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a folder in the Hugging Face layout.

    Args:
        file: The GGUF file.
        folder: The folder to write.

    Raises:
        ModelError, MissingExtraError: as `gguf_model`.
    """
    try:
        import gguf as _gguf  # noqa: F401  # transformers needs it, and says so less clearly
        from transformers import GgufConfig

        from exsearch.models.loading import load_model, load_tokenizer
    except ImportError as error:
        raise MissingExtraError("converting a GGUF file", "local", str(error)) from None
    options = {"gguf_file": file.name}
    plain = GgufConfig(dequantize=True)
    try:
        tokenizer = load_tokenizer(file.parent, **options)
        model = load_model(file.parent, "float32", **options, quantization_config=plain)
    except ModelError as error:  # it names the folder, which may hold many files
        reason = " ".join(str(error.__cause__ or error).split())
        raise ModelError(f"{file}: no GGUF file that can be converted: {reason}") from error
    # The weights are plain float32 now; without this they would be saved as "quantised".
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    _tie(model)
    with new_folder(folder) as out:
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def _tie(model: Any) -> None:
    """Make the head one with the embedding again, where a file holds the same matrix twice.

    Else a part of all weights would be trained apart. The head's copy stays: files keep it in more
    bits.
    """
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if (
        head is None
        or head.weight is embedding.weight
        or head.weight.shape != embedding.weight.shape
    ):
        return
    likeness = torch.nn.functional.cosine_similarity(head.weight, embedding.weight).median()
    if likeness < _TIED:
        return
    embedding.weight = head.weight
    model.config.get_text_config().tie_word_embeddings = True
    model.config.tie_word_embeddings = True
    model.tie_weights()
