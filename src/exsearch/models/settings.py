"""A model on disk: where it is, and how it was trained to be asked.

A model is named by `exsearch-smollm2-135m` (the searcher of this package), `smollm2-135m` (what it
was trained from), a Hugging Face id, a folder, or a finished training run. Nothing is loaded here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

from exsearch.config import parse_config, renamed, to_plain, user_path
from exsearch.errors import ConfigError, ModelError
from exsearch.json_files import read_json
from exsearch.methods import MethodField, open_method
from exsearch.models.embedded import (
    EMBEDDED_MODEL,
    SEARCHER,
    SEARCHER_FOLDER,
    embedded_model,
)
from exsearch.models.gguf import GGUF, gguf_model
from exsearch.runs import cache_folder

MODEL_FILE = "exsearch.json"  # in a model's folder: how it was trained to be asked
RECIPE_FILE = "recipe.json"  # in a run's folder: what determines the run
BEST_FILE = "best.json"  # in a finished run's folder: its best model
VERIFY_VARIABLE = "EXSEARCH_VERIFY"  # at 0, a model is used without comparing it with its manifest


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """How a model was trained to be asked; the defaults suit one that says nothing.

    Attributes:
        method: The method that the model answers questions by.
        system_prompt: The system turn; None leaves it to the chat template.
        chat_template_kwargs: Variables for the chat template.
    """

    method: MethodField = renamed("agent", default_factory=open_method)
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


def model_settings(model: str | Path) -> ModelSettings:
    """How a model was trained to be asked: from its `exsearch.json`, or from its run's recipe.

    A model that says nothing (a Hugging Face id, `smollm2-135m`) has the defaults. Nothing is
    loaded, converted or fetched.

    Args:
        model: The name, id or folder of a model, or the folder of a finished run.

    Raises:
        ConfigError: an `exsearch.json`, a `best.json` or a recipe that can't be read.
    """
    folder = SEARCHER_FOLDER if str(model) == SEARCHER else user_path(model)
    if (folder / BEST_FILE).is_file():
        best = folder / read_json(folder / BEST_FILE, ConfigError, model=str)["model"]
        if not (best / MODEL_FILE).is_file():  # the run's best is the model it began with
            recipe = read_json(folder / RECIPE_FILE, ConfigError, recipe=dict)["recipe"]
            names = [field.name for field in dataclasses.fields(ModelSettings)]
            model_section = recipe.get("model")
            asked = {**(model_section if isinstance(model_section, dict) else {}), **recipe}
            values = {name: asked[name] for name in ("agent", *names) if name in asked}
            return parse_config(ModelSettings, values, place=str(folder / RECIPE_FILE))
        folder = best
    file = folder / MODEL_FILE
    if not file.is_file():
        return ModelSettings()
    return parse_config(ModelSettings, read_json(file, ConfigError), place=str(file))


def write_model_settings(settings: ModelSettings, folder: Path) -> None:
    """Write how a model was trained to be asked into `exsearch.json` in the model's folder."""
    (folder / MODEL_FILE).write_text(json.dumps(to_plain(settings), indent=1))


def resolve_model(name: str | Path) -> str:
    """The folder or Hugging Face id that a model's name stands for.

    Args:
        name: `exsearch-smollm2-135m`, `smollm2-135m`, a Hugging Face id, a model folder, a GGUF
            file, or the folder of a finished run, which stands for the run's best model.

    Raises:
        ModelError: a path that is neither a model nor a finished run.
    """
    if str(name) == EMBEDDED_MODEL:
        return str(embedded_model())
    if str(name) == SEARCHER:
        return str(SEARCHER_FOLDER)
    folder = user_path(name)
    if (folder / BEST_FILE).is_file():
        best = read_json(folder / BEST_FILE, ConfigError, model=str)["model"]
        if (inner := folder / best).is_dir():
            return str(inner)
        if (user_path(best) / BEST_FILE).is_file():
            raise ModelError(f"{folder / BEST_FILE}: damaged, its best model {best} is a run")
        return resolve_model(best)
    if (folder / RECIPE_FILE).is_file():
        raise ModelError(f"{folder}: this run is not finished; finish it with `exsearch train`")
    if folder.suffix.lower() == GGUF and folder.is_file():
        return str(gguf_model(folder))
    if folder.is_dir():
        if not ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
            raise ModelError(f"{folder}: neither a model folder (config.json) nor a finished run")
        return str(folder)
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        near = difflib.get_close_matches(str(name), [EMBEDDED_MODEL, SEARCHER], n=1)
        hint = f"did you mean {near[0]}?" if near else f"try {SEARCHER}"
        raise ModelError(f"no model {str(name)!r}: no such name or folder; {hint}")
    return str(name)


def base_name(model: str | Path) -> str:
    """The name by which an adapter remembers the model that it stands on.

    The embedded model has the same name on every machine, so such an adapter can be copied.

    Args:
        model: A model folder, or a Hugging Face id.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    embedded = cache_folder() / EMBEDDED_MODEL
    return EMBEDDED_MODEL if folder.resolve() == embedded.resolve() else str(folder.resolve())
