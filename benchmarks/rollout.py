"""Rollouts: ours against plain transformers, on the same trajectories.

Every system writes the same tokens at the same calls (see workload.py), so they differ in how they
do the work, not in how much is asked. Three systems, in turns:

    ours        exsearch.agent.rollout.rollout over the engine
    batched     all live trajectories' prompts, left-padded, in batches of the best size; no cache
                between calls, no prompt encoded once for several
    sequential  one trajectory at a time, batch 1, a KV cache within each call

The slow ones do fewer questions; times are compared per trajectory. The floor is what the counted
work takes at this machine's ceiling.

    python -m benchmarks.rollout [--data DIR] [--questions 32] [--json]
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.agreement import greedy_differences, log_prob_gap
from benchmarks.baselines import PlainTransformers, sequential, turn_by_turn
from benchmarks.counting import Shape, Work, floor
from benchmarks.machine import Ceilings, facts
from benchmarks.report import finish, interleaved, launch, parser, spread, table
from benchmarks.shares import TimedRetriever, timed_rollout
from benchmarks.workload import SAMPLE, LaidDown, Workload, recipe, workload
from exsearch.agent.rollout import rollout
from exsearch.engines import load_engine
from exsearch.engines.base import Sampling
from exsearch.errors import EngineError
from exsearch.models.settings import resolve_model
from exsearch.records import Trajectory

COUNTERS = ("encoded_tokens", "decoded_tokens")


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    made.add_argument("--replay", type=Path, help="trajectories of `exsearch rollout`")
    made.add_argument("--model", default="smollm2-135m")
    made.add_argument("--questions", type=int, default=32, help="for ours, each with K = 4 samples")
    made.add_argument("--batched-questions", type=int, default=8)
    made.add_argument("--sequential-questions", type=int, default=2)
    made.add_argument("--batch-sizes", default="8,16,32", help="tried for `batched`")
    made.add_argument("--greedy-questions", type=int, default=4)
    made.add_argument("--runs", type=int, default=3)
    return made


def ours(work: Workload, engine: Any, retriever: Any) -> list[Trajectory]:
    """A rollout of the workload by this project."""
    return rollout(
        work.questions,
        LaidDown(engine, work.trajectories),
        retriever,
        samples=work.samples,
        method=work.method,
        seed=LaidDown.SEED,
    )


def timed(
    work: Workload, run: Callable[[Any], list[Trajectory]], keep: list[list[Trajectory]]
) -> float:
    """Seconds of one run, which must have written the workload's trajectories."""
    retriever = work.retriever()
    start = time.perf_counter()
    done = run(retriever)
    seconds = time.perf_counter() - start
    if [_tokens(t) for t in done] != [_tokens(t) for t in work.trajectories]:
        raise EngineError("a system wrote other tokens than were laid down, or saw other prompts")
    keep[:] = [done]
    return seconds


def _tokens(trajectory: Trajectory) -> list[tuple[Any, Any]]:
    return [(c.prompt_ids, c.output_ids) for c in trajectory.calls]


def best_batch_size(work: Workload, plain: PlainTransformers, sizes: list[int]) -> dict[int, float]:
    """Seconds by batch size, the best first; also warms the baseline up."""
    seconds = {}
    for size in sizes:
        plain.batch_size = size
        run = functools.partial(turn_by_turn, work, LaidDown(plain, work.trajectories), Sampling())
        seconds[size] = timed(work, run, [])
    return dict(sorted(seconds.items(), key=lambda item: item[1]))


def per_trajectory(work: Workload, seconds: list[float]) -> dict[str, Any]:
    """Times of one system, a trajectory, with the tokens that a trajectory asked for."""
    counted = Work.of(work.trajectories)
    return {
        "trajectories": counted.trajectories,
        "tokens_per_trajectory": (counted.prompt_tokens + counted.output_tokens)
        / counted.trajectories,
        "seconds_per_trajectory": spread([s / counted.trajectories for s in seconds]),
        "trajectories_per_second": spread([counted.trajectories / s for s in seconds]),
    }


def shares(work: Workload, engine: Any) -> dict[str, float | None]:
    """Shares of one timed run; `model` is what the others leave."""
    with timed_rollout() as timers:
        retriever = TimedRetriever(work.retriever(), timers["retrieval"])
        start = time.perf_counter()
        ours(work, engine, retriever)
        total = time.perf_counter() - start
    parts = {n: None if t.seconds is None else t.seconds / total for n, t in timers.items()}
    return {**parts, "model": 1 - sum(p or 0.0 for p in parts.values())}


