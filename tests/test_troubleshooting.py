"""Every message that docs/troubleshooting.md explains is one that the package still gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
VARIES = "…"
MESSAGES = [m for m in re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE) if m != "message"]


def template(node: ast.Constant | ast.JoinedStr) -> str:
    """A text as it stands in the source, with a sign for what an f-string or % puts in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(p.value) if isinstance(p, ast.Constant) else VARIES for p in parts)
    return re.sub(r"%(\.\d+f|[sdr])", VARIES, text).replace("`", "")


def templates() -> list[str]:
    """All texts of the source but docstrings."""
    found: list[str] = []
    for file in (ROOT / "src" / "exsearch").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings:
                found.append(template(node))
    return found


TEMPLATES = templates()


def stands_in_source(message: str) -> bool:
    """Whether one text of the source has all that is fixed of a message, in its order."""
    fixed = [part.strip() for part in message.split(VARIES)]
    pattern = re.compile(".*".join(map(re.escape, fixed)), re.DOTALL)
    return any(pattern.search(text) for text in TEMPLATES)


def test_the_page_explains_what_users_meet() -> None:
    assert len(MESSAGES) >= 25
    assert len(set(MESSAGES)) == len(MESSAGES)
    short = [m for m in MESSAGES if max(len(part.strip()) for part in m.split(VARIES)) < 10]
    assert not short, "too little of it is fixed to be looked for"


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_stands_in_the_source(message: str) -> None:
    assert stands_in_source(message), "docs/troubleshooting.md explains what is no longer said"


def test_a_message_that_is_no_longer_said_is_found() -> None:
    assert not stands_in_source("the corpus is full (…): no passage to index")
    assert not stands_in_source("no passage to index … the corpus is empty")
