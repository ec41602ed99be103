"""The files at the root of the repository say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import exsearch

ROOT = Path(__file__).resolve().parent.parent


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == exsearch.__version__


def test_agents_finds_every_folder_of_the_package() -> None:
    layout = (ROOT / "AGENTS.md").read_text(encoding="utf-8").split("## Layout")[1]
    named = set(re.findall(r"^      (\w+)/ ", layout, re.MULTILINE))
    source = ROOT / "src" / "exsearch"
    folders = {f.name for f in source.iterdir() if any(f.glob("*.py")) or any(f.glob("*.toml"))}
    assert named == folders
    for name in re.findall(r"^    ([a-z]+)/ ", layout, re.MULTILINE):
        assert (ROOT / name).is_dir()


def test_agents_names_commands_that_make_knows() -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = re.findall(r"^    make ([\w-]+)", text, re.MULTILINE)
    assert len(named) >= 4 and set(named) <= set(targets)
