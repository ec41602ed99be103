"""A run is watched while it is trained: its stages as a table, and what it is doing now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from exsearch.models.settings import BEST_FILE
from exsearch.runs import is_locked
from exsearch.show.figures import folder_text
from exsearch.terminal import safe
from exsearch.tracking.follow import follow
from exsearch.training.stages import check_run

_LOOKS = 5  # after so many looks the state is told again: time goes on
_AFTER = {  # what follows an event, as far as it says so
    "taught": "learning",
    "e_step": "learning",
    "m_step": "answering dev questions",
    "dev": "trying each action, or sampling for the next round",
    "actions": "sampling for the next round",
}


def watch(run: Path) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """A run's new events and its state as text, at new events and every few seconds.

    Args:
        run: The folder of a run, which may have written nothing yet.

    Raises:
        RunError: it is no run, or its journal can't be read.
    """
    check_run(run)
    every: list[dict[str, Any]] = []
    for look, events in enumerate(follow(run)):
        every += events
        if events or look % _LOOKS == 0:
            yield events, _text(run, every)
    yield [], _text(run, every)


def _text(run: Path, events: Sequence[Mapping[str, Any]]) -> str:
    table = folder_text(run) if events else f"{safe(run.name)}: nothing measured yet"
    if (run / BEST_FILE).is_file():
        return table
    if not is_locked(run):
        return f"{table}\nnobody trains it now; run `exsearch train` again to go on"
    return f"{table}\n{_now(events)}"


def _now(events: Sequence[Mapping[str, Any]]) -> str:
    """What a run is doing, by the last event that it wrote."""
    if not events:
        return "now: the first stage"
    last = events[-1]
    ago = timedelta(seconds=round(max(0.0, time.time() - last.get("time", time.time()))))
    stage, doing = safe(last["stage"]), _AFTER.get(last["event"], "at work")
    if isinstance(last.get("step"), int):
        doing = "learning, " + _steps([e for e in events if e["stage"] == last["stage"]])
    return f"now: {stage}, {doing} (last line {ago} ago)"


def _steps(events: Sequence[Mapping[str, Any]]) -> str:
    """How far the optimizer steps of a stage are, with the time that is left by their own pace."""
    steps = [e for e in events if isinstance(e.get("step"), int)]
    last = steps[-1]
    total = last.get("optimizer_steps", last.get("steps"))
    told = f"step {last['step']}" + (f" of {total}" if isinstance(total, int) else "")
    seconds = last.get("time", 0.0) - steps[0].get("time", 0.0)
    taken = last["step"] - steps[0]["step"]
    if not (isinstance(total, int) and taken > 0 and seconds > 0):
        return told
    pace = seconds / taken
    left = timedelta(seconds=round(pace * (total - last["step"])))
    return f"{told}, {pace:.1f} s a step, {left} left of them"
