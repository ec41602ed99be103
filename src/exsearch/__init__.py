"""exsearch: language models that search, and that learn it from their own weighted trajectories."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import exsearch` stays fast and needs no torch.
_HOMES = {
    "Searcher": "exsearch.searcher",
    "load_questions": "exsearch.data.questions",
    "load_engine": "exsearch.build",
    "load_retriever": "exsearch.build",
    "rollout": "exsearch.agent.rollout",
    "weigh": "exsearch.training.e_step",
    "m_step": "exsearch.training.m_step",
    "new_optimizer": "exsearch.training.m_step",
}
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'exsearch' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
