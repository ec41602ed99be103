"""An inner place is a place that a combined place searches; the combined folder names it.

Whatever goes wrong in it is a `RetrieverError` that says in which one. How the passages of several
are put together is for `hybrid` and `rerank`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from exsearch.config import parse_config, to_plain
from exsearch.errors import ConfigError, IndexDamagedError, RetrieverError
from exsearch.json_files import read_json
from exsearch.records import Passage
from exsearch.retrievers import FACTS_FILE, is_address, open_retriever
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import checked
from exsearch.runs import verify_folder, written

COMBINE = "combine its places anew with `exsearch combine`"

_VERSION = 1
_MOST_PLACES = 16

Settings = TypeVar("Settings")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class InnerPlace:
    """A place that is open, and its name for messages.

    Attributes:
        name: The folder or address.
        retriever: The retriever at the place.
    """

    name: str
    retriever: Retriever

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """What the place finds, checked, in one call.

        Raises:
            RetrieverError: the search failed, or gave what is no list of passages.
        """
        lists = self._ask(lambda: self.retriever.search(queries, k))
        found: list[list[Passage]] = []
        for one in checked(lists, len(queries), k, self.name):
            if isinstance(one, RetrieverError):
                raise one
            found.append(one)
        return found

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids; None where the place has none.

        Raises:
            RetrieverError: they can't be read.
        """
        return self._ask(lambda: self.retriever.fetch(ids))

    def identity(self) -> str:
        """The identity of the place.

        Raises:
            RetrieverError: it does not say it.
        """
        return self._ask(self.retriever.identity)

    def _ask(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except RetrieverError as error:
            raise RetrieverError(f"{self.name}: {error}") from error
        except Exception as error:  # a plug-in's
            raise RetrieverError(f"{self.name}: {type(error).__name__}: {error}") from error


def write_combined(folder: Path, kind: str, places: Sequence[str], settings: Any) -> None:
    """Write what a combined place is, into a folder that gets its manifest afterwards.

    Args:
        folder: The folder.
        kind: The kind of the combined place.
        places: The inner places: addresses, and folders by paths that begin at this folder.
        settings: A dataclass that says how they are searched.
    """
    facts = {"kind": kind, "version": _VERSION, "places": list(places)} | to_plain(settings)
    with written(folder / FACTS_FILE) as file:
        file.write(json.dumps(facts, indent=1).encode())


def open_combined(
    folder: Path, kind: str, settings_type: type[Settings], most: int = _MOST_PLACES
) -> tuple[list[InnerPlace], Settings]:
    """Open the inner places of a combined place, and read how they are searched.

    Args:
        folder: The folder of the combined place.
        kind: The kind that it must be of.
        settings_type: The dataclass that says how inner places are searched.
        most: The most inner places that the kind has.

    Raises:
        IndexDamagedError: the folder is damaged, or an inner place can't be opened.
        ConfigError: an inner place is on a host that the user did not name.
    """
    verify_folder(folder, IndexDamagedError, remedy=COMBINE)
    file = folder / FACTS_FILE
    facts = read_json(file, IndexDamagedError, COMBINE, kind=str, version=int, places=list)
    found, version, places = facts.pop("kind"), facts.pop("version"), facts.pop("places")
    if (found, version) != (kind, _VERSION):
        raise IndexDamagedError(f"{file}: kind {found!r}, version {version}; {COMBINE}")
    if not 1 <= len(places) <= most or not all(p and isinstance(p, str) for p in places):
        raise IndexDamagedError(f"{file}: damaged (its places are {places!r:.99}); {COMBINE}")
    try:
        settings = parse_config(settings_type, facts, place=str(file))
    except ConfigError as error:
        raise IndexDamagedError(f"{error}; {COMBINE}") from None
    return [open_inner(inner_path(folder, place), folder) for place in places], settings


def open_inner(place: str, outer: Path) -> InnerPlace:
    """Open an inner place.

    Args:
        place: A folder or an address.
        outer: The folder of the combined place, for messages.

    Raises:
        IndexDamagedError: it can't be opened.
        ConfigError: it is on a host that the user did not name.
    """
    try:
        return InnerPlace(place, open_retriever(place, cache=0))
    except (IndexDamagedError, OSError, ValueError) as error:
        raise IndexDamagedError(
            f"{outer}: a place that it combines is not there: {error}"
        ) from None


def inner_path(folder: Path, name: str) -> str:
    """What a combined folder's text names: an address as it is, a path from that folder on."""
    if is_address(name):
        return name
    return os.path.normpath(folder.resolve() / name)


def inner_name(folder: Path, place: str | Path) -> str:
    """How a combined folder names a place or a model: `inner_path` gives the same again."""
    if is_address(place):
        return str(place)
    path = os.path.relpath(os.path.abspath(place), folder.resolve())
    return path if path.startswith(os.pardir) else os.path.join(os.curdir, path)


def combined_identity(kind: str, settings: Any, places: Sequence[InnerPlace], **more: Any) -> str:
    """The identity of a combined place: a hash of its settings and of its inner identities.

    Args:
        kind: Its kind.
        settings: The dataclass that says how the inner places are searched.
        places: The inner places.
        more: What else determines what is found, as plain values.

    Raises:
        RetrieverError: an inner place does not say its identity.
    """
    inner = [place.identity() for place in places]
    facts = {"kind": kind, "places": inner, "settings": to_plain(settings)} | more
    return f"sha256:{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}"
