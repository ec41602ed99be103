"""docs/training.md tells of every event that a run writes, and cites what was measured."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")


def rows(text: str) -> set[str]:
    """The names in the first column of a table's rows."""
    return set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_every_event_of_a_run_is_explained() -> None:
    formats = (DOCS / "file-formats.md").read_text(encoding="utf-8")
    events = formats.split("### metrics.jsonl\n")[1].split("\n### ")[0]
    own = PAGE.split("## Reading `metrics.jsonl`\n")[1].split("\n## ")[0]
    assert rows(own) == rows(events) | {"probe"}


def test_the_memory_that_it_cites_stands_in_performance() -> None:
    measured = (DOCS / "performance.md").read_text(encoding="utf-8")
    cited = re.findall(r"\b(\d\.\d\d) GB", PAGE)
    assert len(cited) == 4
    assert all(figure in measured for figure in cited)
