"""A journal is followed: its events as they are written, until nobody works on the run any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exsearch.errors import RunError
from exsearch.json_files import check_shape, parse_json
from exsearch.runs import is_locked
from exsearch.training.stages import METRICS_FILE

EVERY = 1.0  # seconds between two looks at a journal


def follow(
    run: Path, wait: Callable[[], object] = lambda: time.sleep(EVERY)
) -> Iterator[list[dict[str, Any]]]:
    """The events of a run, in batches as they are written, until no process works on it.

    Args:
        run: The folder of a run; its journal may be written only later.
        wait: A function that waits between two looks.

    Yields:
        The new events of a look; none where nothing was written since the last one.

    Raises:
        RunError: the journal can't be read, or a line of it is damaged.
    """
    file, offset, line = run / METRICS_FILE, 0, 0
    while True:
        going = is_locked(run)  # asked first: what is written before it ends is read below
        found: list[dict[str, Any]] = []
        for text in _lines_from(file, offset):
            offset += len(text)
            line += 1
            try:
                event = check_shape(parse_json(text), {"stage": str, "event": str})
            except ValueError as error:
                raise RunError(f"{file}:{line}: damaged ({error}); put the file back") from None
            found.append(event)
        yield found
        if not going:
            return
        wait()


def _lines_from(file: Path, offset: int) -> list[bytes]:
    """The whole lines of a file from a byte on; what is still being written comes later."""
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            text = opened.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{file}: can't be read: {error.strerror}") from None
    return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
