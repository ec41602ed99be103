"""A run is a folder that can be killed at any moment and read by anyone while it grows.

Whole files are written beside, flushed and renamed; folders get a manifest last and count as
complete only with it; JSON lines are appended and flushed, and a torn last line is cut off when the
file is opened for writing again. It does not know what the files mean.

Glossary:
    manifest  The file of a folder that names every other one, with its size and its hash.
    chunk     A fixed number of items, in their order, that are worked on together.
    commit    A line of `<name>.chunks`, which says that a chunk is whole in `<name>.jsonl`.
    torn      Written in part, because the process was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from exsearch.errors import ExSearchError, RunError

MANIFEST = "manifest.json"

Item = TypeVar("Item")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part.

    Args:
        path: The file to write.
        data: The content; text is written as UTF-8.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path`, with a manifest, if the block succeeds.

    What stood at `path` before is replaced only then. After an error nothing is left behind; what a
    killed process left behind is removed by the next one that writes the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove_leftovers(path)
    beside.mkdir()
    try:
        with _claimed(beside):
            yield beside
            _write_manifest(beside)
            _put_in_place(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _write_manifest(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    facts = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in files
    }
    for file in files:
        _sync(file)
    write_atomic(folder / MANIFEST, json.dumps({"files": facts}, indent=1))


def _put_in_place(beside: Path, path: Path) -> None:
    """Rename a finished folder to `path`; what stands there moves aside first, then goes."""
    if not path.exists():
        beside.rename(path)
        _sync(path.parent)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        beside.rename(path)
    except BaseException:
        old.rename(path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold a folder, wherever it is renamed to; the claim falls with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path`, but not what a live one is writing."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.???"):
        if leftover.suffix == ".tmp" and leftover.is_dir():
            with contextlib.suppress(OSError), _claimed(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        elif leftover.suffix == ".old" and path.exists():
            shutil.rmtree(leftover, ignore_errors=True)


def is_complete(path: Path) -> bool:
    """True where a folder has its manifest, that is, where its writing came to its end."""
    return (path / MANIFEST).is_file()


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
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        return [
            (path / name, int(facts["bytes"]), str(facts["sha256"]))
            for name, facts in files.items()
            if (path / name).resolve()  # refuses what can't be a path
        ]
    except FileNotFoundError:
        raise error(f"{path}: incomplete, it has no {MANIFEST}{hint}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise error(f"{path / MANIFEST}: damaged{hint}") from None


def append_jsonl(path: Path, lines: Iterable[str]) -> None:
    """Append JSON lines and flush them to the disk; a torn last line is cut off first.

    Args:
        path: The file, which is made where it is missing.
        lines: Texts of one line each, without the line break.
    """
    with path.open("ab+") as file:
        _cut_torn_line(file)
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_line(file: Any) -> None:
    """Cut off what follows the last line break of a file that is open for appending."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def finite(value: Any) -> Any:
    """Plain values with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_jsonl(path: Path) -> Iterator[Any]:
    """The values of a JSON lines file; a torn last line (a write under way) is passed over.

    A file that is not there has none.

    Raises:
        RunError: a line that is not JSON, with its number.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError:
                raise RunError(f"{path}:{number}: not JSON; the file was altered") from None


def in_chunks(
    items: Sequence[Item],
    size: int,
    file: Path,
    work: Callable[[Sequence[Item]], tuple[Iterable[str], dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Work through `items` in fixed chunks, each of which is committed whole or done anew.

    A killed run that calls this again passes over the committed chunks and meets the others in the
    same composition, so that results are the same bits. The commits of `<name>.jsonl` stand beside
    it in `<name>.chunks`.

    Args:
        items: All items; the same ones in the same order at every call.
        size: The number of items in a chunk; the same at every call.
        file: The JSON lines file that results are appended to.
        work: A function that turns a chunk into JSON lines and facts about the chunk, which are
            kept with the commit.

    Returns:
        The facts of all chunks, earlier ones included, each with `bytes`: the length of `file`
        after the chunk.

    Raises:
        RunError: `file` is shorter than its commits say.
    """
    commits = file.with_suffix(".chunks")
    done = list(read_jsonl(commits))
    committed = done[-1]["bytes"] if done else 0
    written = file.stat().st_size if file.exists() else 0
    if written < committed:
        raise RunError(
            f"{file}: has {written} bytes where {commits.name} says {committed}; put it back, or "
            "delete both to begin anew"
        )
    if written > committed:  # what follows the last commit belongs to a torn chunk
        os.truncate(file, committed)
    for start in range(len(done) * size, len(items), size):
        lines, facts = work(items[start : start + size])
        append_jsonl(file, lines)
        done.append({**facts, "bytes": file.stat().st_size})
        append_jsonl(commits, [json.dumps(done[-1])])
    return done


def committed(file: Path) -> int | None:
    """The number of samples that `in_chunks` has committed; None where no chunk was.

    Args:
        file: The file that `in_chunks` appends to; the facts of its chunks count `samples`.
    """
    commits = file.with_suffix(".chunks")
    return sum(c["samples"] for c in read_jsonl(commits)) if commits.exists() else None


@contextlib.contextmanager
def locked(folder: Path, file: str = "") -> Iterator[None]:
    """Hold a run folder, or one file in it, for one process; the lock falls with the process.

    Args:
        folder: The folder, which is made where it is missing.
        file: The name of the file in it; empty holds the whole folder.

    Raises:
        RunError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / (f".{file}.lock" if file else ".lock")).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder / file}: another process is working on this run; wait for it, or name "
                "another place with --out"
            ) from None
        yield
