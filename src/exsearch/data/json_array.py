"""A JSON array file is one long list of objects, read one object at a time.

HotpotQA and 2WikiMultihopQA come so, TriviaQA within an object, in files of half a gigabyte that
would take several in memory. It does not know what the objects mean.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import ijson

from exsearch.data.json_lines import describe
from exsearch.data.sources import BOM, open_source
from exsearch.errors import DataError

CHUNK = 1 << 16  # bytes read at a time
_HEAD = 1024  # bytes in which the array begins
_DEEPEST = 500  # levels of nesting: far more than real data have, and what memory can hold


def read_array(path: Path, what: str, field: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array with their positions in it, from 0.

    Args:
        path: The file, packed or not.
        what: What the file should be, such as `hotpotqa file`, for messages.
        field: The name of the array in the object that the file is; empty: the file is the array.

    Raises:
        DataError: the file can't be read, or is not UTF-8 or not an array of objects.
    """
    index = 0
    with open_source(path, what) as opened:
        file = io.BufferedReader(cast("io.RawIOBase", opened))
        begin, kind = ("{", f'object with a list "{field}"') if field else ("[", "array")
        if file.peek(len(BOM)).startswith(BOM):
            file.read(len(BOM))
        if not file.peek(_HEAD).lstrip().startswith(begin.encode()):
            raise DataError(f'expected a JSON {kind}: it must begin with "{begin}"', file=path)
        try:
            events = ijson.basic_parse(file, use_float=True, buf_size=CHUNK)
            for value in _items(_within(events, field) if field else events):
                if not isinstance(value, dict):
                    message = f"item [{index}] is {describe(value)}, expected a JSON object"
                    raise DataError(message, file=path)
                yield index, value
                index += 1
        except (ijson.JSONError, RecursionError, ValueError) as error:  # ValueError: 4,300 digits
            if "UTF8" in str(error):
                raise DataError("not UTF-8; save the file as UTF-8", file=path) from None
            reason = str(error).splitlines()[0]
            raise DataError(f"item [{index}]: not JSON ({reason})", file=path) from None


def _within(events: Iterable[tuple[str, Any]], field: str) -> Iterator[tuple[str, Any]]:
    """The events of the list that stands in a field of the outermost object."""
    depth, here = 0, False
    for event, value in events:
        depth -= event in ("end_map", "end_array")
        if depth == 1 and event == "map_key":
            here = value == field
        elif depth == 1 and here and event not in ("start_array", "end_array"):
            raise ValueError(f'"{field}" is no list')
        elif depth and here:
            yield event, value
        depth += event in ("start_map", "start_array")


def _items(events: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    """The items of the outermost array, each built as its events come."""
    depth, builder = 0, ijson.ObjectBuilder()
    for event, value in events:
        depth -= event in ("end_map", "end_array")
        if depth:
            builder.event(event, value)
        depth += event in ("start_map", "start_array")
        if depth > _DEEPEST:
            raise RecursionError("nested too deeply")
        if depth == 1 and event != "start_array":
            yield builder.value
            builder = ijson.ObjectBuilder()
