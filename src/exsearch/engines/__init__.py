"""Engines read prompts and write tokens; `ENGINES` names them, and `open_engine` opens one.

Other packages add engines by entry points in the group `exsearch.engines`: an `EngineKind`. Nothing
here runs a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from exsearch import plugins
from exsearch.engines.base import Engine
from exsearch.engines.config import ModelConfig
from exsearch.engines.server.config import EndpointConfig
from exsearch.errors import ConfigError, MissingExtraError
from exsearch.models.embedded import EMBEDDED_MODEL
from exsearch.models.settings import model_settings

ENGINES = {
    "transformers": "exsearch.engines.local.engine:TransformersEngine",
    "openai": "exsearch.engines.server.engine:OpenAIEngine",
    "vllm": "exsearch.engines.vllm.engine:VllmEngine",
    "scripted": "exsearch.engines.scripted:ScriptedEngine",
}
_EXTRAS = {"transformers": ("running a model here", "local"), "vllm": ("the vLLM engine", "vllm")}


class EngineKind(Protocol):
    """The class of an engine: what can be said before a model is loaded, and how to load one.

    Attributes:
        trains: True where an M-step can train the weights of this engine's models.
        has_server: True where the model is behind an address (`model.base_url`).
        options: The whole numbers that `model.engine_options` may hold; None where the engine
            checks its options itself.
    """

    trains: ClassVar[bool]
    has_server: ClassVar[bool]
    options: ClassVar[tuple[str, ...] | None]

    @classmethod
    def from_config(cls, config: ModelConfig) -> Engine:
        """Open the engine that a recipe's `[model]` describes.

        Raises:
            ModelError: the model can't be loaded.
            ConfigError: a setting that the engine can't use.
        """
        ...


def load_engine(
    model: str | Path = EMBEDDED_MODEL, *, engine: str = "transformers", **settings: Any
) -> Engine:
    """An engine with a model: a name, a Hugging Face id, a folder, or a finished run.

    A model that was trained here keeps its system prompt and chat template's variables; the method
    it was trained with is `model_settings(model).method`.

    Args:
        model: The name, id or folder of the model (`models.settings.resolve_model`).
        engine: The name of the engine that runs the model.
        settings: More settings of `ModelConfig`: device, batch_size, …

    Raises:
        ModelError: no such model.
        ConfigError: no such engine, or a setting that it can't use.
        MissingExtraError: the engine's packages are not installed.
    """
    trained = model_settings(model)
    asked = {
        "system_prompt": trained.system_prompt,
        "chat_template_kwargs": trained.chat_template_kwargs,
    }
    return open_engine(ModelConfig(name=str(model), engine=engine, **{**asked, **settings}))


def open_engine(config: ModelConfig) -> Engine:
    """The engine that a recipe's `[model]` describes.

    Raises:
        ModelError: no such model.
        ConfigError: no such engine, or a setting that it can't use.
        MissingExtraError: the engine's packages are not installed.
    """
    return check_engine(config).from_config(config)


def check_engine(config: ModelConfig, *, to_train: bool = False) -> EngineKind:
    """Make sure that an engine's settings are its own, before a model is loaded or a file written.

    Args:
        config: The settings of the model and its engine.
        to_train: Whether the model is to be trained, too.

    Returns:
        The class of the engine.

    Raises:
        ConfigError: no such engine, a setting that it can't use, which the message names, or
            weights that it does not have to train.
        MissingExtraError: the engine's packages are not installed.
    """
    try:
        kind: EngineKind = plugins.find(ENGINES, config.engine, "engine")
    except ImportError as error:
        if config.engine not in _EXTRAS:
            raise
        raise MissingExtraError(*_EXTRAS[config.engine], str(error)) from None
    if to_train and not kind.trains:
        raise ConfigError(
            f"model.engine: {config.engine!r} has no weights to train; take transformers"
        )
    if kind.options is not None:
        _check_options(config, kind.options)
    if kind.has_server:
        EndpointConfig(config.base_url or "", config.name, config.api_key_env)  # refuses the rest
    if config.base_url is not None and not kind.has_server:
        raise ConfigError(
            f"--base-url (model.base_url) is for engine openai, not {config.engine}: add --engine "
            "openai, or leave the address out"
        )
    return kind


def _check_options(config: ModelConfig, known: tuple[str, ...]) -> None:
    for name, value in config.engine_options.items():
        place = f"model.engine_options.{name}"
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise ConfigError(f"{place}: the engine {config.engine!r} {takes}")
        if type(value) is not int or value < 0:
            raise ConfigError(f"{place} is {value!r}, expected a whole number, 0 or more")
