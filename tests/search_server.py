"""A real `exsearch serve-retriever` for tests, in processes of its own."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from started_server import StartedServer, started

COMMAND = (sys.executable, "-m", "exsearch", "serve-retriever", "--port", "0", "--json")


def search_server(place: str | Path, *options: object) -> AbstractContextManager[StartedServer]:
    """Serves a place on a free port of this machine, until the block ends."""
    return started([*COMMAND, place, *options])
