"""A table file is rows of named fields, as text under a line of names or as Parquet, one at a time.

Fields of a text may be quoted, also over several lines. It does not know what the fields mean.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.data.json_lines import clean
from exsearch.data.sources import BOM, check_exists, open_source
from exsearch.errors import DataError, MissingExtraError
from exsearch.json_files import MAX_LINE, numbered_lines

TEXT_TABLES = (".csv", ".tsv")
PARQUET = ".parquet"
TABLES = (*TEXT_TABLES, PARQUET)

_ROWS = 64  # of a Parquet file, in memory at a time


def read_rows(
    path: Path, what: str, known: str, unnamed: Sequence[str] = (), only: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table of any kind, with their numbers, from 1.

    Args:
        path: The file, one of `TABLES`; one of text may be packed.
        what: What the file should be, such as `corpus`, for messages.
        known: A name that every line of names holds.
        unnamed: As for `read_table`.
        only: The columns that are read from a Parquet file; empty: all.

    Raises:
        DataError: as by `read_table` and `read_parquet`.
        MissingExtraError: a Parquet file without the extra `files`.
    """
    if path.suffix == PARQUET:
        return read_parquet(path, what, only)
    return read_table(path, what, known, unnamed)


def read_parquet(
    path: Path, what: str, only: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file with their numbers, from 1, as JSON has them: lists and objects.

    Nulls are None, dictionaries are what they stand for; bytes, dates and the like stay what they
    are, so that no reader takes them for texts.

    Args:
        path: The file.
        what: What the file should be, such as `corpus`, for messages.
        only: The columns that are read; empty: all.

    Raises:
        DataError: the file can't be read, is damaged, or has a row larger than memory should hold.
        MissingExtraError: without the extra `files`.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("a Parquet file", "files", str(error)) from None
    number = 0
    check_exists(path, what)
    try:
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            names = [name for name in file.schema_arrow.names if not only or name in only]
            for batch in file.iter_batches(_ROWS, columns=names):
                single = [batch.slice(at, 1) for at in range(batch.num_rows)]
                for part in single if batch.nbytes > MAX_LINE else [batch]:
                    if part.nbytes > MAX_LINE:
                        message = f"a row of more than {MAX_LINE >> 20} MiB; is it the right file?"
                        raise DataError(message, file=path, line=number + 1)
                    for row in part.to_pylist():
                        number += 1
                        yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"can't be read: {error.strerror}", file=path) from error
        reason = str(error).partition("\n")[0]
        message = f"no Parquet file, or damaged after row {number} ({reason}); fetch it again"
        raise DataError(message, file=path) from error


def read_table(
    path: Path, what: str, known: str, unnamed: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with the numbers of their last lines, from 1; blank fields are left out.

    A tab in the first line says that tabs separate, also in a `.csv` file.

    Args:
        path: The file, packed or not.
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
