"""Whoever imports exsearch has its types: a checker refuses a wrong call and passes a right one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import exsearch

ROOT = Path(exsearch.__file__).parents[2]
PYRIGHT = Path(sys.executable).with_name("pyright")

WRONG = "import exsearch\nexsearch.rollout(1, nonsense=True)\n"
RIGHT = """\
import exsearch

engine = exsearch.ScriptedEngine({"": "Answer: yes"})
retriever = exsearch.open_retriever("index")
questions = [exsearch.Question("q", "Is it?", ("yes",))]
for trajectory in exsearch.rollout(questions, engine, retriever, samples=2):
    print(trajectory.answer.upper(), len(trajectory.steps))
with exsearch.Searcher(engine, retriever) as searcher:
    print(searcher.ask("Is it?").answer.upper())
print(exsearch.__version__)
"""


def checked(text: str, folder: Path) -> dict[str, list[str]]:
    """What pyright says about somebody else's file, with this project's settings, by severity."""
    file = folder / "theirs.py"
    file.write_text(text)
    command = [str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable, str(file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report = json.loads(result.stdout)
    except ValueError:  # it fetches itself on its first call
        pytest.skip(f"pyright is not installed: {(result.stderr or result.stdout)[:200]}")
    assert report["summary"]["filesAnalyzed"] == 1
    said: dict[str, list[str]] = {"error": [], "information": []}
    for one in report["generalDiagnostics"]:
        said.setdefault(one["severity"], []).append(one["message"])
    return said


needs_pyright = pytest.mark.skipif(not PYRIGHT.exists(), reason="pyright is not installed")


@needs_pyright
def test_a_wrong_call_is_refused_by_name(tmp_path: Path):
    messages = checked(WRONG, tmp_path)["error"]
    assert any('"nonsense"' in message for message in messages), messages
    assert len(messages) >= 2  # the missing arguments, too: it knows the whole signature


@needs_pyright
def test_a_right_call_passes(tmp_path: Path):
    assert checked(RIGHT, tmp_path)["error"] == []


@needs_pyright
def test_every_public_name_has_a_type(tmp_path: Path):
    names = [name for name in dir(exsearch) if not name.startswith("_")]
    assert len(names) > 40
    lines = [f"reveal_type(exsearch.{name})" for name in names]
    said = checked("\n".join(["import exsearch", *lines, ""]), tmp_path)
    assert said["error"] == []
    assert len(said["information"]) == len(names)
    assert [m for m in said["information"] if '"Unknown"' in m or 'is "Any"' in m] == []
    assert checked("import exsearch\nexsearch.no_such_name\n", tmp_path)["error"]
