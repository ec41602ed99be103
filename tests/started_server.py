"""A real server of `exsearch` for tests, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StartedServer:
    """A server that runs: its address and its first process."""

    address: str
    process: subprocess.Popen[str]


@contextmanager
def started(
    command: Sequence[object], environment: Mapping[str, str] | None = None
) -> Iterator[StartedServer]:
    """Runs a command that serves and tells its address as JSON, until the block ends.

    Args:
        command: The command with its arguments.
        environment: Variables that it sees besides those of this process.
    """
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **(environment or {})},
    ) as process:
        assert process.stdout and process.stderr
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield StartedServer(json.loads(said)["address"], process)
        finally:
            process.terminate()
            process.wait(60)
