"""Building turns names and settings into live objects; it alone knows every concrete class.

It runs none of them (`jobs` does). Other packages add engines and retrievers through entry points
(`exsearch.engines`, `exsearch.retrievers`): a name and a callable that takes what the built-in ones
take.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exsearch.agent.episode import AgentConfig
from exsearch.config import parse_config
from exsearch.engines.base import Engine
from exsearch.engines.embedded import EMBEDDED_MODEL, embedded_model
from exsearch.engines.endpoint_config import EndpointConfig
from exsearch.errors import ConfigError, MissingExtraError, ModelError
from exsearch.retrievers.base import Retriever
from exsearch.training.recipe import ModelConfig

ENGINES = {
    "transformers": "exsearch.build:open_transformers",
    "openai": "exsearch.build:open_openai",
    "vllm": "exsearch.build:open_vllm",
    "scripted": "exsearch.build:open_scripted",
}
UNTRAINABLE = ("openai", "scripted")
# Whole numbers that `model.engine_options` may hold; other engines check their own.
ENGINE_OPTIONS = {"transformers": ("cache_tokens",), "openai": (), "scripted": ()}
RETRIEVERS = {"bm25": "exsearch.build:open_bm25"}
RECIPE_FILE = "recipe.json"
BEST_FILE = "best.json"
MODEL_SETTINGS_FILE = "exsearch.json"


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """How a model was trained to be asked; the defaults suit one that says nothing."""

    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


def load_engine(
    model: str | Path = EMBEDDED_MODEL, *, engine: str = "transformers", **settings: Any
) -> Engine:
    """An engine with a model: a name, a Hugging Face id, a folder, or a finished run.

    A model that was trained here keeps its system prompt and chat template's variables; the agent
    it was trained with is `model_settings(model).agent`.

    Args:
        model: What to load; see `resolve_model`.
        engine: Which engine runs it.
        settings: The other settings of `ModelConfig` (device, batch_size, …).

    Raises:
        ModelError: no such model.
        ConfigError: no such engine.
        MissingExtraError: the engine's packages are not installed.
    """
    trained = model_settings(model)
    asked = {
        "system_prompt": trained.system_prompt,
        "chat_template_kwargs": trained.chat_template_kwargs,
    }
    return open_engine(ModelConfig(name=str(model), engine=engine, **{**asked, **settings}))


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
    check_engine(config)
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
        **config.engine_options,
    )


def open_openai(config: ModelConfig) -> Engine:
    """`OpenAIEngine` on the server at `base_url`."""
    from exsearch.engines.openai import OpenAIEngine

    return OpenAIEngine(_endpoint(config), config.system_prompt, config.chat_template_kwargs)


def _endpoint(config: ModelConfig) -> EndpointConfig:
    if not config.base_url:
        raise ConfigError(
            "engine openai needs the server's address: --base-url http://localhost:8000/v1 "
            "(model.base_url)"
        )
    return EndpointConfig(
        config.base_url,
        config.name,
        config.api_key_env,
        max_tokens=0,  # each request has its own
        concurrency=config.batch_size,
        retries=3,  # someone may be waiting
    )


def check_engine(config: ModelConfig) -> None:
    """That an engine's settings are its own and can be used, before anything is opened or written.

    A server is to be named where the engine needs one, and only there.

    Raises:
        ConfigError: they are not; names the setting.
    """
    if config.engine in ENGINE_OPTIONS:
        _check_options(config, ENGINE_OPTIONS[config.engine])
    if config.engine == "openai":
        _endpoint(config)
    elif config.base_url is not None:
        raise ConfigError(
            f"--base-url (model.base_url) is for engine openai, not {config.engine}: add --engine "
            "openai, or leave the address out"
        )


def _check_options(config: ModelConfig, known: tuple[str, ...]) -> None:
    for name, value in config.engine_options.items():
        place = f"model.engine_options.{name}"
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise ConfigError(f"{place}: the engine {config.engine!r} {takes}")
        if type(value) is not int or value < 0:
            raise ConfigError(f"{place} is {value!r}, expected a whole number, 0 or more")


def check_trainable(config: ModelConfig) -> None:
    """That an engine's model can be trained, as far as its settings tell.

    Raises:
        ConfigError: it has no weights here, or see `check_engine`.
    """
    if config.engine in UNTRAINABLE:
        raise ConfigError(
            f"model.engine: {config.engine!r} has no weights to train; take transformers"
        )
    check_engine(config)


def open_vllm(config: ModelConfig) -> Engine:
    """`VllmEngine`; raises MissingExtraError where vLLM is missing."""
    try:
        from exsearch.engines.vllm import VllmEngine
    except ImportError as error:
        raise MissingExtraError("the vLLM engine", "vllm", str(error)) from None
    return VllmEngine(
        resolve_model(config.name),
        device=config.device,
        batch_size=config.batch_size,
        token_budget=config.token_budget,
        options=config.engine_options,
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
    if (folder / BEST_FILE).is_file():
        best = _read_json(folder / BEST_FILE)["model"]
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


def model_settings(model: str | Path) -> ModelSettings:
    """How a model was trained to be asked: from its `exsearch.json`, or from its run's recipe.

    A model that says nothing (a Hugging Face id, the embedded one) has the defaults. Nothing is
    loaded, converted or fetched.

    Raises:
        ConfigError: an `exsearch.json` that can't be read.
        ModelError: a run that is not finished.
    """
    folder = Path(model).expanduser()
    if (folder / BEST_FILE).is_file():
        best = folder / _read_json(folder / BEST_FILE)["model"]
        if not (best / MODEL_SETTINGS_FILE).is_file():  # the run's best is the model it began with
            recipe = _read_json(folder / RECIPE_FILE)["recipe"]
            values = {
                "agent": recipe["agent"],
                "system_prompt": recipe["model"]["system_prompt"],
                "chat_template_kwargs": recipe["model"]["chat_template_kwargs"],
            }
            return parse_config(ModelSettings, values, place=str(folder / RECIPE_FILE))
        folder = best
    file = folder / MODEL_SETTINGS_FILE
    if not file.is_file():
        return ModelSettings()
    return parse_config(ModelSettings, _read_json(file), place=str(file))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: damaged, not JSON ({error})") from None


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
