"""Nesting is a place within a place: a folder that is being opened opens others, which it names.

What a folder names, its text names and not the user: no address among it is asked unless the user
named its host, and no folder may lead back to itself. It opens nothing itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from exsearch.errors import ConfigError, IndexDamagedError
from exsearch.hosts import host_of, is_named, named_hosts

_DEEPEST = 8  # folders within folders: more are no search but a trap


@dataclasses.dataclass(frozen=True)
class _Opening:
    """The folders that are being opened, the outermost first, and the hosts that the user named."""

    folders: tuple[Path, ...] = ()
    hosts: frozenset[str] = frozenset()


_NONE = _Opening()
_opening: ContextVar[_Opening] = ContextVar("opening", default=_NONE)


@contextlib.contextmanager
def opening(folder: Path, hosts: Iterable[str] = ()) -> Iterator[None]:
    """The time in which a folder is opened; what is opened meanwhile is opened because of it.

    Args:
        folder: The folder.
        hosts: The hosts that may be asked, by name, besides those named by the environment.

    Raises:
        IndexDamagedError: the folder is being opened already, or too many are.
    """
    outer = _opening.get()
    own = folder.resolve()
    if own in outer.folders:
        raise IndexDamagedError(f"{folder}: leads back to itself; combine other places")
    if len(outer.folders) >= _DEEPEST:
        raise IndexDamagedError(f"{folder}: combined places are nested {_DEEPEST} deep, too many")
    before = _opening.set(_Opening((*outer.folders, own), outer.hosts.union(hosts)))
    try:
        yield
    finally:
        _opening.reset(before)


def refuse_strange(address: str) -> None:
    """Make sure that the user knows the host of an address; one that he gave himself he knows.

    Args:
        address: The address of a search server that is to be opened.

    Raises:
        ConfigError: a folder that is being opened names it, and the user did not name its host.
    """
    outer, host = _opening.get(), host_of(address)
    if outer.folders and not is_named(host, outer.hosts | named_hosts()):
        asks = f"{outer.folders[-1]} sends queries to {host}"
        raise ConfigError(f"{asks}: if you know that host, name it: --allow-host {host}")
