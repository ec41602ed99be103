"""Output for scripts is one JSON object, last on standard output; for people it is lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from exsearch.runs import finite


def tell(as_json: bool, values: Mapping[str, Any], *lines: str) -> None:
    """Print values as one line of JSON, what is no number as null; or else the lines."""
    text = json.dumps(finite(values), ensure_ascii=False, allow_nan=False, default=str)
    for line in [text] if as_json else lines:
        click.echo(line)
