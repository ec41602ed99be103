"""The commands that make a place of others: `combine`, and `train-reranker` for its model.

They read options and print; the work is done in `retrievers` and `jobs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import COUNT, PATH, allow_host_option, common
from exsearch.cli.output import tell
from exsearch.progress import Bars

COMBINE_EXAMPLES = """\b
Examples:
  exsearch combine bm25 dense --out hybrid
  exsearch combine bm25 --rerank reranker/model --out re-ranked
  exsearch combine bm25 dense http://localhost:8000 --fusion weighted --weights 1,2,1 \\
      --rerank cross-encoder/ms-marco-MiniLM-L6-v2 --first 50 --out all
"""


@click.command(epilog=COMBINE_EXAMPLES)
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder to write.")
@click.option(
    "--fusion",
    type=click.Choice(["rrf", "weighted"]),
    default="rrf",
    help="How several places become one list: by reciprocal ranks or by scores from 0 to 1.",
)
@click.option(
    "--weights", metavar="W,W,...", help="What each place counts, in their order. Default: 1 each."
)
@click.option("--depth", type=COUNT, default=100, help="Passages that each place is asked for.")
@click.option(
    "--rrf-k",
    type=click.FloatRange(min=0),
    default=60.0,
    help="How little the first ranks stand out, for --fusion rrf.",
)
@click.option(
    "--rerank",
    "model",
    metavar="MODEL",
    help="A model that re-orders what was found: a folder, a Hugging Face id, or all-MiniLM-L6-v2.",
)
@click.option("--first", type=COUNT, default=20, help="Passages that the model re-orders.")
@click.option(
    "--score-by",
    type=click.Choice(["cross-encoder", "bi-encoder", "late-interaction"]),
    help="How the model scores. Default: as it says itself.",
)
@allow_host_option
@common
def combine(places: tuple[str, ...], out: Path, as_json: bool, bars: Bars, **options: Any) -> None:
    """Make one place of others: fused, re-ranked, or both.

    A PLACE is a folder made by `exsearch index` or `exsearch combine`, or the address of a search
    server. Nothing is copied. A search finds at most --depth passages of each place, and with
    --rerank at most --first.
    """
    from exsearch.config import parse_config
    from exsearch.hosts import host_of
    from exsearch.retrievers import is_address
    from exsearch.retrievers.combine import combine as combine_places
    from exsearch.retrievers.hybrid import Fusion
    from exsearch.retrievers.rerank import Reranking

    given = click.get_current_context().get_parameter_source
    for option, needed, there in (
        ("weights", "several places", len(places) > 1),
        ("depth", "several places", len(places) > 1),
        ("first", "--rerank", options["model"]),
        ("score_by", "--rerank", options["model"]),
    ):
        if not there and given(option) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{option.replace('_', '-')} goes with {needed}")
    values = {name: options[name] for name in ("fusion", "depth", "rrf_k")}
    values["weights"] = options["weights"] and options["weights"].split(",")
    reranking = None
    if options["model"]:
        names = ("model", "first", "score_by")
        reranking = parse_config(Reranking, {name: options[name] for name in names})
    combine_places(places, out, fusion=parse_config(Fusion, values), reranking=reranking)
    asked = sorted({host_of(place) for place in places if is_address(place)} - {""})
    hint = [f"it asks {h}: to use it, name that host: --allow-host {h}" for h in asked]
    tell(as_json, {"index": out, "places": places, "hosts": asked}, f"combined in {out}", *hint)
