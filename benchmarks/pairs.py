"""Pairs: the rollout of another checkout against this one's, by turns, on the same workload.

Each checkout has a process of its own, with its own `src` and `benchmarks` and the model loaded
once; they run by turns: before, after, before, after, and so on. A busy machine slows both of a
pair alike, so what counts is the ratio within each pair. Rivals must write the same tokens, else
nothing is compared.

    git worktree add ../before REVISION
    python -m benchmarks.pairs --before ../before [--pairs 7] [--questions 8] [--data DIR] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.report import finish, launch, parser, spread, table
from benchmarks.workload import SAMPLE
from exsearch.errors import ConfigError, DataError

HERE = Path(__file__).resolve().parent.parent


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--before", type=Path, required=True, help="folder of the other checkout")
    made.add_argument("--pairs", type=int, default=7)
    made.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    made.add_argument("--model", default="smollm2-135m")
    made.add_argument("--questions", type=int, default=8, help="each with K = 4 samples")
    return made


@contextlib.contextmanager
def rival(checkout: Path, args: argparse.Namespace) -> Iterator[Callable[[], dict[str, Any]]]:
    """A checkout in a process of its own; each call makes one rollout and gives its figures.

    Raises:
        ConfigError: the folder is no checkout.
    """
    for name in ("src/exsearch", "benchmarks"):
        if not (checkout / name).is_dir():
            raise ConfigError(f"{checkout}: no checkout of this project, it has no {name}")
    command = [sys.executable, "-P", str(Path(__file__).with_name("pairs_worker.py"))]
    command += ["--data", args.data, "--model", args.model, "--questions", str(args.questions)]
    path = os.pathsep.join([str(checkout / "src"), str(checkout)])
    environment = {**os.environ, "PYTHONPATH": path}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, told = process.stdin, process.stdout

        def run() -> dict[str, Any]:
            print(file=asked, flush=True)
            line = told.readline()
            if not line:
                raise ConfigError(f"{checkout}: its rollout failed, as it says above")
            figures = json.loads(line)
            if not Path(figures["source"]).is_relative_to(checkout):
                raise ConfigError(f"{checkout}: {figures['source']} was measured in its place")
            return figures

        yield run
        asked.close()  # ends it


def compare(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """The figures of both, and the ratio of their throughput within each pair.

    Raises:
        DataError: the two did not do the same work.
    """
    if len({figures["workload"] for pair in pairs for figures in pair}) > 1:
        raise DataError("the checkouts lay down other tokens: their rollouts can't be compared")
    found: dict[str, Any] = {}
    for name, runs in zip(("before", "after"), zip(*pairs, strict=True), strict=True):
        for figure in ("seconds", "trajectories_per_second"):
            found[f"{name}_{figure}"] = spread([figures[figure] for figures in runs])
    rate = "trajectories_per_second"
    return {**found, "after_over_before": spread([b[rate] / a[rate] for a, b in pairs])}


def main() -> None:
    """Measure and print."""
    made = options()
    args = made.parse_args()
    if min(args.pairs, args.questions) < 1:
        made.error("give 1 pair and 1 question or more")
    before = args.before.resolve()
    with rival(before, args) as old, rival(HERE, args) as new:
        pairs = [(old(), new()) for _ in range(args.pairs)]
    figures = {"machine": facts(), "questions": args.questions, **compare(pairs)}
    table("Machine", list(figures["machine"].items()))
    table("Rollout", [(n, v) for n, v in figures.items() if n != "machine"])
    finish(figures, args.json)


if __name__ == "__main__":
    launch(main)
