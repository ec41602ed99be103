"""Timed rollouts of whichever checkout is on the path; pairs.py starts one process for each.

It uses only what every revision has, by public names and those of the checkout's own benchmarks.
For each line on standard input it makes one rollout and prints one JSON object.

    echo | PYTHONPATH=DIR/src:DIR python -P benchmarks/pairs_worker.py --questions 8
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exsearch
from benchmarks.rollout import ours, timed
from benchmarks.workload import SAMPLE, Workload, recipe, workload


def digest(work: Workload) -> str:
    """Names the tokens of a workload, so that two revisions can be seen to do the same."""
    calls = [(c.prompt_ids, c.output_ids) for t in work.trajectories for c in t.calls]
    return hashlib.sha256(repr(calls).encode()).hexdigest()


def measured(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A rollout a line of input, after one over another question, which warms up and counts not."""
    settings = recipe().model
    engine: Any = exsearch.load_engine(
        args.model, batch_size=settings.batch_size, system_prompt=settings.system_prompt
    )
    whole = workload(args.data, args.questions + 1, folder, engine.tokenizer)
    work, last = whole.of(args.questions), whole.questions[-1]
    spare = [t for t in whole.trajectories if t.question.id == last.id]
    first = dataclasses.replace(whole, questions=[last], trajectories=spare)
    ours(first, engine, first.retriever())
    for _ in sys.stdin:
        seconds = timed(work, functools.partial(ours, work, engine), [])
        yield {
            "seconds": seconds,
            "trajectories_per_second": len(work.trajectories) / seconds,
            "source": exsearch.__file__,
            "workload": digest(work),
        }


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", default=SAMPLE)
    options.add_argument("--model", default="smollm2-135m")
    options.add_argument("--questions", type=int, default=8)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for figures in measured(args, Path(folder)):
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
