"""The command that serves: `serve-retriever` answers searches over HTTP until it is stopped.

It reads options and prints; the work is done in `retrievers.serving`.
"""

from __future__ import annotations

from typing import Any

import click

from exsearch.cli.options import COUNT, allow_host_option, common, timeout_option
from exsearch.cli.output import tell
from exsearch.progress import Bars

SERVE_EXAMPLES = """\b
Examples:
  exsearch serve-retriever index
  exsearch serve-retriever index --port 8080 --workers 4
  exsearch ask "..." --index http://localhost:8000 --model runs/mine
"""


@click.command(epilog=SERVE_EXAMPLES)
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
