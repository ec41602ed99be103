"""Options are the same for the same thing in every command, and so are their defaults.

A command takes the ones it needs as `**options`; the functions at the end make settings of them,
and open nothing.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exsearch.cli.failures import DEBUG, start_logging
from exsearch.progress import Bars
from exsearch.terminal import safe

if TYPE_CHECKING:
    from exsearch.engines.config import ModelConfig
    from exsearch.jobs.inputs import Asking
    from exsearch.methods.base import Method

DEFAULT_MODEL = "exsearch-smollm2-135m"
ABSTAIN = 0.35  # chosen on dev (docs/serving.md), where nothing better was found
COUNT = click.IntRange(min=1)
PATH = click.Path(path_type=Path)  # what is wrong with a path is said where it is read

Command = Callable[..., Any]
# Settings of methods that have an option of their own.
_METHOD_SETTINGS = ("max_steps", "passages", "passage_words", "context", "select")


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = value


def _set_verbosity(ctx: click.Context, parameter: click.Parameter, value: int) -> None:
    start_logging(logging.INFO if value else logging.WARNING)


def _no_verify(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    from exsearch.models.settings import VERIFY_VARIABLE

    if value and os.environ.get(VERIFY_VARIABLE) != "0":  # the engine's own processes read it, too
        before = os.environ.get(VERIFY_VARIABLE, "1")
        os.environ[VERIFY_VARIABLE] = "0"
        ctx.call_on_close(lambda: os.environ.update({VERIFY_VARIABLE: before}))


def _allow_hosts(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    from exsearch.hosts import VARIABLE

    before = os.environ.get(VARIABLE)
    if value and before != " ".join(value):  # what opens places reads it, in other processes, too
        os.environ[VARIABLE] = " ".join(value)
        ctx.call_on_close(lambda: _set_variable(VARIABLE, before))


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _bars(ctx: click.Context, parameter: click.Parameter, quiet: bool) -> Bars:
    return Bars(not quiet)


common = together(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, last on stdout."),
    click.option("-q", "--quiet", "bars", is_flag=True, callback=_bars, help="No progress bars."),
    click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        is_eager=True,
        callback=_set_verbosity,
        help="Say what is being done.",
    ),
    click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show the traceback of an error.",
    ),
)

timeout_option = click.option(
    "--retriever-timeout",
    type=click.FloatRange(0, 1e6, min_open=True, max_open=True),
    default=60.0,
    metavar="SECONDS",
    help="Seconds until a search counts as failed.",
)

allow_host_option = click.option(
    "--allow-host",
    multiple=True,
    envvar="EXSEARCH_ALLOW_HOST",
    metavar="HOST",
    expose_value=False,
    callback=_allow_hosts,
    help="A host that a folder of combined places may send queries to; may be repeated. Also "
    "EXSEARCH_ALLOW_HOST.",
)

index_option = together(
    allow_host_option,
    click.option(
        "--index",
        required=True,
        metavar="INDEX",
        help="Folder made by `exsearch index`, or the address of a search server.",
    ),
    timeout_option,
)

place_option = together(
    allow_host_option,
    click.option(
        "--index",
        metavar="INDEX",
        help="Folder made by `exsearch index`, or the address of a search server.",
    ),
    click.option(
        "--docs",
        type=PATH,
        metavar="FOLDER",
        help="Folder of texts and documents to index now, instead of --index; what has not changed "
        "since the last time is not read again.",
    ),
    timeout_option,
)

questions_option = click.option(
    "--questions",
    required=True,
    metavar="FILE",
    help="Question file (.jsonl, .csv, .tsv, .gz of one, .parquet); sample:train, :dev, :test are "
    "the packaged ones.",
)

limit_option = click.option("--limit", type=COUNT, metavar="N", help="The first N questions only.")

_verify_option = click.option(
    "--no-verify",
    is_flag=True,
    expose_value=False,
    callback=_no_verify,
    help="Use a model that was written here without comparing it with its manifest.",
)

model_options = together(
    _verify_option,
    click.option(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help="A name, a Hugging Face id, a model folder, a finished run, or a GGUF file; with "
        "--engine openai, the server's name for it.",
    ),
    click.option(
        "--engine",
        default="transformers",
        metavar="ENGINE",
        help="What runs the model: transformers, vllm, openai (a server), scripted, or one "
        "that a package adds.",
    ),
    click.option(
        "--base-url",
        metavar="URL",
        help="An OpenAI-compatible server, for --engine openai: http://localhost:8000/v1.",
    ),
    click.option(
        "--api-key-env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="Environment variable with the server's key; it may be unset.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="The device that runs the model.",
    ),
    click.option(
        "--batch-size",
        type=COUNT,
        default=64,
        help="Sequences decoded together, or requests to a server at once.",
    ),
    click.option(
        "--token-budget",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Prompt tokens in one pass; 0 takes what suits the device.",
    ),
    click.option(
        "--engine-option",
        "engine_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the engine's own, such as cache_tokens=65536; may be repeated.",
    ),
    click.option(
        "--system-prompt",
        metavar="TEXT",
        help='May be "". Default: as the model was trained, or its chat template\'s own.',
    ),
)

method_options = together(
    click.option(
        "--method",
        metavar="METHOD",
        help="How questions are answered: searcher, direct, rag, self-ask, or one that a package "
        "adds. Default: as the model was trained, or searcher.",
    ),
    click.option(
        "--max-steps",
        type=COUNT,
        metavar="N",
        help="The most searches. Default: as the model was trained, or the method's own.",
    ),
    click.option(
        "--passages",
        type=COUNT,
        metavar="N",
        help="Passages that a search returns. Default: as trained, or the method's own.",
    ),
    click.option(
        "--passage-words",
        type=COUNT,
        metavar="N",
        help="Words of a passage shown to the model. Default: as trained, or the method's own.",
    ),
    click.option(
        "--context",
        type=click.Choice(["notes", "transcript"]),
        help="What a prompt of the searcher holds. Default: as trained, or notes.",
    ),
    click.option(
        "--select/--no-select",
        default=None,
        help="Let the searcher pick passages before it records. Default: as trained, or off.",
    ),
    click.option(
        "--method-option",
        "method_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Another setting of the method, such as thought_tokens=40; may be repeated.",
    ),
    click.option("--seed", type=int, default=0, help="Decides all sampling."),
)


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A value that replaces the recipe's, such as gem.iterations=3; may be repeated.",
)

recipe_model_options = together(
    _verify_option,
    click.option(
        "--model", metavar="MODEL", help="The model to start from. Default: the recipe's."
    ),
    click.option("--engine", metavar="ENGINE", help="What runs the model. Default: the recipe's."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        help="The device that runs the model. Default: the recipe's.",
    ),
)


def recipe_overrides(options: dict[str, Any]) -> tuple[str, ...]:
    """The overrides of a command with a recipe: its model options, then its `--set`."""
    keys = {"model": "name", "engine": "engine", "device": "device"}
    given = [
        f"model.{key}={json.dumps(options[option], ensure_ascii=False)}"
        for option, key in keys.items()
        if options[option] is not None
    ]
    return (*given, *options["overrides"])


abstain_option = click.option(
    "--abstain",
    type=click.FloatRange(0, 1),
    is_flag=False,
    flag_value=ABSTAIN,
    default=0.0,
    metavar="[T]",
    help=f"Withhold an answer that rests on less than this, from 0 to 1; {ABSTAIN} where no value "
    "follows.",
)


def temperature_option(default: float) -> Callable[[Command], Command]:
    """The option `--temperature` with this default; 0 is greedy."""
    return click.option(
        "--temperature",
        type=click.FloatRange(min=0, max=100),
        default=default,
        help="Temperature of sampling; 0 is greedy, 1 the model's own distribution.",
    )


def model_config(options: dict[str, Any]) -> ModelConfig:
    """The settings of the model that the options name; it is asked as it was trained.

    Raises:
        ConfigError: a setting that the engine can't use.
        MissingExtraError: the engine's packages are not installed.
    """
    from exsearch.config import set_value
    from exsearch.engines import check_engine
    from exsearch.engines.config import ModelConfig
    from exsearch.models.settings import model_settings

    engine_options: dict[str, Any] = {}
    for given in options["engine_options"]:
        set_value(engine_options, given, "--engine-option", "cache_tokens=65536")
    trained = model_settings(options["model"])
    own = options["system_prompt"]
    config = ModelConfig(
        name=options["model"],
        engine=options["engine"],
        device=options["device"],
        batch_size=options["batch_size"],
        token_budget=options["token_budget"],
        system_prompt=trained.system_prompt if own is None else own,
        chat_template_kwargs=trained.chat_template_kwargs,
        base_url=options["base_url"],
        api_key_env=options["api_key_env"],
        engine_options=engine_options,
    )
    check_engine(config)  # before anything is written
    return config


def method_of(options: dict[str, Any]) -> Method:
    """The method that the options name, as the model was trained where they say nothing.

    Raises:
        UsageError: an option that is no setting of this method.
        ConfigError: no such method, or a value that it can't use.
    """
    from exsearch.config import set_value
    from exsearch.methods import method_settings, method_values, open_method
    from exsearch.models.settings import model_settings

    trained = model_settings(options["model"]).method
    name = options["method"] or trained.name
    values = method_values(trained) if name == trained.name else {"name": name}
    given = {key: options[key] for key in _METHOD_SETTINGS if options[key] is not None}
    for text in options["method_options"]:
        set_value(given, text, "--method-option", "thought_tokens=40")
    known = method_settings(name)
    for key in given:
        if key not in known:
            option = f"--{key.replace('_', '-')}" if key in _METHOD_SETTINGS else key
            raise click.UsageError(f"{option} is no setting of method {name}: {', '.join(known)}")
    return open_method({**values, **given})


def place_of(options: dict[str, Any], bars: Bars) -> str:
    """The index that the options name; a folder of texts is indexed first, which is told.

    Raises:
        UsageError: neither --index nor --docs, or both.
        DataError: no such folder, or no text in it.
    """
    if (options["index"] is None) == (options["docs"] is None):
        raise click.UsageError("give the passages: an --index, or a folder of texts (--docs)")
    if options["docs"] is None:
        return options["index"]
    from exsearch.jobs.folder_index import index_folder

    made = index_folder(options["docs"], progress=bars.shown)
    if bars.shown:
        said = f"{made.added} new, {made.changed} changed, {made.removed} removed"
        place = safe(str(options["docs"]))
        click.echo(f"{place}: {made.files} files ({said}), {made.passages} passages", err=True)
    return str(made.index)


def asking(options: dict[str, Any]) -> Asking:
    """The questions, model, method and index that the options name."""
    from exsearch.jobs.inputs import Asking

    return Asking(
        questions=options["questions"],
        index=options["index"],
        model=model_config(options),
        method=method_of(options),
        limit=options["limit"],
        seed=options["seed"],
        timeout=options["retriever_timeout"],
    )
