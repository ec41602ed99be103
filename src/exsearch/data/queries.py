"""A query file has one query a line: JSON objects, plain text, or the questions of a question file.

It does not search.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from exsearch.data.json_lines import Fields, clean, parse_object
from exsearch.data.questions import load_questions
from exsearch.data.sources import BOM, open_source, plain_name
from exsearch.data.tables import TABLES
from exsearch.errors import DataError
from exsearch.json_files import LongLineError, numbered_lines

STDIN = Path("-")


def load_queries(path: Path, limit: int | None = None) -> dict[str, str]:
    """Queries by their ids, in the order of the file.

    A line that begins with `{` is an object with `query` or `question`, and an `id` or none; other
    lines are queries as they stand. What has no id goes by the number of its line. Blank lines are
    passed over. A table (`.csv`, `.tsv`, `.parquet`) is read as a question file.

    Args:
        path: The file, compressed or not; `-` reads standard input.
        limit: The number of queries to read, from the first on; None reads all.

    Raises:
        DataError: the file can't be read or has no query, a line is of another form, or an id comes
            twice.
    """
    if plain_name(path).endswith(TABLES):
        return {question.id: question.question for question in load_questions(path, limit)}
    queries: dict[str, str] = {}
    with _source(path) as file:
        for number, id_, query in islice(_read(file, path), limit):
            if id_ in queries:
                raise DataError(f'the id "{id_}" comes twice', file=path, line=number)
            queries[id_] = query
    if not queries:
        raise DataError("no query in it; expected one a line", file=path)
    return queries


@contextlib.contextmanager
def _source(path: Path) -> Iterator[IO[bytes]]:
    if path != STDIN:
        with open_source(path, "query file") as file:
            yield file
        return
    try:
        yield sys.stdin.buffer
    except LongLineError as error:
        raise DataError(str(error), file=path, line=error.line) from None
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", file=path) from None


def _read(file: IO[bytes], path: Path) -> Iterator[tuple[int, str, str]]:
    """The line, the id and the text of each query."""
    for number, line in numbered_lines(file):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.lstrip().startswith(b"{"):
            fields = Fields(parse_object(line, path, number), path, number)
            named = {"id", "_id"} & fields.values.keys()
            name = "query" if "query" in fields.values else "question"
            yield number, fields.id() if named else str(number), fields.text(name)
        elif line.strip():
            try:
                yield number, str(number), clean(line.decode().strip())
            except UnicodeDecodeError as error:
                message = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
                raise DataError(message, file=path, line=number) from None
