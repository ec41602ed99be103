"""JSON lines grow by whole lines that are on the disk, and by chunks that are committed whole.

A torn last line is passed over by readers and cut off by the next writer. It does not know what the
lines mean.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from exsearch.errors import RunError
from exsearch.json_files import LongLineError, check_shape, numbered_lines, parse_json
from exsearch.runs.files import refuse_link, sync
from exsearch.runs.folders import write_atomic

_CHUNKS = "chunks"

Item = TypeVar("Item")


def append_jsonl(path: Path, lines: Iterable[str]) -> None:
    """Append JSON lines and flush them to the disk; a torn last line is cut off first.

    Args:
        path: The file, which is made where it is missing.
        lines: Texts of one line each, without the line break.

    Raises:
        RunError: the file is a link.
    """
    refuse_link(path)
    new = not path.exists()
    with path.open("ab+") as file:
        _cut_torn_line(file)
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(path.parent)


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


def read_jsonl(path: Path, **shape: type) -> Iterator[Any]:
    """The values of a JSON lines file; a torn last line (a write under way) is passed over.

    A file that is not there has none.

    Args:
        path: The file.
        shape: The type of each field that every line must have, by its name; without one, a line
            may hold any value.

    Raises:
        RunError: a line that holds no such value, with its number; or the file can't be read.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            for number, line in numbered_lines(file):
                if not line.endswith(b"\n"):
                    return
                try:
                    value = parse_json(line)
                    yield check_shape(value, shape) if shape else value
                except ValueError as error:
                    message = f"{path}:{number}: damaged ({error}); put the file back as it was"
                    raise RunError(message) from None
    except (LongLineError, OSError) as error:
        raise RunError(f"{path}: can't be read: {error}") from None


def companion(file: Path, ending: str) -> Path:
    """The file that stands beside another and belongs to it alone, such as `t.jsonl.chunks`.

    Older versions wrote `t.chunks`. It still counts for a file that has nothing newer, unless
    another could be meant: `t` itself, or another `t.json…`.

    Args:
        file: The file that it belongs to.
        ending: What is put behind the file's name, without the dot.
    """
    own, older = file.with_name(f"{file.name}.{ending}"), file.with_suffix(f".{ending}")
    if own.exists() or not (older.exists() and file.exists()) or file.with_suffix("").is_file():
        return own
    alike = {p for p in file.parent.glob(f"{glob.escape(file.stem)}.json*") if p.stem == file.stem}
    return own if alike - {file} or older == file else older


def refuse_other_file(file: Path) -> None:
    """Make sure that `in_chunks` may write a file: it began it, or nothing is there.

    Raises:
        RunError: a file that was not begun so, or a link.
    """
    refuse_link(file)
    if file.exists() and not companion(file, _CHUNKS).exists():
        raise RunError(
            f"{file}: exists and was not begun by this command; name another place with --out, or "
            "move it away"
        )


def in_chunks(
    items: Sequence[Item],
    size: int,
    file: Path,
    work: Callable[[Sequence[Item]], tuple[Iterable[str], dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Work through `items` in fixed chunks, each of which is committed whole or done anew.

    A killed run that calls this again passes over the committed chunks and meets the others in the
    same composition, so that results are the same bits. The commits of `<file>` stand beside it in
    `<file>.chunks`, each with the SHA-256 of its lines, by which the whole file is checked before
    it grows and before it is handed on.

    Args:
        items: All items; the same ones in the same order at every call.
        size: The number of items in a chunk; the same at every call.
        file: The JSON lines file that results are appended to.
        work: A function that turns a chunk into JSON lines and facts about the chunk, which are
            kept with the commit.

    Returns:
        The facts of all chunks, earlier ones included.

    Raises:
        RunError: `file` was not begun here, or is not what its commits say.
    """
    refuse_other_file(file)
    commits = companion(file, _CHUNKS)
    if not commits.exists():
        write_atomic(commits, "")  # first: with it the file counts as begun here
    done = list(read_jsonl(commits, bytes=int))
    end = _checked(file, commits, done)
    if file.exists() and file.stat().st_size > end:
        os.truncate(file, end)  # what follows the last commit belongs to a torn chunk
    begun = len(done)
    for start in range(begun * size, len(items), size):
        lines, facts = work(items[start : start + size])
        lines = [*lines]
        append_jsonl(file, lines)
        digest = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
        done.append({**facts, "bytes": file.stat().st_size, "sha256": digest})
        append_jsonl(commits, [json.dumps(done[-1])])
    if len(done) > begun:
        _checked(file, commits, done)
    return [{k: v for k, v in fact.items() if k not in ("bytes", "sha256")} for fact in done]


def _checked(file: Path, commits: Path, done: Sequence[dict[str, Any]]) -> int:
    """The bytes that are committed in a file, once it is sure that they are there whole."""
    remedy = "put it back, or delete both to begin anew"
    start = 0
    ends = [fact["bytes"] for fact in done]
    if ends != sorted(ends) or min(ends, default=0) < 0:
        raise RunError(f"{commits}: damaged; {remedy} with {file.name}")
    if not done:
        return 0
    written = file.stat().st_size if file.exists() else 0
    if written < ends[-1]:
        raise RunError(
            f"{file}: has {written} bytes where {commits.name} says {ends[-1]}; {remedy}"
        )
    with file.open("rb") as lines:
        for number, (fact, end) in enumerate(zip(done, ends, strict=True), start=1):
            digest = hashlib.sha256(lines.read(max(0, end - start))).hexdigest()
            if fact.get("sha256", digest) != digest:  # older versions wrote none
                raise RunError(
                    f"{file}: altered: bytes {start} to {end} are not what line {number} of "
                    f"{commits.name} says; {remedy}"
                )
            start = end
    return start


def committed(file: Path, count: str = "samples") -> int:
    """The sum of a count over the chunks that `in_chunks` has committed.

    Args:
        file: The file that `in_chunks` appends to.
        count: The name of the count among the facts of a chunk; one without it counts 0.
    """
    commits = read_jsonl(companion(file, _CHUNKS), bytes=int)
    return sum(n for fact in commits if isinstance(n := fact.get(count), int))
