"""A JSON lines file is a sequence of numbered objects, packed or not, read one at a time.

Every fault is a `DataError` with file, line, field and what was expected. It does not know what the
objects mean, and it writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from exsearch.data.sources import BOM, open_source
from exsearch.errors import DataError
from exsearch.json_files import numbered_lines, parse_json

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_objects(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers, from 1; blank lines are passed over.

    Args:
        path: The file, packed or not; it may begin with a byte order mark.
        what: What the file should be, such as `question file`, for messages.

    Raises:
        DataError: the file can't be read, or a line is not UTF-8, not JSON, or not an object.
    """
    with open_source(path, what) as file:
        for number, line in numbered_lines(file):
            text = line.removeprefix(BOM) if number == 1 else line
            if text.strip():
                yield number, parse_object(text, path, number)


def parse_object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Read one line as a JSON object.

    Args:
        line: The bytes of the line.
        path: The file that it comes from, for messages.
        number: The number of the line, from 1, for messages.

    Raises:
        DataError: the line is not UTF-8, not JSON, or not an object.
    """
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        message = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        raise DataError(message, file=path, line=number) from error
    except ValueError as error:
        message = f"not JSON ({error}); expected one object a line"
        raise DataError(message, file=path, line=number) from error
    if not isinstance(value, dict):
        got = describe(value)
        raise DataError(f"expected a JSON object, got {got}", file=path, line=number)
    return value


class Fields:
    """The fields of one object, taken out by name and type; a wrong one is a `DataError`.

    Args:
        values: The fields by name.
        path: The file that it comes from.
        line: The number of its line, from 1; None where the file has no lines.
        prefix: The path to the object within its line or file, such as `decomposition[0].`.
    """

    def __init__(self, values: dict[str, Any], path: Path, line: int | None, prefix: str = ""):
        self.values = values
        self.path = path
        self.line = line
        self.prefix = prefix

    def fail(self, name: str, expected: str) -> NoReturn:
        """Raise the `DataError` that says what is wrong with a field.

        Args:
            name: The name of the field.
            expected: What the field should hold, in words.

        Raises:
            DataError: always.
        """
        field = f"{self.prefix}{name}"
        if name not in self.values:
            known = ", ".join(list(self.values)[:8]) or "none"
            message = f'field "{field}" is missing, expected {expected} (fields here: {known})'
        else:
            got = describe(self.values[name])
            message = f'field "{field}" is {got}, expected {expected}'
        raise DataError(message, file=self.path, line=self.line)

    def text(self, name: str, *, blank: bool = False) -> str:
        """A required text, `clean`ed, so that it can be written again.

        Args:
            name: The name of the field.
            blank: Whether the text may be blank.
        """
        value = self.values.get(name)
        if not isinstance(value, str) or not (blank or value.strip()):
            self.fail(name, "text" if blank else "text that is not blank")
        return clean(value)

    def optional_text(self, name: str) -> str | None:
        """A text, or None where the field is missing or null."""
        return None if self.values.get(name) is None else self.text(name, blank=True)

    def id(self, name: str = "id") -> str:
        """A required id: a text that is not blank, or a whole number; `_id` is read for `id`."""
        other = {"id": "_id", "_id": "id"}.get(name, name)
        name = other if name not in self.values and other in self.values else name
        id_ = _as_id(self.values.get(name))
        if id_ is None:
            self.fail(name, "a text that is not blank, or a whole number")
        return id_

    def ids(self, name: str) -> tuple[str, ...]:
        """A list of ids; empty where the field is missing or null."""
        found = [(item, _as_id(item)) for item in self.items(name)]
        for item, id_ in found:
            if id_ is None:
                self.fail(name, f"a list of ids only, not one with {describe(item)}")
        return tuple(id_ for _, id_ in found if id_ is not None)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where the field is missing or null."""
        value = self.items(name)
        for item in value:
            if not isinstance(item, str):
                self.fail(name, f"a list of texts only, not one with {describe(item)}")
        return tuple(clean(item) for item in value)

    def objects(self, name: str) -> list[Fields]:
        """A list of objects as `Fields`; empty where the field is missing or null."""
        value = self.items(name)
        for item in value:
            if not isinstance(item, dict):
                self.fail(name, f"a list of objects only, not one with {describe(item)}")
        return [
            Fields(item, self.path, self.line, f"{self.prefix}{name}[{i}].")
            for i, item in enumerate(value)
        ]

    def object(self, name: str) -> Fields:
        """An object as `Fields`; one without fields where the field is missing or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            self.fail(name, "an object")
        return Fields(value or {}, self.path, self.line, f"{self.prefix}{name}.")

    def items(self, name: str) -> list[Any]:
        """A list of anything; empty where the field is missing or null."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(name, "a list")
        return value


def _as_id(value: Any) -> str | None:
    """A value as an id: a text that is not blank, or a whole number; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return clean(value) if isinstance(value, str) and value.strip() else None


def clean(text: str) -> str:
    r"""The text with lone surrogates (a `\ud800` alone in JSON) replaced: UTF-8 can't hold them."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def describe(value: Any) -> str:
    """A JSON value in a few words, for an error message."""
    kinds = {type(None): "null", bool: "true or false", int: "a number", float: "a number"}
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f"the text {shown!r}"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    other = "an object" if isinstance(value, dict) else f"of the type {type(value).__name__}"
    return kinds.get(type(value), other)
