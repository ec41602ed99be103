"""A claim is a lock that falls with its process; what nobody claims any more is a leftover.

Temporary files and folders are claimed while they are written, so that the next process knows those
of the dead from those of the living. It waits for others only where that is asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from exsearch.errors import RunError
from exsearch.runs.files import make_folder, refuse_link

_LOCK = ".lock"
# Older versions have the number of a process where newer ones have a random one.
_LEFTOVER = re.compile(r"\.(?P<goal>.+)\.([0-9a-f]{16}|\d+)\.(?P<kind>tmp|old)")


def temporary_name(path: Path, kind: str = "tmp") -> Path:
    """A new name beside `path`, which `remove_leftovers` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{kind}")


@contextlib.contextmanager
def beside(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new temporary file or folder beside `path`, claimed in the block, removed after an error.

    Args:
        path: What the block will put in its place.
        make: A function that makes the file or folder, such as `Path.mkdir`.
    """
    while True:
        new = temporary_name(path)
        make(new)
        try:
            claim = _claim(new)
        except (FileNotFoundError, BlockingIOError):
            continue  # another process took it for a leftover
        if new.exists():
            break
        os.close(claim)
    try:
        yield new
    except BaseException:
        remove(new)
        raise
    finally:
        os.close(claim)


@contextlib.contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """A folder beside `place` for this block alone; what killed processes left there goes first.

    Args:
        place: A path that names the purpose; nothing is written there itself.
    """
    remove_leftovers(place.parent.glob(f".{place.name}.*"))
    with beside(place, lambda new: new.mkdir(0o700)) as folder:
        yield folder
        remove(folder)


def _claim(path: Path, wait: bool = False) -> int:
    """Claim a file or folder until the descriptor is closed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove those of the paths that dead processes left; what had only moved aside is put back."""
    for path in paths:
        leftover = _LEFTOVER.fullmatch(path.name)
        if not leftover:
            continue
        with contextlib.suppress(OSError):
            claim = _claim(path)
            try:
                goal = path.with_name(leftover["goal"])
                if leftover["kind"] == "old" and not goal.exists():
                    path.rename(goal)
                else:
                    remove(path)
            finally:
                os.close(claim)


def remove(path: Path) -> None:
    """Remove a temporary file or folder; what can't be removed goes with a later process."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path, file: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold a run folder, or one file in it, for one process; the lock falls with the process.

    What killed processes left in it is removed first.

    Args:
        folder: The folder, which is made where it is missing.
        file: The name of the file in it; empty holds the whole folder.
        wait: Whether to wait for a process that holds it.

    Raises:
        RunError: another process holds it.
    """
    make_folder(folder)
    lock = folder / (f".{file}{_LOCK}" if file else _LOCK)
    refuse_link(lock)
    lock.touch()
    try:
        claim = _claim_lock(lock, wait)
    except BlockingIOError:
        raise RunError(
            f"{folder / file}: another process is working on this run; wait for it, or name "
            "another place with --out"
        ) from None
    try:
        left = folder.iterdir() if file else folder.rglob(".*")
        remove_leftovers([p for p in left if p.name.startswith(f".{file}")])
        yield
    finally:
        os.close(claim)


def is_locked(folder: Path) -> bool:
    """Whether a process holds a run folder by `locked`."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _claim_lock(lock: Path, wait: bool) -> int:
    """Claim a lock, which a process that only asks for it (`is_locked`) may hold for a moment."""
    for _ in range(9):
        with contextlib.suppress(BlockingIOError):
            return _claim(lock, wait)
        time.sleep(0.01)
    return _claim(lock, wait)
