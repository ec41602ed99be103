"""The command that says why answers are wrong: `diagnose`.

It reads options and prints; the work is done in `jobs` and `diagnosis`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import PATH, allow_host_option, common, timeout_option
from exsearch.cli.output import tell
from exsearch.progress import Bars

DIAGNOSE_EXAMPLES = """\b
Examples:
  exsearch diagnose runs/mine --index index
  exsearch diagnose test --index index --json
  exsearch diagnose test-rag test-searcher --index index
"""


@click.command(epilog=DIAGNOSE_EXAMPLES)
@click.argument("places", nargs=-1, required=True, type=PATH, metavar="RUN|EVALUATION...")
@click.option(
    "--index",
    metavar="INDEX",
    help="The index that was searched, to try better queries in. Without it only those of other "
    "samples are known.",
)
@allow_host_option
@timeout_option
@common
def diagnose(
    places: tuple[Path, ...],
    index: str | None,
    retriever_timeout: float,
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Say why answers are wrong.

    Reads what `train` and `evaluate` left behind: early stops, errors that spread, queries that
    drift, signs of overfitting, cost, and for each wrong answer the first link that broke.

    Rates come with 95 % intervals and trajectories to look at; docs/diagnosis.md defines them.
    """
    from exsearch.jobs.diagnose import diagnose as run
    from exsearch.jobs.retrieve import Place
    from exsearch.show.diagnosis import diagnosis_text

    found = run(places, Place(index, retriever_timeout) if index else None, bars=bars)
    tell(as_json, found, diagnosis_text(found))
