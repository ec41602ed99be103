"""A file is written whole and is safe on the disk, or an error says that it is not.

It knows neither folders nor what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from exsearch.errors import RunError


def cache_folder() -> Path:
    """The folder of what can be made or fetched again: `EXSEARCH_CACHE`, or in the user's cache."""
    if own := os.environ.get("EXSEARCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exsearch"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's content, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing; their entries are synced."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    if missing:
        path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def refuse_link(path: Path) -> None:
    """Make sure that writing to a path can't reach a place that it only leads to.

    Raises:
        RunError: the path is a link.
    """
    if path.is_symlink():
        raise RunError(
            f"{path}: a link, and what it leads to was not begun here; name the place that is "
            "meant, or remove the link"
        )


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which is whole and on the disk once the block has ended.

    Raises:
        OSError: the file could not be written; also where the disk kept less than was written.
    """
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if path.stat().st_size != size:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
