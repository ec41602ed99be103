"""A plug-in is a part with a name: a method, an engine, a retriever, a metric; built in or not.

Other packages add theirs by an entry point in the group `exsearch.<noun>s`, such as
`exsearch.methods`. A built-in name can't be taken over. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from exsearch.errors import ConfigError


def find(table: Mapping[str, Any], name: str, noun: str) -> Any:
    """The part called `name`.

    Args:
        table: The built-in parts by name, each as it is or as `"module:attribute"`.
        name: The name of the wanted part.
        noun: The kind of part in the singular, such as `method`; it names the group of entry
            points.

    Raises:
        ConfigError: no part has this name; the message says which name is nearest.
    """
    if name in table:
        if not isinstance(table[name], str):
            return table[name]
        module, attribute = table[name].split(":")
        return getattr(importlib.import_module(module), attribute)
    added = _added(noun)
    if name in added:
        return added[name].load()
    known = names(table, noun)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise ConfigError(f"no {noun} {name!r}; {hint}")


def find_all(table: Mapping[str, Any], noun: str) -> list[Any]:
    """All parts of the kind that `noun` names, the built-in ones of `table` first."""
    return [find(table, name, noun) for name in names(table, noun)]


def names(table: Mapping[str, Any], noun: str) -> list[str]:
    """The names of all parts of the kind that `noun` names, the built-in ones first."""
    return [*table, *(name for name in _added(noun) if name not in table)]


def _added(noun: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=f"exsearch.{noun}s")}
