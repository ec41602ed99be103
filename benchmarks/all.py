"""All benchmarks, one after the other, in a small or a full setting; results as one JSON file.

    python -m benchmarks.all [--full] [--data DIR] [--replay FILE] [--out FILE] [--only NAME …]

The M-step is compared with TRL, and left out where its environment is missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.m_step import TRL_PYTHON
from benchmarks.report import parser
from benchmarks.workload import SAMPLE

# A quarter of an hour on two quiet cores.
SMALL = {
    "machine": "",
    "rollout": "--questions 6 --batched-questions 2 --sequential-questions 1 --batch-sizes 8 "
    "--greedy-questions 1",
    "phases": "--questions 4 --runs 2",
    "growth": "--small 2 --large 16 --runs 1",
    "m_step": "--questions 2 --weighted-questions 1 --questions-per-step 1 --trl g8 --runs 1",
    "equivalence": "--questions 4 --samples 1",
    "retrieval": "--small",
    "startup": "",
}
# Two hours at most; growth is the longest.
FULL = {
    "machine": "",
    "rollout": "--questions 24 --batched-questions 6 --sequential-questions 2",
    "phases": "--questions 16",
    "growth": "--small 64 --large 512 --runs 2",
    "m_step": "--questions 8 --weighted-questions 3 --questions-per-step 4 --trl g4,g8,p1024",
    "equivalence": "--questions 64",
    "retrieval": "",
    "startup": "",
}
WITHOUT_MODEL = ("machine", "retrieval", "startup")
SAMPLE_GROWTH = "--small 24 --large 192 --runs 2"  # the packaged sample has no 512 questions


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """One benchmark: its tables are shown, its JSON object is returned."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *arguments]
    print(f"\n== {name} {' '.join(arguments)}", flush=True)
    last, start = "", time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.returncode:
        print(last, end="")
        raise SystemExit(f"{name} failed: see above")
    return {**json.loads(last), "took_seconds": time.perf_counter() - start}


def main() -> None:
    """Run and write."""
    options = parser(__doc__)
    options.add_argument("--full", action="store_true", help="two hours instead of minutes")
    options.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    options.add_argument("--replay", help="weighted trajectories that `exsearch rollout` wrote")
    options.add_argument("--model", default="smollm2-135m")
    options.add_argument("--out", type=Path, help="write all figures here")
    options.add_argument("--only", nargs="+", choices=SMALL, default=list(SMALL))
    args = options.parse_args()
    found: dict[str, Any] = {}
    for name in args.only:
        if name == "m_step" and not TRL_PYTHON.exists():
            print(f"\n== m_step left out, no {TRL_PYTHON}: make bench-trl-env")
            continue
        settings = FULL if args.full else SMALL
        if args.full and args.data == SAMPLE:
            settings = {**FULL, "growth": SAMPLE_GROWTH}
        arguments = settings[name].split()
        if name not in WITHOUT_MODEL:
            arguments += ["--data", args.data, "--model", args.model]
        if args.replay and name in ("rollout", "m_step"):
            flag = "--replay" if name == "rollout" else "--trajectories"
            arguments += [flag, args.replay]
        found[name] = run(name, arguments)
        if args.out:  # after each: a full run is long, and what is done should stay
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
