"""Each command of docs/serving.md, and of README's first screens, does what it is there for."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from answer_server import ANSWER, PASSAGES, QUESTION
from saved_page import write_saved

from started_server import StartedServer, started

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^    ((?:\w+=\S+ )?exsearch (\w+) .*?)(?:  +#.*)?$", re.MULTILINE)
EXSEARCH = f"exec {shlex.quote(sys.executable)} -m exsearch"
# What is asked follows a script, and every server has a port of its own.
OPTIONS = {
    "ask": " --engine scripted --model script.jsonl",
    "mcp": " --engine scripted --model script.jsonl",
    "serve": " --engine scripted --model script.jsonl --port 0 --json",
    "show": " --port 0 --json",
    "index": "",
}


def commands(document: str, until: str = "") -> dict[str, str]:
    """The commands of a document's blocks that serve or ask, and the name of each."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = COMMAND.findall(text[: text.index(until) if until else None])
    return {command: name for command, name in found if name in OPTIONS}


DOCUMENTED = commands("docs/serving.md") | commands("README.md", "## Quick start")


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    """A folder with everything that the commands name."""
    for name in ("docs", "notes", "my-notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "harbour.txt").write_text(PASSAGES[0].text, encoding="utf-8")
    for name in ("index", "my-index"):
        shutil.copytree(world / "index", tmp_path / name)
    (tmp_path / "questions.txt").write_text(f"{QUESTION}\n", encoding="utf-8")
    for number, saved in enumerate(write_saved(tmp_path), 1):
        folder = tmp_path / "runs" / "mine" / f"iteration-0{number}"
        folder.mkdir(parents=True)
        saved.rename(folder / "trajectories.jsonl")
    shutil.copy(world / "script.jsonl", tmp_path)
    return tmp_path


def test_there_is_one_for_each_face():
    assert set(DOCUMENTED.values()) == set(OPTIONS)


@pytest.mark.parametrize("command", DOCUMENTED)
def test_it_works(command: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    name = DOCUMENTED[command]
    monkeypatch.chdir(place)
    environment = {"HOME": str(place), "EXSEARCH_CACHE": str(place / "cache")}
    options = OPTIONS[name]
    line = command.replace("exsearch ", f"{EXSEARCH} ", 1)
    line = line.replace(f" {name} ", f" {name}{options} ", 1) if name != "mcp" else line + options
    if name in ("serve", "show"):
        with started(["bash", "-c", line], environment) as running:
            address = running.address.replace("0.0.0.0", "127.0.0.1")
            path = "/readyz" if name == "serve" else "/"
            assert httpx2.get(address + path, trust_env=False).status_code == 200
        return
    if name == "index":
        shutil.rmtree(place / "index")
    told = subprocess.run(
        ["bash", "-c", line],
        input=f"{QUESTION}\n" if "--chat" in command else "",
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert told.returncode == 0, told.stderr
    if "--out answers.jsonl" in command:
        assert ANSWER in (place / "answers.jsonl").read_text()
    elif QUESTION in command or "--chat" in command:
        assert ANSWER in told.stdout
    elif "--into" in command:
        written = [p.read_text() for p in place.rglob("*.json") if p.is_file()]
        assert any("mcpServers" in text for text in written)
    elif "--print" in command:
        assert json.loads(told.stdout)


def streams() -> list[str]:
    """The commands that ask for an answer as a stream, each of one line or of more."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    return re.findall(r"^    (curl -N .*(?:\n      .*)*)", text, re.MULTILINE)


@pytest.mark.parametrize("command", streams())
def test_a_stream_ends_with_the_answer(command: str, server: StartedServer):
    line = command.replace("http://127.0.0.1:8000", server.address)
    line = re.sub(r"Who built .*?\?", QUESTION, line)
    told = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert ANSWER in told.stdout, told.stderr
