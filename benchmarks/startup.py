"""Measure what it costs to start: `import exsearch` and `exsearch --help`, in fresh processes.

    python -m benchmarks.startup [--runs 15] [--json]

Commands take turns, so that a busy moment of the machine falls on all of them. "Net" is less the
median of a bare interpreter. One round before the first is not counted: it writes the bytecode.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from exsearch.jobs.provenance import environment

BARE = "python -c pass"
COMMANDS = {
    BARE: ["-c", "pass"],
    "import exsearch": ["-c", "import exsearch"],
    "exsearch --help": ["-m", "exsearch", "--help"],
    "exsearch index --help": ["-m", "exsearch", "index", "--help"],
}


def measure(runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each command: median, least, most, and net of a bare interpreter."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if run:
                times[name].append(1000 * (time.perf_counter() - start))
    bare = statistics.median(times[BARE])
    return {
        name: {
            "median": statistics.median(taken),
            "min": min(taken),
            "max": max(taken),
            "net": statistics.median(taken) - bare,
        }
        for name, taken in times.items()
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("give 1 run or more")
    figures: dict[str, Any] = measure(args.runs)
    print(f"{f'ms, {args.runs} runs':<24}", *(f"{name:>8}" for name in figures[BARE]))
    for name, values in figures.items():
        print(f"{name:<24}", *(f"{value:>8.1f}" for value in values.values()))
    if args.json:
        result = {"unit": "ms", "runs": args.runs, "commands": figures}
        print(json.dumps(result | {"environment": environment()}))


if __name__ == "__main__":
    main()
