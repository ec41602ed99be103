"""The journal is a run's `metrics.jsonl`: an event a line, written once however often it resumes.

It computes nothing.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from exsearch.runs import append_jsonl, finite, read_jsonl

logger = logging.getLogger(__name__)


class Journal:
    """Append-only events, named by stage, event and optimizer step; a repeated one is passed over.

    Args:
        file: The file of JSON lines, which may hold the events of an earlier process.
    """

    def __init__(self, file: Path):
        self.file = file
        self._events = {self._key(e): e for e in read_jsonl(file, stage=str, event=str)}

    def log(self, stage: str, event: str, *, step: int | None = None, **values: Any) -> None:
        """Write an event, unless it was written before, maybe by an earlier process of this run.

        Args:
            stage: The name of the stage.
            event: The name of the event, such as `dev`.
            step: The number of the optimizer step, from 1; None for an event of the whole stage.
            values: The figures of the event.
        """
        entry = {"stage": stage, "event": event, "step": step, **values}
        if self._key(entry) in self._events:
            return
        entry["time"] = round(time.time(), 3)
        append_jsonl(self.file, [json.dumps(finite(entry), allow_nan=False)])
        self._events[self._key(entry)] = entry
        if step is None:
            logger.info("%s: %s: %s", stage, event, values)

    def find(self, stage: str, event: str) -> dict[str, Any] | None:
        """The figures of a whole stage's event; None where it was not written.

        Args:
            stage: The name of the stage.
            event: The name of the event, such as `dev`.
        """
        return self._events.get((stage, event, None))

    @staticmethod
    def _key(entry: dict[str, Any]) -> tuple[str, str, int | None]:
        step = entry.get("step")
        return entry["stage"], entry["event"], step if isinstance(step, int) else None