def counters(engine: Any) -> dict[str, int] | None:
    """How many tokens the engine has put through the model, where it counts them."""
    found = {name: getattr(engine, name, None) for name in COUNTERS}
    return None if None in found.values() else found  # type: ignore[return-value]


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    settings = recipe().model
    engine: Any = load_engine(
        args.model, batch_size=settings.batch_size, system_prompt=settings.system_prompt
    )
    work = workload(args.data, args.questions, folder, engine.tokenizer, args.replay)
    some, few = work.of(args.batched_questions), work.of(args.sequential_questions)
    model = resolve_model(args.model)
    batched = PlainTransformers(model, engine.tokenizer, 1)
    single = PlainTransformers(model, engine.tokenizer, 1)
    single.model = batched.model
    tried = best_batch_size(some, batched, [int(s) for s in args.batch_sizes.split(",")])
    batched.batch_size = next(iter(tried))
    ours(few, engine, few.retriever())  # warms up

    kept: list[list[Trajectory]] = []
    before = counters(engine)
    used: dict[str, int] | None = None

    def run_ours() -> float:
        nonlocal before, used
        before = counters(engine)
        seconds = timed(work, functools.partial(ours, work, engine), kept)
        after = counters(engine)
        used = after and before and {n: after[n] - before[n] for n in after}
        return seconds

    systems = {"ours": run_ours}
    for name, part, plain, drive in (
        ("batched", some, batched, turn_by_turn),
        ("sequential", few, single, sequential),
    ):
        run = functools.partial(drive, part, LaidDown(plain, part.trajectories), Sampling())
        systems[name] = functools.partial(timed, part, run, [])
    ceilings = Ceilings()
    seconds = interleaved(systems, args.runs, ceilings.measure)
    parts = {"ours": work, "batched": some, "sequential": few}
    speeds = {name: per_trajectory(parts[name], seconds[name]) for name in systems}
    counted = Work.of(work.trajectories)
    least = floor(work.trajectories, Shape.of(engine.model), ceilings.ceiling)
    median = spread(seconds["ours"])["median"]
    agreed = work.of(args.greedy_questions)
    compared, differences = greedy_differences(agreed.trajectories, engine, single, work.method)
    return {
        "machine": facts(),
        "ceiling": ceilings.figures(),
        "batch_sizes_tried": tried,
        "speed": speeds,
        "ratio": {n: _ratio(speeds, n) for n in ("batched", "sequential")},
        "work": counted,
        "engine_tokens": used,
        "put_through_per_distinct": used and sum(used.values()) / counted.distinct_tokens,
        "encoded_per_distinct_prompt_token": used
        and used["encoded_tokens"] / counted.distinct_prompt_tokens,
        "floor_seconds": least,
        "share_of_ceiling": least.total / median,
        "shares_of_time": shares(work, engine),
        "greedy": {"calls": compared, "differences": differences},
        "log_prob_gap": log_prob_gap(kept[0], single, 32),
    }


def _ratio(speeds: dict[str, dict[str, Any]], name: str) -> dict[str, float]:
    """How many times as long a baseline takes: a trajectory, and a token that was asked for."""
    seconds = {n: s["seconds_per_trajectory"]["median"] for n, s in speeds.items()}
    tokens = {n: s["tokens_per_trajectory"] for n, s in speeds.items()}
    ratio = seconds[name] / seconds["ours"]
    return {"per_trajectory": ratio, "per_token": ratio * tokens["ours"] / tokens[name]}


def show(figures: dict[str, Any]) -> None:
    """The table for people."""
    work, used = figures["work"], figures["engine_tokens"]
    table("Machine", list(figures["machine"].items()))
    table("Ceiling, in this run", list(figures["ceiling"].items()))
    for name, speed in figures["speed"].items():
        table(f"Rollout: {name}", list(speed.items()))
    ratio = figures["ratio"]
    size = next(iter(figures["batch_sizes_tried"]))
    rows = [
        ("times as fast as batched, a trajectory", ratio["batched"]["per_trajectory"]),
        ("... a token asked for", ratio["batched"]["per_token"]),
        ("times as fast as sequential, a trajectory", ratio["sequential"]["per_trajectory"]),
        ("... a token asked for", ratio["sequential"]["per_token"]),
        ("best batch size of batched", size),
        ("prompt tokens asked", work.prompt_tokens),
        ("output tokens", work.output_tokens),
        ("distinct tokens", work.distinct_tokens),
        ("distinct prompt tokens", work.distinct_prompt_tokens),
        ("prompt tokens encoded by the engine", used["encoded_tokens"] if used else "not counted"),
        ("output tokens decoded by the engine", used["decoded_tokens"] if used else "not counted"),
        ("put through the model / distinct", figures["put_through_per_distinct"]),
        ("encoded / distinct prompt tokens", figures["encoded_per_distinct_prompt_token"]),
        ("floor, s (prompts)", figures["floor_seconds"].prompts),
        ("floor, s (decoding)", figures["floor_seconds"].decoding),
        ("floor, s (all products, however arranged)", figures["floor_seconds"].products),
        ("floor / time", figures["share_of_ceiling"]),
        *((f"share of time: {name}", share) for name, share in figures["shares_of_time"].items()),
        ("greedy calls compared", figures["greedy"]["calls"]),
        ("greedy differences", len(figures["greedy"]["differences"])),
        *((f"  {d.trajectory} call {d.call}", d) for d in figures["greedy"]["differences"]),
        ("largest log-prob gap", figures["log_prob_gap"]),
    ]
    table("Ours", rows)


def main() -> None:
    """Measure and print."""
    args = options().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    show(figures)
    finish(figures, args.json)


if __name__ == "__main__":
    launch(main)
