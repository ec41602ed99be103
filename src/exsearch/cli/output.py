"""Output for scripts is one JSON object, last on standard output; for people it is lines.

Progress and errors are not output: they go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from exsearch.runs import finite


def tell(as_json: bool, values: Mapping[str, Any], *lines: str) -> None:
    """Print the result of a command.

    Args:
        as_json: True prints the values, False the lines.
        values: The result for scripts, printed as one line of JSON; NaN and infinities are null.
        lines: The result for people.
    """
    text = json.dumps(finite(values), ensure_ascii=False, allow_nan=False, default=str)
    for line in [text] if as_json else lines:
        click.echo(line)


def confirmed(question: str) -> bool:
    """What a person at the terminal says to a question; false where there is none to ask."""
    return sys.stdin.isatty() and click.confirm(question, err=True)
