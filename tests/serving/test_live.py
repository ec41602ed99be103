"""The report of a run is served as the run grows, and what can't be read takes nothing away."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.jobs.report import live_page
from exsearch.runs import append_jsonl, locked
from exsearch.training.stages import METRICS_FILE
from started_server import started
from written_evaluations import write_run

pytest.importorskip("matplotlib")


def until(address: str, **wanted: Any) -> dict[str, Any]:
    """What the server says of its newest page, once it says this."""
    for _ in range(300):
        told = httpx2.get(f"{address}/version").json()
        if all(told[name] == value for name, value in wanted.items()):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


def test_a_run_that_grows_is_reported_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    journal = run / METRICS_FILE
    first = journal.read_bytes()
    last = first.decode().splitlines()[-1]
    journal.unlink()
    (run / "recipe.json").write_text("{}")
    command = [sys.executable, "-m", "exsearch", "serve", "--run", run, "--port", 0, "--json"]
    with started(command) as server:
        address = server.address
        waiting = httpx2.get(address)
        assert waiting.text.startswith("mine: nothing is measured yet.")
        assert waiting.headers["refresh"] == "5"
        with locked(run):
            journal.write_bytes(first)
            told = until(address, trouble="", going=True)
        page = httpx2.get(address)
        assert f'"live":"{told["version"]}"' in page.text and "iteration-02" not in page.text
        assert "connect-src 'self'" in page.text
        assert not until(address, going=False)["trouble"]
        append_jsonl(journal, [last.replace("iteration-01", "iteration-02")])
        while until(address, trouble="")["version"] == told["version"]:
            time.sleep(0.1)
        assert "iteration-02" in httpx2.get(address).text
        with journal.open("a") as file:  # a line that is no event
            file.write("[]\n")
        while not until(address)["trouble"]:
            time.sleep(0.1)
        assert "damaged" in until(address)["trouble"]
        assert "iteration-02" in httpx2.get(address).text  # what was there stays
        assert httpx2.get(address, headers={"Host": "evil.example"}).status_code == 403
        assert httpx2.get(f"{address}/runs").status_code == 404


def test_a_page_on_a_disk_asks_nobody(tmp_path: Path) -> None:
    page = live_page(write_run(tmp_path / "mine"), "")
    assert '"live":""' in page and "connect-src" not in page.split("</head>")[0].split("<style")[0]


def test_what_can_t_be_served_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = CliRunner().invoke(cli, ["serve", "--run", str(tmp_path / "empty"), "--port", "0", "-q"])
    assert said.exit_code == 7 and "no run; name a folder" in said.stderr
    given = {"--index": "b", "--docs": "b", "--model": "b", "--max-steps": "2", "--abstain": "0.5"}
    for name, value in given.items():
        both = CliRunner().invoke(cli, ["serve", "--run", "a", name, value])
        assert both.exit_code == 2 and f"asks no model: leave {name} away" in both.stderr
