"""exsearch: language models that search, and that learn it from their own weighted trajectories."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


@cache
def _homes() -> dict[str, str]:
    """Public name -> module. `__init__.pyi` has both, for type checkers and for this."""
    import ast

    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `import exsearch` stays fast and needs no torch.
    if name == "__all__":
        return [*_homes(), "__version__"]
    if name.startswith("_") or name not in _homes():
        raise AttributeError(f"module 'exsearch' has no attribute {name!r}")
    return getattr(importlib.import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted([*_homes(), "__version__"])
