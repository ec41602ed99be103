"""Provenance is what determines a job, and where it ran, written down beside what it made.

It compares and refuses: a job writes only where it began, or where nothing is. It does not know
what the settings mean.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exsearch.config import first_difference
from exsearch.errors import ConfigError, RunError
from exsearch.json_files import read_json
from exsearch.runs import make_folder, refuse_link, write_atomic

logger = logging.getLogger(__name__)

ENVIRONMENT_FILE = "environment.json"
_ELSEWHERE = "name another place with --out"


def refuse_others(file: Path, settings: Collection[str], places: Iterable[Path]) -> None:
    """Make sure that a job writes only where it began, or where nothing is.

    Args:
        file: The file that holds what determines the job, if the job began here.
        settings: What determines the job, or only the names of it.
        places: All that may stand there already, `below` a folder for instance.

    Raises:
        RunError: something stands there and the job did not begin there, or it is a link.
    """
    before = read_json(file, RunError, _ELSEWHERE) if file.is_file() else {}
    own = len(set(settings).intersection(before)) * 2 >= len(settings)
    for place in places:
        if own:
            refuse_link(place)
        elif os.path.lexists(place):
            raise RunError(
                f"{place}: exists, and this command did not begin here; name a new place with --out"
            )


def below(folder: Path, *but: str) -> Iterator[Path]:
    """The files and links below a folder, without hidden ones; what is no folder is itself one.

    Args:
        folder: The folder, which may be missing.
        but: Paths in the folder that are passed over unless they are links, with what is in them.
    """
    if folder.exists() and not folder.is_dir():
        yield folder
    for path in folder.rglob("[!.]*"):
        inner = path.relative_to(folder)
        known = any(inner.is_relative_to(name) for name in but)
        if path.is_symlink() or not (path.is_dir() or known):
            yield path


def written_down(file: Path, today: Callable[[Any], Any] = lambda before: before) -> Any:
    """What determined a job when it began, as plain values.

    Args:
        file: The file that holds it.
        today: A function that gives settings of an older version the names and defaults of this
            one, so that a setting which it did not have makes no difference.

    Raises:
        RunError: the file is damaged.
    """
    before = read_json(file, RunError, _ELSEWHERE)
    try:
        return json.loads(json.dumps(today(before)))
    except (ConfigError, LookupError, TypeError, AttributeError):
        return before  # what this version can't read is compared as it stands


def settle(
    file: Path,
    settings: Mapping[str, Any],
    environment_file: Path,
    *,
    begun: bool = True,
    today: Callable[[Any], Any] = lambda before: before,
) -> None:
    """Write down what determines a job, or check that it is what was written down before.

    A changed environment is only warned of.

    Args:
        file: The file that holds what determines the job.
        settings: All that determines the job, as plain values.
        environment_file: The file that holds where the job ran: versions and machine.
        begun: False while there is no result yet; other settings may then take the old ones' place.
        today: As in `written_down`.

    Raises:
        RunError: the job was begun with other settings, of which the message names the first; or a
            file is damaged.
    """
    if not (file.exists() and begun):
        make_folder(file.parent)
        write_atomic(file, json.dumps(settings, indent=1))  # first: it says whose place this is
        write_atomic(environment_file, json.dumps(environment(), indent=1))
        return
    before = written_down(file, today)
    machine = read_json(environment_file, RunError, _ELSEWHERE)
    difference = first_difference(before, json.loads(json.dumps(settings)))
    if difference:
        raise RunError(
            f"{file.parent}: begun with other settings: {difference}; "
            "name another place with --out, or undo the change"
        )
    changed = first_difference(machine, environment())
    if changed:
        logger.warning("%s: the environment is not the one it began in: %s", file.parent, changed)


def environment() -> dict[str, Any]:
    """The versions of packages that results depend on, and the machine in a few words."""
    names = ("exsearch", "torch", "transformers", "tokenizers", "accelerate", "peft", "bm25s")
    versions = {name: installed_version(name) for name in (*names, "numpy")}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions,
    }


def installed_version(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
