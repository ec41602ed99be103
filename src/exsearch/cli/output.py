"""Output for scripts is one JSON object, last on standard output; for people it is lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click


def print_json(values: Mapping[str, Any]) -> None:
    """One line with one JSON object; what is not a number becomes null."""
    click.echo(json.dumps(_finite(values), ensure_ascii=False, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
