"""A file or a folder takes its place whole, and a folder is complete only with its manifest.

A folder that is replaced changes places with the old one in one step, so that whoever reads it
meets the one or the other. It does not know what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from exsearch.errors import ConfigError, ExSearchError, RunError
from exsearch.json_files import check_shape, read_json
from exsearch.runs.claims import beside, remove, remove_leftovers, temporary_name
from exsearch.runs.files import make_folder, refuse_link, sha256_file, sync, written

MANIFEST = "manifest.json"

_TRIES = 1000  # to read a folder that is never there, though what it was has moved aside

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2

Read = TypeVar("Read")


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part.

    A link at the path is replaced, never followed.

    Args:
        path: The file to write.
        data: The content; text is written as UTF-8.
    """
    with beside(path, Path.touch) as new:
        with written(new) as file:
            file.write(data.encode() if isinstance(data, str) else data)
        new.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path`, with a manifest, if the block succeeds.

    What stood at `path` before is replaced only then, in one step where the system has one for it
    (Linux, most file systems); elsewhere the old folder moves aside first, and is put back by the
    next one that opens or writes the folder if the process was killed in between. After an error
    nothing is left behind; what a killed process left behind is removed by the next one that writes
    the same folder. Of two that write it, the last to finish stays.

    Raises:
        RunError: `path` is a link or a file.
    """
    refuse_link(path)
    if path.exists() and not path.is_dir():
        raise RunError(f"{path}: a file, where a folder is to be written; name another place")
    make_folder(path.parent)
    remove_leftovers(_leftovers(path))
    with beside(path, Path.mkdir) as new:
        yield new
        _write_manifest(new)
        _change_places(new, path)
        sync(path.parent)
        remove(new)  # by now what stood at `path` before


def _leftovers(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{glob.escape(path.name)}.*"))


def _write_manifest(folder: Path) -> None:
    below = sorted(folder.rglob("*"))
    files = [p for p in below if p.is_file()]
    facts = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in files
    }
    for place in below:
        sync(place)
    write_atomic(folder / MANIFEST, json.dumps({"files": facts}, indent=1))


def _change_places(new: Path, path: Path) -> None:
    """Put a finished folder at `path`, and what stands there at `new`."""
    while True:
        try:
            if not path.exists():
                new.rename(path)
            elif not _exchange(new, path):
                _move_aside(new, path)
            return
        except OSError as error:
            # Another writer of the same folder came between: there is one to replace now, or none.
            between = error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
            if not (between and new.exists()):
                raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system can't."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _move_aside(new: Path, path: Path) -> None:
    """Let two folders change places in three steps; between the first two, none is at `path`."""
    old = temporary_name(path, "old")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        remove_leftovers([old])  # puts it back, unless another writer came between
        raise
    old.rename(new)


def _put_back(path: Path) -> None:
    """Put back a folder that a killed process had moved aside and did not replace."""
    if not path.exists():
        remove_leftovers(p for p in _leftovers(path) if p.suffix == ".old")


def refuse_other_content(path: Path, mark: str, what: str) -> None:
    """Make sure that a new folder may take the place of what stands at `path`.

    That is nothing, an empty folder, or one of the same kind with no file but its own.

    Args:
        path: The folder to be written.
        mark: The name of a file that every folder of the kind has.
        what: The kind in words, such as `index`.

    Raises:
        ConfigError: something else stands there.
    """
    said = f"{path} exists and is no {what}"
    if path.is_dir() and not path.is_symlink():
        files = {p for p in path.rglob("*") if p.is_symlink() or not p.is_dir()}
        if not files:
            return
        try:
            own = {file for file, _, _ in _read_manifest(path, RunError, "")}
        except RunError:
            own = set()
        other = sorted(files - own - {path / MANIFEST})
        if path / mark in own and not other:
            return
        if path / mark in own:
            said = f"{path} holds a file that is not the {what}'s: {other[0]}; move it away"
    elif not os.path.lexists(path):
        return
    raise ConfigError(f"{said}; name another folder")


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it, where there is one."""
    if path.exists():
        shutil.rmtree(path)


def is_complete(path: Path) -> bool:
    """True where a folder has its manifest, that is, where its writing came to its end."""
    _put_back(path)
    return (path / MANIFEST).is_file()


def read_steadily(path: Path, read: Callable[[], Read]) -> Read:
    """What `read` makes of a folder, from one version of it even if it is replaced meanwhile.

    Args:
        path: The folder.
        read: A function that reads the folder, and is called again where it was replaced.
    """
    tries = 0
    while True:
        tries += 1
        before = _version(path)
        try:
            found = read()
        except (ExSearchError, OSError):
            # Another writer may be in the middle of `_move_aside`.
            between = before is None and any(p.suffix == ".old" for p in _leftovers(path))
            if _version(path) == before and not (between and tries < _TRIES):
                raise
            continue
        if _version(path) == before:
            return found


def _version(path: Path) -> tuple[int, int, int] | None:
    """What differs between a folder and the one that takes its place; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_ctime_ns


def verify_folder(
    path: Path, error: type[ExSearchError] = RunError, *, hashes: bool = True, remedy: str = ""
) -> None:
    """Check a folder against its manifest.

    Args:
        path: The folder to check.
        error: The type of the error that is raised.
        hashes: True reads all files and compares their hashes; False compares sizes only.
        remedy: What to do about a fault, put at the end of the message.

    Raises:
        ExSearchError: an error of the given type, which names the first file that is missing or
            altered.
    """
    hint = f"; {remedy}" if remedy else ""
    _put_back(path)
    if not path.is_dir():
        raise error(f"{path}: no such folder{hint}")
    for file, size, digest in _read_manifest(path, error, hint):
        if not file.resolve().is_relative_to(path.resolve()):
            raise error(f"{path / MANIFEST}: names a file outside its folder: {file}{hint}")
        if not file.is_file():
            raise error(f"{file}: missing{hint}")
        if file.stat().st_size != size:
            raise error(f"{file}: has {file.stat().st_size} bytes, its manifest says {size}{hint}")
        if hashes and sha256_file(file) != digest:
            raise error(f"{file}: altered, its SHA-256 is not the manifest's{hint}")


def _read_manifest(
    path: Path, error: type[ExSearchError], hint: str
) -> list[tuple[Path, int, str]]:
    """Path, size in bytes and SHA-256 of each file that a folder's manifest names."""
    if not (path / MANIFEST).exists():
        raise error(f"{path}: incomplete, it has no {MANIFEST}{hint}")
    files = read_json(path / MANIFEST, error, hint.removeprefix("; "), files=dict)["files"]
    try:
        for name, facts in files.items():
            check_shape(facts, {"bytes": int, "sha256": str})
            (path / name).resolve().exists()  # refuses what can't be a path
        return [(path / name, f["bytes"], f["sha256"]) for name, f in files.items()]
    except (ValueError, OSError, RuntimeError) as fault:
        raise error(f"{path / MANIFEST}: damaged ({fault}){hint}") from None
