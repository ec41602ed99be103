"""A real `exsearch serve-retriever` for tests, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "exsearch", "serve-retriever", "--port", "0", "--json")


@dataclass
class SearchServer:
    """A server that runs: its address and its first process."""

    address: str
    process: subprocess.Popen[str]


@contextmanager
def search_server(place: str | Path, *options: object) -> Iterator[SearchServer]:
    """Serves a place on a free port of this machine, until the block ends."""
    with subprocess.Popen(
        [*COMMAND, str(place), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    ) as process:
        assert process.stdout and process.stderr
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield SearchServer(json.loads(said)["address"], process)
        finally:
            process.terminate()
            process.wait(60)
