"""A JSON file is read within bounds: a small one whole, a long one line by line.

Whatever is wrong with one of ours is an error of the kind that the reader names. It does not know
what the values mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from exsearch.errors import ExSearchError

MAX_LINE = 64 << 20  # bytes: far more than any record takes, and no more than memory can hold


class LongLineError(ValueError):
    """A line is longer than `MAX_LINE`.

    Args:
        line: The number of the line, from 1.
    """

    def __init__(self, line: int):
        super().__init__(f"a line of more than {MAX_LINE >> 20} MiB; is it the right file?")
        self.line = line


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of an open file with their numbers, from 1.

    Args:
        file: The file, open for reading bytes.

    Raises:
        LongLineError: a line is longer than `MAX_LINE`.
    """
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), b""), start=1):
        if len(line) > MAX_LINE:
            raise LongLineError(number)
        yield number, line


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text stands for.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deeply, or a number of too many digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(
    file: Path, error: type[ExSearchError], remedy: str = "", **shape: type
) -> dict[str, Any]:
    """The object in a small JSON file.

    Args:
        file: The file to read.
        error: The type of the error that is raised.
        remedy: What to do about a fault, put at the end of the message.
        shape: The type of each field that must be there, by its name.

    Raises:
        ExSearchError: an error of the given type: the file can't be read, is not JSON, or is of
            another shape.
    """
    hint = f"; {remedy}" if remedy else ""
    try:
        with file.open("rb") as opened:
            value = parse_json(opened.read(MAX_LINE))
        return check_shape(value, shape)
    except OSError as fault:
        raise error(f"{file}: can't be read: {fault.strerror or fault}{hint}") from None
    except ValueError as fault:
        raise error(f"{file}: damaged ({fault}){hint}") from None


def check_shape(value: Any, shape: dict[str, type]) -> dict[str, Any]:
    """A value that is an object with these fields, as it is.

    Args:
        value: Any JSON value.
        shape: The type of each field that must be there, by its name.

    Raises:
        ValueError: it is no object, or a field is missing or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but a {type(value).__name__}")
    for name, kind in shape.items():
        found = value.get(name)
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            wrong = f"is a {type(found).__name__}, not a" if name in value else "is missing, a"
            raise ValueError(f"its {name!r} {wrong} {kind.__name__}")
    return value
