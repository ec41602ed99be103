"""The phases of an E-step, one by one: encoding prompts, decoding side by side, scoring answers.

encoding    a batch of distinct real prompts, one token each: the least FLOP (each distinct
            token once) a second, as a share of the machine's product of matrices
decoding    32 sequences of 250-token prompts and 64 laid-down tokens each; its time is that of
            the whole less that of the same with one token each. Every run has fresh prompts, so
            that nothing kept from an earlier call helps
scoring     `weigh` as a share of rollout and `weigh` together, on the workload's trajectories

python -m benchmarks.phases [--data DIR] [--questions 16] [--json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.counting import Ids, Shape, decoding_seconds, prompt_seconds
from benchmarks.machine import Ceilings, facts
from benchmarks.report import finish, interleaved, launch, parser, spread, table
from benchmarks.rollout import ours
from benchmarks.workload import SAMPLE, recipe, workload
from exsearch.engines import load_engine
from exsearch.engines.base import Request, Sampling
from exsearch.records import Call, CallKind, Trajectory
from exsearch.training.e_step import weigh

LIVE, PROMPT, WRITTEN = 32, 250, 64


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    made.add_argument("--model", default="smollm2-135m")
    made.add_argument("--questions", type=int, default=16, help="for encoding and scoring")
    made.add_argument("--runs", type=int, default=3)
    return made


class Windows:
    """Sequences of real text, no two with a common beginning, cut from one long row of ids.

    It begins anew at a shifted place where the row ends.
    """

    def __init__(self, ids: Sequence[int]):
        self.ids = ids
        self.start = 0
        self.shift = 0

    def take(self, count: int, length: int) -> list[Ids]:
        """The next `count` windows of `length` ids."""
        return [self._next(length) for _ in range(count)]

    def _next(self, length: int) -> Ids:
        if self.start + length > len(self.ids):
            self.shift += 7
            self.start = self.shift
        assert self.start + length <= len(self.ids), "too little text"
        self.start += length
        return tuple(self.ids[self.start - length : self.start])


def timed_generate(engine: Any, prompts: Sequence[Ids], forced: Sequence[Ids]) -> float:
    """Seconds to write the forced ids after the prompts."""
    requests = [
        Request(prompt, len(ids), key, ids)
        for key, (prompt, ids) in enumerate(zip(prompts, forced, strict=True))
    ]
    start = time.perf_counter()
    engine.generate(requests, Sampling())
    return time.perf_counter() - start


class EStep:
    """Rollout and scoring of one workload, timed apart."""

    def __init__(self, work: Any, engine: Any):
        self.work, self.engine = work, engine
        self.rolled: list[Trajectory] = []

    def rollout(self) -> float:
        """Seconds to sample."""
        start = time.perf_counter()
        self.rolled = ours(self.work, self.engine, self.work.retriever())
        return time.perf_counter() - start

    def scoring(self) -> float:
        """Seconds to weigh what the last rollout gave."""
        start = time.perf_counter()
        weigh(self.rolled, self.engine)
        return time.perf_counter() - start


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All phases, interleaved."""
    settings = recipe().model
    engine: Any = load_engine(
        args.model, batch_size=settings.batch_size, system_prompt=settings.system_prompt
    )
    work = workload(args.data, args.questions, folder, engine.tokenizer)
    prompts = sorted({c.prompt_ids for t in work.trajectories for c in t.calls})
    text = [i for t in work.trajectories for c in t.calls for i in c.prompt_ids]
    windows, end = Windows(text), engine.tokenizer.end_id
    e_step = EStep(work, engine)
    batches: list[tuple[list[Ids], list[Ids]]] = []

    def encoding() -> float:
        return timed_generate(engine, prompts, [(end,)] * len(prompts))

    def one_token() -> float:
        fresh = windows.take(LIVE, PROMPT)
        return timed_generate(engine, fresh, [(end,)] * LIVE)

    def all_tokens() -> float:
        # The end token would end a sequence, so it is replaced within.
        written = [tuple(i for i in w if i != end)[: WRITTEN - 1] for w in windows.take(LIVE, 100)]
        batches.append((windows.take(LIVE, PROMPT), [(*w, end) for w in written]))
        return timed_generate(engine, *batches[-1])

    systems = {
        "encoding": encoding,
        "one_token": one_token,
        "all_tokens": all_tokens,
        "rollout": e_step.rollout,
        "scoring": e_step.scoring,
    }
    one_token()  # warms up
    ceilings = Ceilings()
    seconds = interleaved(systems, args.runs, ceilings.measure)
    median = {name: statistics.median(runs) for name, runs in seconds.items()}
    decoding = [a - b for a, b in zip(seconds["all_tokens"], seconds["one_token"], strict=True)]
    shape, ceiling = Shape.of(engine.model), ceilings.ceiling
    calls = [[Call(CallKind.THINK, p, w)] for p, w in zip(*batches[-1], strict=True)]
    least = decoding_seconds(calls, shape, ceiling)
    steps = len(calls[0][0].output_ids) - 1
    return {
        "machine": facts(),
        "ceiling": ceilings.figures(),
        "seconds": {name: spread(runs) for name, runs in seconds.items()},
        "encoding_prompts": len(prompts),
        "encoding_share_of_ceiling": prompt_seconds(prompts, shape, ceiling) / median["encoding"],
        "decoding_seconds": spread(decoding),
        "decoding_tokens_per_second": spread([LIVE * steps / s for s in decoding]),
        "decoding_share_of_ceiling": least / statistics.median(decoding),
        "scoring_share_of_e_step": median["scoring"] / (median["scoring"] + median["rollout"]),
    }


def main() -> None:
    """Measure and print."""
    args = options().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    table("Machine", list(figures["machine"].items()))
    table("Ceiling, in this run", list(figures["ceiling"].items()))
    table("Seconds", list(figures["seconds"].items()))
    table("Phases", [(n, v) for n, v in figures.items() if n.startswith(("enc", "dec", "scor"))])
    finish(figures, args.json)


if __name__ == "__main__":
    launch(main)
