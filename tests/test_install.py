"""The core installs without torch, from what the wheel holds, and says how to get the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.network]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the core alone, installed from a built wheel."""
    venv = tmp_path_factory.mktemp("install") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", ROOT], check=True)
    return venv / "bin"


def run(fresh: Path, *args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [fresh / "exsearch", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_core_needs_no_torch(fresh: Path, tmp_path: Path):
    code = (
        "from importlib.util import find_spec as f; print([n for n in ('torch', 'peft') if f(n)])"
    )
    found = subprocess.run(
        [fresh / "python", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
    assert "Commands:" in run(fresh, "--help", cwd=tmp_path).stdout


def test_the_core_indexes_scores_and_examines(fresh: Path, tmp_path: Path):
    corpus = tmp_path / "notes"
    corpus.mkdir()
    (corpus / "pan.md").write_text("# Peter Pan\n\nPeter Pan was written by J. M. Barrie.\n")
    result = run(fresh, "index", "notes", "--out", "index", "--json", cwd=tmp_path)
    assert json.loads(result.stdout) == {"index": "index", "passages": 1}
    (tmp_path / "p.jsonl").write_text('{"id": "test-0001", "prediction": "Great Ormond Street"}\n')
    score = ["score", "--questions", "sample:test", "--predictions", "p.jsonl", "--limit", 1]
    assert json.loads(run(fresh, *score, "--json", cwd=tmp_path).stdout)["em"] == 1
    report = run(fresh, "doctor", cwd=tmp_path)
    assert report.returncode == 0, report.stdout
    assert "pip install 'exsearch[local]'" in report.stdout


@pytest.mark.parametrize("command", ["ask", "train", "evaluate", "rollout", "quickstart"])
def test_what_needs_a_model_names_the_pip_command(fresh: Path, tmp_path: Path, command: str):
    run(fresh, "index", ROOT / "src/exsearch/data/sample/corpus.jsonl", "--out", "i", cwd=tmp_path)
    (tmp_path / "r.toml").write_text('name = "r"\n')
    asked = ["--questions", "sample:test", "--index", "i", "--out", "o"]
    arguments = {
        "ask": ["Who?", "--index", "i"],
        "train": ["r.toml"],
        "evaluate": asked,
        "rollout": asked,
        "quickstart": [],
    }
    result = run(fresh, command, *arguments[command], cwd=tmp_path)
    assert result.returncode == 6, result.stderr
    assert "pip install 'exsearch[local]'" in result.stderr
    assert "Traceback" not in result.stderr
