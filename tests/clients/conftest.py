"""Programs of other people ask a real server, with the world of the tests of serving."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from answer_server import AnswerServer, answer_server, write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a script for the engine and an index."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="session")
def server(world: Path) -> Iterator[AnswerServer]:
    """A server that everybody may ask."""
    with answer_server(world) as running:
        yield running
