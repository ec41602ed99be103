"""Building turns names and recipes into live objects; the one place that knows every concrete class.

Other packages add engines and retrievers through entry points (`exsearch.engines`,
`exsearch.retrievers`): a name and a callable that takes what the built-in ones take.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exsearch.config import first_difference, load_config, to_plain
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.engines.base import Engine
from exsearch.engines.embedded import EMBEDDED_MODEL, embedded_model
from exsearch.errors import ConfigError, MissingExtraError, ModelError, RunError
from exsearch.retrievers.base import Retriever
from exsearch.runs import is_complete, locked, sha256_file, write_atomic
from exsearch.training.recipe import DataConfig, ModelConfig, Recipe

logger = logging.getLogger(__name__)

ENGINES = {
    "transformers": "exsearch.build:open_transformers",
    "scripted": "exsearch.build:open_scripted",
}
RETRIEVERS = {"bm25": "exsearch.build:open_bm25"}
RECIPE_FILE = "recipe.json"
ENVIRONMENT_FILE = "environment.json"


def load_engine(
    model: str | Path = EMBEDDED_MODEL, *, engine: str = "transformers", **settings: Any
) -> Engine:
    """An engine with a model: a name, a Hugging Face id, a folder, or a finished run.

    Args:
        model: What to load; see `resolve_model`.
        engine: Which engine runs it.
        settings: The other settings of `ModelConfig` (device, batch_size, …).

    Raises:
        ModelError: no such model.
        ConfigError: no such engine.
        MissingExtraError: the engine's packages are not installed.
    """
    return open_engine(ModelConfig(name=str(model), engine=engine, **settings))


def load_retriever(index: str | Path, *, kind: str = "bm25", cache: int = 100_000) -> Retriever:
    """The retriever over an index folder, with a cache for repeated queries (0: none).

    Raises:
        IndexDamagedError: no index there, or a damaged one.
        ConfigError: no such kind of retriever.
    """
    retriever = _target(RETRIEVERS, kind, "retriever")(Path(index))
    if not cache:
        return retriever
    from exsearch.retrievers.cached import CachedRetriever

    return CachedRetriever(retriever, cache)


def open_engine(config: ModelConfig) -> Engine:
    """The engine that a recipe's `[model]` describes; raises as `load_engine`."""
    return _target(ENGINES, config.engine, "engine")(config)


def open_transformers(config: ModelConfig) -> Engine:
    """`TransformersEngine`; raises MissingExtraError where torch or transformers is missing."""
    try:
        from exsearch.engines.transformers import TransformersEngine
    except ImportError as error:
        raise MissingExtraError("running a model here", "local", str(error)) from None
    return TransformersEngine(
        resolve_model(config.name),
        device=config.device,
        batch_size=config.batch_size,
        token_budget=config.token_budget,
        template_kwargs=config.chat_template_kwargs,
        system_prompt=config.system_prompt,
    )


def open_scripted(config: ModelConfig) -> Engine:
    """`ScriptedEngine` that answers from the script file named as the model."""
    from exsearch.engines.scripted import ScriptedEngine

    return ScriptedEngine.from_file(Path(config.name))


def open_bm25(index: Path) -> Retriever:
    """`Bm25Retriever` over an index folder."""
    from exsearch.retrievers.bm25 import Bm25Retriever

    return Bm25Retriever.open(index)


def resolve_model(name: str | Path) -> str:
    """A model's folder or Hugging Face id: the embedded one, a run's best, a folder, an id.

    Raises:
        ModelError: a path that is neither a model nor a finished run.
    """
    if str(name) == EMBEDDED_MODEL:
        return str(embedded_model())
    folder = Path(name).expanduser()
    if (folder / "best.json").is_file():
        best = json.loads((folder / "best.json").read_text())["model"]
        inner = folder / best
        return str(inner) if inner.is_dir() else resolve_model(best)
    if (folder / RECIPE_FILE).is_file():
        raise ModelError(f"{folder}: this run is not finished; finish it with `exsearch train`")
    if folder.is_dir():
        if not ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
            raise ModelError(f"{folder}: neither a model folder (config.json) nor a finished run")
        return str(folder)
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        near = difflib.get_close_matches(str(name), [EMBEDDED_MODEL], n=1)
        hint = f"did you mean {near[0]}?" if near else f"try {EMBEDDED_MODEL}"
        raise ModelError(f"no model {str(name)!r}: no such name or folder; {hint}")
    return str(name)


