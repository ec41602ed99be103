"""A job goes on with what it was begun with, and with nothing else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from exsearch.errors import RunError
from exsearch.jobs.provenance import environment, settle


def test_settings_are_written_once_and_then_compared(tmp_path: Path):
    file, machine = tmp_path / "a" / "settings.json", tmp_path / "a" / "environment.json"
    settle(file, {"seed": 1, "path": ("x",)}, machine)
    assert json.loads(machine.read_text()) == environment()
    written = file.read_text()
    settle(file, {"seed": 1, "path": ("x",)}, machine)
    assert file.read_text() == written
    with pytest.raises(RunError, match=r"seed was 1, is now 2; name another place with --out"):
        settle(file, {"seed": 2, "path": ("x",)}, machine)
    assert file.read_text() == written


def test_without_a_result_other_settings_take_their_place(tmp_path: Path):
    file, machine = tmp_path / "settings.json", tmp_path / "environment.json"
    settle(file, {"seed": 1}, machine, begun=False)
    settle(file, {"seed": 2}, machine, begun=False)
    settle(file, {"seed": 2}, machine)
    with pytest.raises(RunError, match=r"seed was 2, is now 1"):
        settle(file, {"seed": 1}, machine)


@pytest.mark.parametrize("text", ["", "{", "nonsense"])
def test_damaged_settings(tmp_path: Path, text: str):
    file = tmp_path / "settings.json"
    file.write_text(text)
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        settle(file, {}, tmp_path / "environment.json")


def test_another_machine_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file, machine = tmp_path / "settings.json", tmp_path / "environment.json"
    settle(file, {}, machine)
    machine.write_text(json.dumps({**environment(), "python": "3.0.0"}))
    with caplog.at_level(logging.WARNING):
        settle(file, {}, machine)
    assert "python was '3.0.0'" in caplog.text


def test_the_environment_names_versions():
    found = environment()
    assert found["versions"]["exsearch"]
    assert found["versions"]["numpy"]
    assert {"python", "system", "cores"} <= found.keys()
