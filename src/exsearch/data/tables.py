"""A table file is comma- or tab-separated rows under a line of names, read one row at a time.

Fields may be quoted, also over several lines. It does not know what the fields mean.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from exsearch.data.json_lines import BOM, clean, open_source
from exsearch.errors import DataError
from exsearch.json_files import MAX_LINE, numbered_lines

TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def read_table(
    path: Path, what: str, known: str, unnamed: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with the numbers of their last lines, from 1; blank fields are left out.

    A tab in the first line says that tabs separate, also in a `.csv` file.

    Args:
        path: The file, `.gz` or not.
        what: What the file should be, such as `corpus`, for messages.
        known: A name that every line of names holds; that is how one is told from a row.
        unnamed: The names of the fields of a table without a line of names; empty allows none.

    Raises:
        DataError: the file can't be read, is not UTF-8, has no line of names, or a row has another
            number of fields; the message names file and line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    with open_source(path, what) as file:
        lines = _decoded(numbered_lines(file), path)
        first = next(lines, "")
        separator = "\t" if "\t" in first or ".tsv" in path.suffixes else ","
        rows = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
        names: Sequence[str] = ()
        try:
            for row in filter(None, rows):  # not the blank lines
                if not names:
                    names = [name.strip() for name in row]
                    if known in names:
                        continue
                    names = unnamed
                if len(row) != len(names):
                    _fail(path, rows.line_num, row, names, known)
                values = {n: clean(v) for n, v in zip(names, row, strict=True) if v.strip()}
                if values:
                    yield rows.line_num, values
        except csv.Error as error:
            raise DataError(f"not a table ({error})", file=path, line=rows.line_num) from None


def _decoded(lines: Iterator[tuple[int, bytes]], path: Path) -> Iterator[str]:
    for number, line in lines:
        try:
            yield (line.removeprefix(BOM) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            message = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
            raise DataError(message, file=path, line=number) from None


def _fail(path: Path, line: int, row: list[str], names: Sequence[str], known: str) -> None:
    if line == 1 or not names:
        message = f'no line of names: the first must name the fields, "{known}" among them'
    else:
        message = f"{len(row)} fields where the line of names has {len(names)}; quote a text"
        message += " that holds a separator or a quote"
    raise DataError(message, file=path, line=line)
