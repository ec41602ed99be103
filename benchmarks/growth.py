"""Growth: eight times the questions should take eight times as long, in the same memory.

The E-step (`sample_and_weigh`) streams chunks of questions into a file. Each size runs in a process
of its own, which gives its peak memory; small and large take turns. What the harness itself keeps
(the tokens laid down, for all questions) is the same in both.

    python -m benchmarks.growth [--data DIR] [--small 64] [--large 512] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import Ceilings, facts, peak_bytes
from benchmarks.report import finish, launch, parser, spread, table
from benchmarks.workload import (
    SAMPLE,
    SAMPLES,
    LaidDown,
    build_index,
    questions,
    recipe,
    synthesised,
)
from exsearch.engines import load_engine
from exsearch.retrievers import open_retriever
from exsearch.training.e_step import sample_and_weigh


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    made.add_argument("--model", default="smollm2-135m")
    made.add_argument("--small", type=int, default=64)
    made.add_argument("--large", type=int, default=512)
    made.add_argument(
        "--runs", type=int, default=2, help="of the small one; the large runs between"
    )
    made.add_argument("--samples", type=int, default=SAMPLES, help="K")
    made.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    made.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    return made


def worker(args: argparse.Namespace) -> dict[str, Any]:
    """One E-step over `args.worker` questions, in this process."""
    whole = recipe()
    engine: Any = load_engine(
        args.model, batch_size=whole.model.batch_size, system_prompt=whole.model.system_prompt
    )
    asked = questions(args.data, args.large)
    made = synthesised(asked, open_retriever(args.index), engine.tokenizer, whole.method)
    config = dataclasses.replace(whole.e_step, samples=args.samples)
    laid_down, retriever = LaidDown(engine, made), open_retriever(args.index)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trajectories.jsonl"
        start = time.perf_counter()
        sample_and_weigh(
            asked[: args.worker], laid_down, retriever, file, config, whole.method,
            seed=LaidDown.SEED, iteration=0,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        peak, tokens = peak_bytes(), _tokens(file)
    return {"seconds": seconds, "peak_bytes": peak, "tokens": tokens}


def _tokens(file: Path) -> int:
    """Tokens that the rollouts asked for, from the file they wrote."""
    total = 0
    with file.open("rb") as lines:
        for line in lines:
            calls = json.loads(line)["trajectory"]["calls"]
            total += sum(len(c["prompt_ids"]) + len(c["output_ids"]) for c in calls)
    return total


def in_process(args: argparse.Namespace, size: int, index: Path) -> dict[str, Any]:
    """The figures of one size, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", "--json", "--worker", str(size)]
    command += ["--data", args.data, "--model", args.model, "--large", str(args.large)]
    command += ["--samples", str(args.samples)]
    command += ["--index", str(index)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The sizes by turns, small first and last."""
    index, ceilings = build_index(args.data, folder / "index"), Ceilings()
    found: dict[int, list[dict[str, Any]]] = {args.small: [], args.large: []}
    for n in range(2 * args.runs - 1):
        ceilings.measure()
        size = args.large if n % 2 else args.small
        found[size].append(in_process(args, size, index))
    if not found[args.large]:
        found[args.large].append(in_process(args, args.large, index))
    ceilings.measure()
    small, large = found[args.small], found[args.large]
    seconds = [statistics.median(r["seconds"] for r in runs) for runs in (small, large)]
    peak = [statistics.median(r["peak_bytes"] for r in runs) for runs in (small, large)]
    tokens = [runs[0]["tokens"] for runs in (small, large)]
    return {
        "machine": facts(),
        "ceiling": ceilings.figures(),
        "questions": [args.small, args.large],
        "seconds": {size: spread([r["seconds"] for r in runs]) for size, runs in found.items()},
        "peak_gb": {
            size: spread([r["peak_bytes"] / 1e9 for r in runs]) for size, runs in found.items()
        },
        "questions_ratio": args.large / args.small,
        "seconds_ratio": seconds[1] / seconds[0],
        # The first questions are not as long as all: this is the growth for equal work.
        "seconds_per_token_ratio": seconds[1] / tokens[1] / (seconds[0] / tokens[0]),
        "peak_ratio": peak[1] / peak[0],
    }


def main() -> None:
    """Measure and print, or be one of the processes."""
    args = options().parse_args()
    if args.worker:
        finish(worker(args), True)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    small, large = figures["questions"]
    rows: list[tuple[str, Any]] = []
    for size in (small, large):
        rows += [
            (f"{size} questions, s", figures["seconds"][size]),
            (f"{size} questions, peak GB", figures["peak_gb"][size]),
        ]
    rows += [(n, v) for n, v in figures.items() if n.endswith("ratio")]
    table("Ceiling, in this run", list(figures["ceiling"].items()))
    table("Growth of the E-step", rows)
    finish(figures, args.json)


if __name__ == "__main__":
    launch(main)
