"""One timed rollout of whichever checkout is on the path; pairs.py starts it, once a process.

It uses only what every revision has, by public names and those of the checkout's own benchmarks.
It prints one JSON object last.

    PYTHONPATH=DIR/src:DIR python -P benchmarks/pairs_worker.py --questions 8
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import exsearch
from benchmarks.rollout import ours, timed
from benchmarks.workload import SAMPLE, Workload, recipe, workload


def digest(work: Workload) -> str:
    """Names the tokens of a workload, so that two revisions can be seen to do the same."""
    calls = [(c.prompt_ids, c.output_ids) for t in work.trajectories for c in t.calls]
    return hashlib.sha256(repr(calls).encode()).hexdigest()


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One rollout, after one over another question that warms up and is not counted."""
    settings = recipe().model
    engine: Any = exsearch.load_engine(
        args.model, batch_size=settings.batch_size, system_prompt=settings.system_prompt
    )
    whole = workload(args.data, args.questions + 1, folder, engine.tokenizer)
    work, last = whole.of(args.questions), whole.questions[-1]
    spare = [t for t in whole.trajectories if t.question.id == last.id]
    first = dataclasses.replace(whole, questions=[last], trajectories=spare)
    ours(first, engine, first.retriever())
    seconds = timed(work, functools.partial(ours, work, engine), [])
    return {
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
        figures = measure(args, Path(folder))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
