"""A report is built from what stands in some folders, and written as one file.

What it says is `report`'s. It changes nothing of what it reads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exsearch.errors import RunError
from exsearch.jobs.diagnose import made_with
from exsearch.jobs.retrieve import Place
from exsearch.progress import Bars
from exsearch.report.build import Report, build
from exsearch.report.figures import Drawn, draw, write_figures
from exsearch.report.page import page
from exsearch.report.sheets import Found, find
from exsearch.runs import make_folder, refuse_link, write_atomic

logger = logging.getLogger(__name__)
LIVE_SAMPLES = 200  # trajectories of a stage in a page that is built again and again
LARGE = 25_000_000  # bytes, beyond which a page is slow to open


def report(
    places: Sequence[Path],
    out: Path,
    *,
    index: Place | None = None,
    base: str | None = None,
    metric: str = "em",
    samples: int | None = None,
    figures: Path | None = None,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Write a page of what runs and evaluations say.

    Args:
        places: Folders of runs, evaluations and results, or folders of such folders.
        out: The file to write; one that is there is replaced once the new one is whole.
        index: The index that they searched, for the diagnosis; None searches for nothing.
        base: The name of the row that others are compared with; None takes the first.
        metric: The name of the metric of the figures and comparisons.
        samples: The most trajectories of a cell that are put in, the first ones; None takes all.
        figures: A folder for the figures as SVG, PNG and CSV; None writes none.
        bars: Opens the progress bars; None shows them.

    Returns:
        `{"out", "bytes", "rows", "runs", "questions", "trajectories"}`.

    Raises:
        ExSearchError: a place or the index can't be used.
    """
    refuse_link(out)
    if out.is_dir():
        raise RunError(f"{out}: a folder, where a file is to be written; name another --out")
    found = find(places)
    made, drawn, text = _made(found, index, base, metric, samples, bars or Bars())
    if figures:
        write_figures(drawn, figures)
    make_folder(out.absolute().parent)
    write_atomic(out, text)
    size = out.stat().st_size
    if size > LARGE:
        logger.warning("%s has %d MB; --samples N puts in fewer", out, size // 1_000_000)
    return {
        "out": str(out),
        "bytes": size,
        "rows": len(found.rows),
        "runs": len(found.runs),
        "questions": sum(sheet["n"] for sheet in made.values["sheets"]),
        "trajectories": made.pack.traces,
    }


def live_page(run: Path, version: str) -> str:
    """The page of a run as it stands now, which looks for a newer one while it is open.

    Args:
        run: The folder of the run.
        version: The page's name, by which it knows a newer one.

    Raises:
        ExSearchError: the run can't be read.
    """
    return _made(find([run]), None, None, "em", LIVE_SAMPLES, Bars(False), live=version)[2]


def _made(
    found: Found,
    index: Place | None,
    base: str | None,
    metric: str,
    samples: int | None,
    bars: Bars,
    *,
    live: str = "",
) -> tuple[Report, list[Drawn], str]:
    """A report, its figures and its page."""
    retriever = index and index.open()
    if retriever is not None:
        identity = retriever.identity()
        for folder in [s.folder for r in found.rows for s in r.sheets] + [*found.runs.values()]:
            if made_with(folder) not in (None, identity):
                raise RunError(
                    f"{folder}: made with another index than {index and index.index}; leave "
                    "--index away, or report it by itself"
                )
    made = build(found, base=base, metric=metric, samples=samples, retriever=retriever, bars=bars)
    drawn = draw(made.values)
    shown = [{"name": d.name, "title": d.title, "values": d.values} for d in drawn]
    pictures = {one.name: one.in_page for one in drawn}
    text = page({**made.values, "drawn": shown}, made.pack.pieces, pictures, live=live)
    return made, drawn, text
