"""The command that makes a page of what runs and evaluations say: `report`.

It reads options and prints; the work is done in `jobs` and `report`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import PATH, allow_host_option, common, timeout_option
from exsearch.cli.output import tell
from exsearch.progress import Bars

REPORT_EXAMPLES = """\b
Examples:
  exsearch report test-rag test-searcher --out report.html
  exsearch report runs/mine test --index index --out report.html
  exsearch report runs/four-sets --base rag-3.0 --samples 20 --figures figures --out report.html
"""


@click.command(epilog=REPORT_EXAMPLES)
@click.argument("places", nargs=-1, required=True, type=PATH, metavar="RUN|EVALUATION...")
@click.option("--out", required=True, type=PATH, metavar="FILE", help="The file to write.")
@click.option("--base", metavar="ROW", help="The row to compare others with; else the first.")
@click.option(
    "--metric", default="em", metavar="NAME", help="The metric of the figures and comparisons."
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    metavar="N",
    help="Put in the first N trajectories of each cell; else all.",
)
@click.option(
    "--index",
    metavar="INDEX",
    help="The index that was searched, to try better queries in for the diagnosis.",
)
@click.option(
    "--figures", type=PATH, metavar="FOLDER", help="Write the figures there, as SVG, PNG and CSV."
)
@allow_host_option
@timeout_option
@common
def report(
    places: tuple[Path, ...],
    out: Path,
    index: str | None,
    retriever_timeout: float,
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Make one page of what runs and evaluations say.

    Behind each number stand its questions, each with its way to the answer.

    Places are what `train`, `evaluate` and `experiment` wrote, or folders of such folders. The page
    is one file, which opens from a disk and asks no other place for anything.
    """
    from exsearch.jobs.report import report as run
    from exsearch.jobs.retrieve import Place

    place = Place(index, retriever_timeout) if index else None
    made = run(places, out, index=place, bars=bars, **options)
    counts = f"{made['rows']} rows, {made['runs']} runs, {made['trajectories']} trajectories"
    tell(as_json, made, f"{out}: {counts}, {made['bytes'] / 1e6:.1f} MB")
