"""A JSON array file is one long list of objects, read one object at a time.

HotpotQA and 2WikiMultihopQA come so, in files of half a gigabyte that would take several in memory.
It does not know what the objects mean.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from exsearch.data.json_lines import BOM, describe, open_source
from exsearch.errors import DataError

CHUNK = 1 << 20  # bytes read at a time, much more than one object
_PATIENCE = 16  # chunks after which a fault at one and the same place is no longer "need more"
_BLANK = re.compile(r"[ \t\r\n]*")


def read_array(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array with their 0-based positions in it.

    Raises:
        DataError: as `open_source`, or the file is not UTF-8 or not an array of objects.
    """
    with open_source(path, what) as file:
        text = _Text(file, path)
        if text.next_char() != "[":
            raise DataError('expected a JSON array: it must begin with "["', file=path)
        text.skip(1)
        for index, value in enumerate(_values(text)):
            if not isinstance(value, dict):
                message = f"item [{index}] is {describe(value)}, expected a JSON object"
                raise DataError(message, file=path)
            yield index, value
        if text.next_char():
            raise DataError("more text after the end of the JSON array", file=path)


def _values(text: _Text) -> Iterator[Any]:
    if text.next_char() == "]":
        text.skip(1)
        return
    index = 0
    while True:
        yield text.next_value(index)
        index += 1
        sign = text.next_char()
        if sign == "]":
            text.skip(1)
            return
        if sign != ",":
            text.fail(
                index, f'expected "," or "]", got {sign!r}' if sign else "the file ends early"
            )
        text.skip(1)


class _Text:
    """The text of a file, decoded chunk by chunk; what was consumed is let go."""

    def __init__(self, file: IO[bytes], path: Path):
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._at = 0
        self._json = json.JSONDecoder()
        self._first = True
        self._ended = False

    def fail(self, index: int, message: str) -> NoReturn:
        raise DataError(f"item [{index}]: not JSON ({message})", file=self._path)

    def skip(self, count: int) -> None:
        self._at += count

    def next_char(self) -> str:
        """The next character that is not blank, not consumed; nothing at the end of the file."""
        while True:
            self._at = _end_of_blank(self._buffer, self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def next_value(self, index: int) -> Any:
        """The next JSON value, consumed. An object cut off by the end of the buffer needs more."""
        self.next_char()
        place, tries = -1, 0
        while True:
            try:
                value, self._at = self._json.raw_decode(self._buffer, self._at)
                return value
            except RecursionError:
                self.fail(index, "nested too deeply")
            except json.JSONDecodeError as error:
                tries = tries + 1 if error.pos - self._at == place else 0
                place = error.pos - self._at
                if tries > _PATIENCE or not self._more():
                    self.fail(index, error.msg)

    def _more(self) -> bool:
        """Append a chunk to what is not yet consumed; False at the end of the file."""
        if self._ended:
            return False
        chunk = self._file.read(CHUNK)
        self._ended = not chunk
        if self._first:
            chunk, self._first = chunk.removeprefix(BOM), False
        try:
            text = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            raise DataError("not UTF-8; save the file as UTF-8", file=self._path) from error
        self._buffer = self._buffer[self._at :] + text
        self._at = 0
        return not self._ended


def _end_of_blank(text: str, start: int) -> int:
    match = _BLANK.match(text, start)
    return match.end() if match else start
