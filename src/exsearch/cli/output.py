"""Output for scripts is one JSON object, last on standard output; for people it is lines.

Progress and errors are not output: they go to standard error, which may be gone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO, cast

import click

from exsearch.errors import ExSearchError
from exsearch.runs import finite
from exsearch.terminal import safe, safe_json, safe_lines


def tell(as_json: bool, values: Mapping[str, Any], *lines: str) -> None:
    """Print the result of a command.

    Args:
        as_json: True prints the values, False the lines.
        values: The result for scripts, printed as one line of JSON; NaN and infinities are null.
        lines: The result for people.

    Raises:
        ExSearchError: standard output takes nothing more.
    """
    text = json.dumps(finite(values), ensure_ascii=False, allow_nan=False, default=str)
    try:
        for line in [safe_json(text)] if as_json else map(safe_lines, lines):
            click.echo(line)
    except BrokenPipeError:  # whoever reads has read enough
        raise
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # what is left would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = errno.errorcode.get(error.errno or 0, "?")
        raise ExSearchError(
            f"standard output can't be written ({code}), but the work is done: run the same "
            "command again with another output"
        ) from None


def confirmed(question: str) -> bool:
    """What a person at the terminal says to a question; false where there is none to ask."""
    return sys.stdin.isatty() and click.confirm(safe(question), err=True)


class _Lasting:
    """Standard error for a job that goes on when nobody can be told: it is closed, full or gone."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hold_streams() -> None:
    """Let no file of a job take the place of a standard stream, and no closed one stop the job."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
    stream = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    sys.stderr = cast(TextIO, _Lasting(stream))
