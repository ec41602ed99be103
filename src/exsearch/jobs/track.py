"""A run's journal is sent to a tracker, by a process that training starts and never waits for.

What was sent stands in the run's folder, so that a run that goes on goes on there, too.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exsearch.errors import ExSearchError, RunError
from exsearch.json_files import read_json
from exsearch.models.settings import RECIPE_FILE
from exsearch.progress import Bars
from exsearch.runs import locked, make_folder, write_atomic
from exsearch.tracking.follow import follow
from exsearch.tracking.points import Points
from exsearch.tracking.trackers import find_tracker
from exsearch.training.stages import check_run

logger = logging.getLogger(__name__)
TRACKING = "tracking"  # the folder in a run
_WORD = re.compile(r"[\w.+-]{0,80}")  # no path and no address


def track(
    run: Path, to: str, *, project: str = "exsearch", name: str = "", bars: Bars | None = None
) -> dict[str, Any]:
    """Send a run's figures to a tracker: what is there, and while it is trained what comes.

    Args:
        run: The folder of a run.
        to: The name of the tracker.
        project: The name that several runs are found under.
        name: The run's name; empty takes the name of its folder.
        bars: Opens the progress bars; None shows them.

    Returns:
        `{"run", "tracker", "events", "before"}`: how many events of the journal were sent now, and
        how many by earlier calls.

    Raises:
        ExSearchError: the run can't be read, no tracker is called so, its package is missing, or it
            fails.
    """
    open_tracker = find_tracker(to)
    check_run(run)
    recipe = read_json(run / RECIPE_FILE, RunError, recipe=dict)["recipe"]
    place, file = run / TRACKING, run / TRACKING / f"{to}.json"
    with locked(place, to), (bars or Bars()).open(f"sent to {to}", None, "event") as bar:
        known: dict[str, Any] = {"id": secrets.token_hex(4), "events": 0}
        if file.exists():
            remedy = "remove it to send all figures anew"
            known = read_json(file, RunError, remedy, id=str, events=int)
        make_folder(place / to)
        before, seen, points = known["events"], 0, Points()
        try:
            tracker = open_tracker(
                project,
                name or run.resolve().name,
                dict(_settings(recipe)),
                place / to,
                known["id"],
            )
            for events in follow(run):
                for event in events:
                    seen += 1
                    point = points.of(event)  # also of what was sent: it counts the steps
                    if point and seen > known["events"]:
                        tracker.log(point)
                if seen > known["events"]:
                    bar.update(seen - known["events"])
                    known["events"] = seen
                    write_atomic(file, json.dumps(known))
            tracker.close()
        except ExSearchError:
            raise
        except Exception as error:  # whatever the tracker's package raises
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            again = f"`exsearch track {run} --to {to}` sends the rest"
            raise RunError(f"{to} fails ({told}); {again}") from error
    return {"run": str(run), "tracker": to, "events": known["events"] - before, "before": before}


def _settings(section: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """A recipe's settings as flat values, without what names a place."""
    for key, value in section.items():
        own = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            yield from _settings(value, own)
        elif own == "model.name":
            yield own, Path(str(value)).name
        elif isinstance(value, bool | int | float) or _WORD.fullmatch(str(value)):
            yield own, value


def start_tracker(run: Path, to: str) -> None:
    """Start a process that tracks a run while it is trained, and ends after it.

    That it fails is a warning; whatever becomes of it, training goes on.

    Args:
        run: The folder of the run, which this process has locked.
        to: The name of the tracker.
    """
    make_folder(run / TRACKING)
    file = run / TRACKING / f"{to}.log"
    command = [sys.executable, "-m", "exsearch", "track", str(run.absolute()), "--to", to]
    try:
        with file.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends training, and lets it send the last figures
            )
    except OSError as error:
        logger.warning("%s is not sent anything: %s", to, error)
        return

    def warn() -> None:
        if code := process.wait():
            again = f"exsearch track {run} --to {to}"
            logger.warning("%s ended with %s, see %s; `%s` sends the rest", to, code, file, again)

    threading.Thread(target=warn, daemon=True, name=f"track {to}").start()
