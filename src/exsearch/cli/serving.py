"""Two commands serve until they are stopped: `serve` answers questions, `serve-retriever` searches.

They read options and print; the work is done in `serving` and `retrievers.serving`.
"""

from __future__ import annotations

import os
from typing import Any

import click

from exsearch.cli.options import (
    COUNT,
    allow_host_option,
    common,
    index_option,
    method_of,
    method_options,
    model_config,
    model_options,
    timeout_option,
)
from exsearch.cli.output import tell
from exsearch.progress import Bars

SERVE_EXAMPLES = """\b
Examples:
  exsearch serve --index index
  exsearch serve --index index --model runs/mine --port 8080
  EXSEARCH_API_KEY=... exsearch serve --index index --host 0.0.0.0 --public-url https://ask.example
"""

RETRIEVER_EXAMPLES = """\b
Examples:
  exsearch serve-retriever index
  exsearch serve-retriever index --port 8080 --workers 4
  exsearch ask "..." --index http://localhost:8000 --model runs/mine
"""


@click.command(epilog=SERVE_EXAMPLES)
@index_option
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
@click.option("--max-questions", type=COUNT, default=256, help="Questions in hand at once.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, 1e6, min_open=True, max_open=True),
    default=300.0,
    metavar="SECONDS",
    help="Seconds until a question is given up.",
)
@click.option("--kept", type=click.IntRange(0), default=1000, help="Answers remembered.")
@model_options
@method_options
@common
def serve(host: str, port: int, key_env: str, as_json: bool, bars: Bars, **options: Any) -> None:
    """Serve a searcher: OpenAI's API, and a page to ask at.

    Answers until it is stopped; questions in hand are answered first.
    """
    from exsearch.http_server import check_installed, listen

    check_installed("serve")
    from exsearch.engines import open_engine
    from exsearch.retrievers import open_retriever
    from exsearch.retrievers.guarded import guarded
    from exsearch.searcher import Searcher
    from exsearch.serving import ServeConfig
    from exsearch.serving.server import check_open
    from exsearch.serving.server import serve as run

    names = ("public_url", "hosts", "origins", "max_questions", "deadline", "kept")
    settings = {name: options[name] for name in names}
    key = os.environ.get(key_env, "")
    name = options["model"]
    if os.path.exists(name):  # clients need not know where it lies
        name = os.path.basename(os.path.abspath(name))
    config = ServeConfig(name, **settings, key=key)
    listener = listen(host, port)  # before a model is loaded for nothing
    check_open(listener, config)
    searcher = Searcher(
        open_engine(model_config(options)),
        guarded(open_retriever(options["index"]), options["retriever_timeout"]),
        method=method_of(options),
        seed=options["seed"],
    )

    def on_ready(address: str) -> None:
        tell(as_json, {"address": address}, f"{name} is served at {address}")

    run(searcher, config, listener, on_ready)


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
