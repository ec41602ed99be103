"""Schemathesis breaks every route by its schema: no 5xx, nothing undocumented, no open door."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from answer_server import answer_server

from started_server import StartedServer

pytestmark = pytest.mark.clients

CASES = int(os.environ.get("EXSEARCH_SCHEMA_CASES", "2000"))
OPERATIONS = 16  # about; each gets its share
CONFIG = Path(__file__).with_name("schemathesis.toml")


def schemathesis(server: StartedServer, *options: str) -> str:
    """Run all phases with good and bad data; what it says."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "--config-file", str(CONFIG), "run"]
    command += [f"{server.address}/openapi.json", "--checks", "all", "--mode", "all", "--no-color"]
    command += ["--max-examples", str(max(1, CASES // OPERATIONS)), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    return result.stdout


def test_no_request_breaks_the_server(server: StartedServer):
    told = schemathesis(server)
    generated = re.search(r"(\d[\d,]*) generated", told)
    assert generated and int(generated[1].replace(",", "")) >= CASES * 0.9, told[-2000:]


def test_no_route_is_open_without_the_key(world: Path):
    with answer_server(world, environment={"EXSEARCH_API_KEY": "s3cret"}) as locked:
        told = schemathesis(locked, "--header", "Authorization: Bearer s3cret")
    assert "ignored_auth" not in told
