"""Output for scripts is one JSON object, last on standard output; for people it is lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click


def tell(as_json: bool, values: Mapping[str, Any], *lines: str) -> None:
    """Print values as one line of JSON, what is no number as null; or else the lines."""
    text = json.dumps(_finite(values), ensure_ascii=False, allow_nan=False, default=str)
    for line in [text] if as_json else lines:
        click.echo(line)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
