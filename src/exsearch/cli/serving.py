"""Commands that serve until they are stopped.

`serve` answers questions over HTTP, `mcp` for the program that starts it, and `serve-retriever`
searches.

They read options and print; the work is done in `serving` and `retrievers.serving`.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from exsearch.cli.given import Remembering, given_options
from exsearch.cli.options import (
    COUNT,
    PATH,
    abstain_option,
    allow_host_option,
    common,
    method_of,
    method_options,
    model_config,
    model_options,
    place_of,
    place_option,
    timeout_option,
    together,
)
from exsearch.cli.output import tell
from exsearch.progress import Bars
from exsearch.terminal import safe

SERVE_EXAMPLES = """\b
Examples:
  exsearch serve --index index
  exsearch serve --docs notes
  exsearch serve --index index --model runs/mine --port 8080
  exsearch serve --run runs/mine
  EXSEARCH_API_KEY=... exsearch serve --index index --host 0.0.0.0 --public-url https://ask.example
"""

# What a report's server takes of the options of `serve`.
_OF_A_REPORT = (
    *("run", "host", "port", "key_env", "public_url", "hosts", "origins"),
    *("as_json", "bars"),
)
HOSTS = ("claude-desktop", "claude-code", "cursor", "vscode")

MCP_EXAMPLES = """\b
Examples:
  exsearch mcp install --index index --into claude-desktop
  exsearch mcp install --index index --model runs/mine --into cursor --into vscode
  exsearch mcp install --index index --print
  exsearch mcp --index index
"""

RETRIEVER_EXAMPLES = """\b
Examples:
  exsearch serve-retriever index
  exsearch serve-retriever index --port 8080 --workers 4
  exsearch ask "..." --index http://localhost:8000 --model runs/mine
"""


_bound_options = together(
    click.option("--max-questions", type=COUNT, default=256, help="Questions in hand at once."),
    click.option(
        "--deadline",
        type=click.FloatRange(0, 1e6, min_open=True, max_open=True),
        default=300.0,
        metavar="SECONDS",
        help="Seconds until a question is given up.",
    ),
    abstain_option,
)


@click.command(epilog=SERVE_EXAMPLES)
@click.option(
    "--run",
    type=PATH,
    metavar="RUN",
    help="Serve the report of a run instead, which follows it while it is trained.",
)
@place_option
@click.option(
    "--host",
    default="127.0.0.1",
    help="Interface to listen on; any but this machine's needs a key.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0 takes a free one.")
@click.option(
    "--key-env",
    default="EXSEARCH_API_KEY",
    metavar="NAME",
    help="Environment variable with the key that clients have to send; unset lets everybody in.",
)
@click.option(
    "--public-url", default="", metavar="URL", help="Address at which clients reach the server."
)
@click.option(
    "--host-name",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another name under which the server may be asked; may be repeated.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="A site whose pages may ask, such as http://localhost:3000; may be repeated.",
)
@_bound_options
@click.option("--kept", type=click.IntRange(0), default=1000, help="Answers remembered.")
@model_options
@method_options
@common
@click.pass_context
def serve(
    ctx: click.Context,
    run: Path | None,
    host: str,
    port: int,
    key_env: str,
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Serve a searcher: OpenAI's API, MCP and a page.

    Answers until it is stopped; questions in hand are answered first.
    """
    from exsearch.http_server import ALL_PACKAGES, REPORT_PACKAGES, check_installed, listen
    from exsearch.training.stages import check_run

    if run:
        _refuse_searcher(ctx)
    check_installed("serve", ALL_PACKAGES)
    if run:
        check_installed("serve --run", REPORT_PACKAGES, "report")
        check_run(run)
    from exsearch.serving import ServeConfig
    from exsearch.serving.server import check_open
    from exsearch.serving.server import serve as answer

    names = ("public_url", "hosts", "origins", "max_questions", "deadline", "kept")
    settings = {name: options[name] for name in names}
    key = os.environ.get(key_env, "")
    config = ServeConfig("report" if run else _model_name(options), **settings, key=key)
    listener = listen(host, port)  # before a model is loaded for nothing
    check_open(listener, config)
    if run:
        _serve_report(run, config, listener, as_json)
        return

    def on_ready(address: str) -> None:
        tell(as_json, {"address": address}, f"{config.model} is served at {address}")

    answer(_searcher(options, bars), config, listener, on_ready)


def _refuse_searcher(ctx: click.Context) -> None:
    """Make sure that nothing of a searcher was named beside the run whose report is served."""
    for option in ctx.command.params:
        own = option.name in _OF_A_REPORT or not option.expose_value
        if not own and ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE:
            name = option.opts[0]
            raise click.UsageError(f"--run serves a report, which asks no model: leave {name} away")


def _serve_report(run: Path, config: Any, listener: Any, as_json: bool) -> None:
    """Serve the report of a run until the command is stopped."""
    from exsearch.http_server import address_of
    from exsearch.jobs.report import live_page
    from exsearch.serving.live import make_live_app
    from exsearch.serving.saved import serve_saved

    app = make_live_app(run, functools.partial(live_page, run), config)
    address = address_of(listener)
    said = f"{safe(run.name)} is reported at {address}"
    tell(as_json, {"address": address, "run": run}, said)
    serve_saved(app, listener)


