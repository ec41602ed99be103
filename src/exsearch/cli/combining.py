"""The commands that make a place of others: `combine`, and `train-reranker` for its model.

They read options and print; the work is done in `retrievers` and `jobs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import (
    COUNT,
    PATH,
    allow_host_option,
    common,
    index_option,
    limit_option,
)
from exsearch.cli.output import tell
from exsearch.progress import Bars

COMBINE_EXAMPLES = """\b
Examples:
  exsearch combine bm25 dense --out hybrid
  exsearch combine bm25 --rerank reranker/model --out re-ranked
  exsearch combine bm25 dense http://localhost:8000 --fusion weighted --weights 1,2,1 \\
      --rerank cross-encoder/ms-marco-MiniLM-L6-v2 --first 50 --out all
"""

TRAIN_EXAMPLES = """\b
Examples:
  exsearch train-reranker --questions train.jsonl --dev dev.jsonl --index bm25 --out reranker
  exsearch combine bm25 --rerank reranker/model --out re-ranked
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


@click.command(name="train-reranker", epilog=TRAIN_EXAMPLES)
@click.option(
    "--questions",
    "train",
    required=True,
    multiple=True,
    metavar="FILE",
    help="Question file with `supporting`, to learn from; sample:train is the packaged one. May be "
    "repeated.",
)
@click.option(
    "--dev", required=True, metavar="FILE", help="Question file by which the best is chosen."
)
@index_option
@limit_option
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@click.option(
    "--model",
    default="all-MiniLM-L6-v2",
    metavar="MODEL",
    help="What it starts from: a folder, a Hugging Face id, or all-MiniLM-L6-v2.",
)
@click.option("--first", type=COUNT, default=20, help="Passages that are searched a question.")
@click.option("--negatives", type=COUNT, default=3, help="Wrong passages a question, of those.")
@click.option("--epochs", type=COUNT, default=1, help="Times that each pair is learned from.")
@click.option("--batch-size", type=COUNT, default=16, help="Pairs in one step.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=5e-5, help="The highest."
)
@click.option("--max-tokens", type=COUNT, default=160, help="Tokens of a question and a passage.")
@click.option("--evaluations", type=COUNT, default=3, help="Times that dev is measured.")
@click.option("--seed", type=int, default=0, help="Decides weights, draws and orders.")
@common
def train_reranker(out: Path, as_json: bool, bars: Bars, **options: Any) -> None:
    """Train a model that re-ranks what a place finds.

    It learns to tell the supporting passages of questions from others that the place finds for
    them. The best model on dev, by the recall of support in the first 5, is in DIR/model.

    Run again, the same command goes on where it stopped.
    """
    from exsearch.config import parse_config
    from exsearch.jobs.reranker import MODEL
    from exsearch.jobs.reranker import train_reranker as run
    from exsearch.training.reranker import RerankerConfig

    train, dev, index = options.pop("train"), options.pop("dev"), options.pop("index")
    limit, timeout = options.pop("limit"), options.pop("retriever_timeout")
    config = parse_config(RerankerConfig, options)
    figures = run(train, dev, index, out, config, limit=limit, timeout=timeout, bars=bars)
    lines = [f"learned from {figures['pairs']} pairs of {figures['questions']} questions"]
    for name in ("as_found", "best"):
        each = figures[name]
        order = "as found: " if name == "as_found" else "re-ranked:"
        lines.append(f"{order} recall@5 {each['recall_at_5']:.3f}, MRR {each['mrr']:.3f} on dev")
    tell(as_json, {"model": out / MODEL, **figures}, *lines, f"the model is in {out / MODEL}")
