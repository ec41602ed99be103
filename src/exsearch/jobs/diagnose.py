"""A diagnosis opens the index that places were made with, and says where it is another one.

What is found is `diagnosis`'s. It writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exsearch.diagnosis.diagnose import diagnose as diagnose_places
from exsearch.errors import RunError
from exsearch.jobs.evaluate import JOB_FILE
from exsearch.jobs.retrieve import Place
from exsearch.json_files import read_json
from exsearch.models.settings import RECIPE_FILE
from exsearch.progress import Bars

logger = logging.getLogger(__name__)


def diagnose(
    places: Sequence[Path], index: Place | None = None, *, bars: Bars | None = None
) -> dict[str, Any]:
    """What went wrong in the trajectories of some places (`diagnosis.diagnose`).

    Args:
        places: The folders of runs and evaluations, or files of trajectories.
        index: The index that they searched; None searches for nothing.
        bars: Opens the progress bars; None shows them.

    Raises:
        ExSearchError: a place or the index can't be used.
    """
    retriever = index and index.open()
    if retriever is not None:
        identity = retriever.identity()
        for place in places:
            if made_with(place) not in (None, identity):
                logger.warning(
                    "%s was made with another index than %s: what is not found there is laid to "
                    "retrieval, whether or not it was to be found",
                    place,
                    index and index.index,
                )
    return diagnose_places(places, retriever, bars=bars or Bars())


def made_with(place: Path) -> str | None:
    """The identity of the index that a run or an evaluation was made with; None if not known."""
    for name in (RECIPE_FILE, JOB_FILE):
        if (place / name).is_file():
            return read_json(place / name, RunError).get("index")
    return None