def _model_name(options: dict[str, Any]) -> str:
    """What clients call the model; they need not know where it lies."""
    name = options["model"]
    return os.path.basename(os.path.abspath(name)) if os.path.exists(name) else name


def _searcher(options: dict[str, Any], bars: Bars) -> Any:
    """The searcher that the options name."""
    from exsearch.engines import open_engine
    from exsearch.retrievers import open_retriever
    from exsearch.retrievers.guarded import guarded
    from exsearch.searcher import Searcher

    return Searcher(
        open_engine(model_config(options)),
        guarded(open_retriever(place_of(options, bars)), options["retriever_timeout"]),
        method=method_of(options),
        seed=options["seed"],
        abstain=options["abstain"],
    )


@click.command(epilog=MCP_EXAMPLES, cls=Remembering)
@click.argument("action", type=click.Choice(["install"]), required=False)
@place_option
@click.option(
    "--into",
    multiple=True,
    type=click.Choice(HOSTS),
    help="With install: the program that gets the entry; may be repeated.",
)
@click.option("--name", default="exsearch", help="With install: the entry's name.")
@click.option("--print", "show", is_flag=True, help="With install: print the entry, write nothing.")
@click.option("--force", is_flag=True, help="With install: replace another entry of this name.")
@_bound_options
@model_options
@method_options
@common
@click.pass_context
def mcp(ctx: click.Context, action: str | None, as_json: bool, bars: Bars, **options: Any) -> None:
    """Serve a searcher to a chat assistant.

    The assistant starts this command, which speaks the Model Context Protocol over standard
    input and output until the input ends.

    `exsearch mcp install` adds the command, with the options that are given, to the settings of
    assistants. No key is written: those stand in the environment.
    """
    from exsearch.http_server import ALL_PACKAGES, check_installed

    if action == "install":
        _install(ctx, as_json, bars, options)
        return
    installing = {name: options[name] for name in ("into", "show", "force") if options[name]}
    if installing:
        raise click.UsageError("--into, --print and --force are for `exsearch mcp install`")
    check_installed("mcp", ALL_PACKAGES)
    from exsearch.serving import ServeConfig
    from exsearch.serving.mcp_stdio import claim_streams, serve_stdio

    bounds = {name: options[name] for name in ("max_questions", "deadline")}
    wire = claim_streams()  # before a model is loaded, which may print
    serve_stdio(_searcher(options, bars), ServeConfig(_model_name(options), **bounds, kept=0), wire)


def _install(ctx: click.Context, as_json: bool, bars: Bars, options: dict[str, Any]) -> None:
    """Add the command to the settings of hosts, or show what would be added."""
    from exsearch.retrievers import is_address, open_retriever
    from exsearch.serving.mcp_hosts import hosts, install

    place = place_of(options, bars)
    if not is_address(place):
        open_retriever(place)  # an entry that can't work is not written
    paths = {
        name: str(Path(options[name]).absolute())
        for name in ("index", "docs", "model")
        if options[name] and Path(options[name]).exists()
    }
    own = {"into", "name", "show", "force", "as_json", "bars"}
    command = [os.path.abspath(sys.executable), "-m", "exsearch", "mcp"]
    command += given_options(ctx, leave_out=own, instead=paths)
    chosen = options["into"] or (HOSTS[:1] if options["show"] else ())
    if not chosen:
        raise click.UsageError(f"--into says where: {', '.join(HOSTS)}; --print shows the entry")
    known, name = hosts(), options["name"]
    for host in (known[one] for one in chosen):
        if options["show"]:
            entry = {host.field: {name: host.entry(command)}}
            tell(as_json, entry, json.dumps(entry, indent=2, ensure_ascii=False))
            continue
        added = install(host, name, command, force=options["force"])
        said = f"{host.file}: " + (f"has {name} now" if added else f"had {name} already")
        tell(as_json, {"file": host.file, "name": name, "added": added}, said)


@click.command(epilog=RETRIEVER_EXAMPLES)
@click.argument("place")
@click.option("--host", default="127.0.0.1", help="Interface to listen on; there is no password.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0 takes a free one.")
@click.option("--workers", type=COUNT, default=1, metavar="N", help="Processes that search.")
@click.option("--max-queries", type=COUNT, default=256, help="The most queries of a request.")
@click.option("--max-topk", type=COUNT, default=10_000, help="The most passages a query.")
@click.option("--max-requests", type=COUNT, default=256, help="Requests at once, for each worker.")
@allow_host_option
@timeout_option
@common
def serve_retriever(host: str, port: int, as_json: bool, bars: Bars, **options: Any) -> None:
    """Serve an index over HTTP.

    PLACE is a folder made by `exsearch index`, or the address of a search server. Answers
    `/retrieve`, `/fetch`, `/identity`, `/health` and `/metrics` until it is stopped.
    """
    from exsearch.retrievers.serving import ServerConfig
    from exsearch.retrievers.serving.first import serve

    config = ServerConfig(timeout=options.pop("retriever_timeout"), **options)

    def on_ready(address: str) -> None:
        tell(as_json, {"address": address}, f"{config.place} is served at {address}")

    serve(config, host, port, on_ready)
