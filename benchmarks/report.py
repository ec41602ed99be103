"""A report is what a benchmark prints: a table for people, then one JSON object for programs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from exsearch.errors import ExSearchError


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; `doc` is the script's docstring."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print one JSON object last")
    return made


def launch(main: Callable[[], None]) -> None:
    """Run a script; what a user can mend ends it with one line."""
    try:
        main()
    except ExSearchError as error:
        raise SystemExit(f"error: {error}") from None


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and most of several runs, and the runs."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "runs": list(values),
    }


def table(title: str, rows: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one a line; a dict from `spread` shows its median and range."""
    print(f"\n{title}")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {_shown(value)}", flush=True)


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        range_ = f"{_shown(value['least'])} to {_shown(value['most'])}"
        return f"{_shown(value['median'])}  ({range_}, {len(value['runs'])} runs)"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def finish(figures: dict[str, Any], as_json: bool) -> None:
    """Print the figures as the last line, where that is asked for."""
    if as_json:
        print(json.dumps(figures, default=_plain), flush=True)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{value!r} has no JSON form")


def interleaved(
    systems: dict[str, Callable[[], float]], runs: int, between: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each system, one run of each after the other, `runs` times over.

    A noisy machine then slows all of them alike. `between` (the ceiling, mostly) runs before each
    round and at the end.
    """
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(runs):
        between()
        for name, run in systems.items():
            seconds[name].append(run())
    between()
    return seconds