def _target(table: dict[str, str], name: str, noun: str) -> Callable[..., Any]:
    plugins = {e.name: e for e in importlib.metadata.entry_points(group=f"exsearch.{noun}s")}
    if name in table:
        module, attribute = table[name].split(":")
        return getattr(importlib.import_module(module), attribute)
    if name in plugins:
        return plugins[name].load()
    known = [*table, *plugins]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise ConfigError(f"no {noun} {name!r}; {hint}")


def train(
    recipe_file: Path,
    *,
    overrides: tuple[str, ...] = (),
    out: Path | None = None,
    progress: bool = True,
) -> tuple[Path, dict[str, Any]]:
    """Run a recipe to its end, or on from where it stopped.

    Returns:
        The run's folder and what its `best.json` says.

    Raises:
        ExSearchError: whatever stands in the way, in one line.
    """
    recipe = load_config(Recipe, recipe_file, overrides)
    try:
        from exsearch.training.loop import Loop
    except ImportError as error:
        raise MissingExtraError("training", "local", str(error)) from None
    folder = out or Path("runs") / recipe.name
    with locked(folder):
        data = _data_files(recipe.data, recipe_file.parent)
        _settle(recipe, folder, data)
        train_questions = load_questions(data["train"][0])
        dev = load_questions(data["dev"][0])
        retriever = _run_retriever(recipe, folder, data["corpus"], recipe_file.parent, progress)
        engine = open_engine(recipe.model)
        loop = Loop(
            recipe,
            folder,
            train=train_questions,
            dev=dev,
            retriever=retriever,
            engine=engine,
            start=resolve_model(recipe.model.name),
            device=getattr(engine, "device", None),
            progress=progress,
        )
        return folder, loop.run()


def _data_files(data: DataConfig, base: Path) -> dict[str, list[Path]]:
    def path(name: str, sample: str) -> Path:
        return sample_path(sample) if name == "sample" else base / Path(name).expanduser()

    return {
        "corpus": [path(name, "corpus") for name in data.corpus],
        "train": [path(data.train, "train")],
        "dev": [path(data.dev, "dev")],
    }


def _run_retriever(
    recipe: Recipe, folder: Path, corpus: list[Path], base: Path, progress: bool
) -> Retriever:
    if recipe.retriever.index:
        index = base / recipe.retriever.index
    else:
        index = folder / "index"
        if not is_complete(index):
            from exsearch.retrievers.bm25 import build_bm25

            build_bm25(read_corpus(corpus), index, progress=progress)
    return load_retriever(index, kind=recipe.retriever.kind, cache=recipe.retriever.cache)


def _settle(recipe: Recipe, folder: Path, data: dict[str, list[Path]]) -> None:
    """Write down what determines the run, or check that it is what was written down before."""
    hashes = {
        f"{role} {path.name}": sha256_file(path)
        for role, files in data.items()
        for path in files
        if path.is_file()
    }
    now = {"recipe": to_plain(recipe), "data_sha256": hashes}
    file = folder / RECIPE_FILE
    if file.exists():
        difference = first_difference(json.loads(file.read_text()), now)
        if difference:
            raise RunError(
                f"{folder}: this run was begun with other settings: {difference}; "
                "name another folder with --out, or undo the change"
            )
    else:
        write_atomic(folder / ENVIRONMENT_FILE, json.dumps(environment(), indent=1))
        write_atomic(file, json.dumps(now, indent=1))
    before = json.loads((folder / ENVIRONMENT_FILE).read_text())
    changed = first_difference(before, environment())
    if changed:
        logger.warning("%s: the environment is not the one it began in: %s", folder, changed)


def environment() -> dict[str, Any]:
    """Versions of what results depend on, and the machine in a few words."""
    names = (
        "exsearch",
        "torch",
        "transformers",
        "tokenizers",
        "accelerate",
        "peft",
        "bm25s",
        "numpy",
    )
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions,
    }
