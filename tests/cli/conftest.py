"""A command is run in this process, by click's own runner; its faults are one line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exsearch.cli import cli
from exsearch.data import sample_path

SCRIPT = [
    {"contains": "Query: Who wrote the play", "reply": "[1] Peter Pan was written by Barrie."},
    {"contains": "1. Who wrote the play", "reply": "Answer: Great Ormond Street"},
    {"contains": "Notes:", "reply": "Search: Who wrote the play about Peter Pan?"},
]


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    """Runs a command that must leave with `code`."""

    def run_command(*args: object, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="exsearch")
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output or "--debug" in args
        return result

    return run_command


@pytest.fixture(scope="session")
def fails(run: Callable[..., Result]) -> Callable[..., str]:
    """Runs a command that must fail, with one line on standard error, and gives that line."""

    def failing(*args: object, code: int) -> str:
        result = run(*args, "-q", code=code)
        assert result.stdout == ""
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("exsearch: error: ")
        return lines[0]

    return failing


@pytest.fixture(scope="session")
def index(run: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged sample, indexed."""
    folder = tmp_path_factory.mktemp("cli") / "index"
    run("index", sample_path("corpus"), "--out", folder)
    return folder


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a scripted engine replies: one search, one fact, always the same answer."""
    file = tmp_path_factory.mktemp("cli") / "script.jsonl"
    file.write_text("".join(json.dumps(rule) + "\n" for rule in SCRIPT))
    return file


@pytest.fixture
def scripted(index: Path, script: Path) -> list[object]:
    """The options for the sample's index and an engine that replies by a script."""
    return ["--index", index, "--model", script, "--engine", "scripted"]
