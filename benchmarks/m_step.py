"""The M-step: ours against TRL's SFTTrainer, on identical trajectories and masks.

    equal       one sample a question, every weight 1: tokens a second on the same sequences
    weighted    K samples a question with the E-step's weights: questions a second, ours with
                merging, shared prefixes and negligible weights left out, TRL on all sequences

Both: full fine-tuning in float32 on the CPU, AdamW, one learning rate, the same order of magnitude
of sequences an optimizer step, one step before the clock starts. TRL gets the best of the settings
tried: grouped by length, or packed. Padding counts for neither. Each run is a process of its own,
which gives its peak memory. Ours runs with gradient checkpointing, too: less memory for more time.
One step's gradients are compared.

    make bench-trl-env
    python -m benchmarks.m_step [--data DIR | --trajectories FILE] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from benchmarks.machine import Ceilings, facts, peak_bytes
from benchmarks.report import finish, interleaved, launch, parser, spread, table
from benchmarks.workload import SAMPLE, recipe, workload
from exsearch.engines import load_engine
from exsearch.errors import ConfigError, DataError
from exsearch.models.settings import resolve_model
from exsearch.records import WeightedTrajectory, to_json
from exsearch.training.batches import TrainingSequence, training_sequences
from exsearch.training.e_step import weigh
from exsearch.training.m_step import m_step, new_optimizer
from exsearch.training.recipe import MStepConfig
from exsearch.training.weights import effective_sample_size
from exsearch.trajectories import WeightedFile, by_question

TRL_PYTHON = Path(".venv-trl/bin/python")
GRADIENT_QUESTIONS = 2


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    made.add_argument("--trajectories", type=Path, help="weighted, from `exsearch rollout`")
    made.add_argument("--model", default="smollm2-135m")
    made.add_argument("--questions", type=int, default=16, help="of the equal comparison")
    made.add_argument("--weighted-questions", type=int, default=8)
    made.add_argument("--questions-per-step", type=int, default=4)
    made.add_argument("--token-budget", type=int, default=recipe().m_step.token_budget)
    made.add_argument("--trl", default="g4,g8,g16,p1024,p2048", help="g: grouped batch, p: pack")
    made.add_argument("--trl-python", type=Path, default=TRL_PYTHON)
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--first", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--gradient", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    return made


def m_step_config(args: argparse.Namespace, **changes: Any) -> MStepConfig:
    """The recipe's M-step, but no question is hopeless: the model is untrained."""
    return dataclasses.replace(
        recipe().m_step,
        questions_per_step=args.questions_per_step,
        token_budget=args.token_budget,
        min_log_likelihood=-math.inf,
        gradient_checkpointing=args.checkpointing,
        **changes,
    )


class Gradient(torch.optim.SGD):
    """An optimizer that takes no step, so that the gradient stays as it is."""

    def step(self, closure: Any = None) -> None:
        """Nothing."""


def worker(args: argparse.Namespace) -> dict[str, Any]:
    """One M-step of ours in this process, or the gradient of one step."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        resolve_model(args.model), dtype=torch.float32
    )
    items = list(WeightedFile(args.worker))  # the clock is for training, not for reading
    if args.gradient:
        questions = len(by_question(items))
        config = m_step_config(args, min_weight=0.0, max_grad_norm=math.inf)
        config = dataclasses.replace(config, questions_per_step=questions)
        m_step(model, Gradient(model.parameters(), lr=0.0), items, config)
        gradient = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        save_file(gradient, args.gradient)
        return {}
    config = m_step_config(args)
    optimizer = new_optimizer(model, config)
    m_step(model, optimizer, WeightedFile(args.first), config)
    start = time.perf_counter()
    figures = m_step(model, optimizer, items, config)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": peak_bytes(), "m_step": figures}


def equal(item: WeightedTrajectory) -> WeightedTrajectory:
    """The trajectory with weight 1 and its first answer alone: every target then weighs 1."""
    return dataclasses.replace(
        item, weight=1.0, answer_log_probs=(0.0,), answer_ids=item.answer_ids[:1]
    )


@dataclasses.dataclass(frozen=True)
class Task:
    """The same trajectories for both: as records for ours, as sequences for TRL."""

    items: Path
    sequences: Path
    questions: int
    tokens: int

    @classmethod
    def write(cls, items: Sequence[WeightedTrajectory], name: str, folder: Path) -> Task:
        """Put some trajectories into both files; TRL's sequences all have weight 1."""
        sequences = [s for item in items for s in training_sequences(equal(item))]
        task = cls(
            folder / f"{name}.jsonl",
            folder / f"{name}-sequences.jsonl",
            len(by_question(items)),
            sum(len(s.input_ids) for s in sequences),
        )
        task.items.write_text("".join(to_json(i) + "\n" for i in items), encoding="utf-8")
        task.sequences.write_text("".join(map(_trl_row, sequences)), encoding="utf-8")
        return task


def _trl_row(sequence: TrainingSequence) -> str:
    mask = [int(w != 0) for w in sequence.loss_weights]
    return json.dumps({"input_ids": sequence.input_ids, "completion_mask": mask}) + "\n"


def trajectories(args: argparse.Namespace, count: int, folder: Path) -> list[WeightedTrajectory]:
    """Weighted trajectories of `count` questions: from a file, or the workload's, weighed here."""
    if args.trajectories:
        groups = by_question([i for i in WeightedFile(args.trajectories) if i.answer_ids])
        if len(groups) < count:
            raise DataError(f"{len(groups)} questions, expected {count}", file=args.trajectories)
        return [item for group in groups[:count] for item in group]
    engine: Any = load_engine(args.model, system_prompt=recipe().model.system_prompt)
    work = workload(args.data, count, folder, engine.tokenizer)
    return weigh(work.trajectories, engine)


def run_ours(args: argparse.Namespace, *more: str, task: Task, first: Task) -> dict[str, Any]:
    """Our M-step on a task, in a process of its own."""
    return _last_line([
        sys.executable, "-m", "benchmarks.m_step", "--model", args.model,
        "--worker", str(task.items), "--first", str(first.items),
        "--questions-per-step", str(args.questions_per_step),
        "--token-budget", str(args.token_budget), *more,
    ])  # fmt: skip


def run_trl(
    args: argparse.Namespace, setting: str, *more: str, task: Task, first: Task
) -> dict[str, Any]:
    """TRL on a task, by a setting such as `g8` (grouped, 8 a batch) or `p1024` (packed)."""
    kind, size = setting[0], setting[1:]
    how = ["--batch", size] if kind == "g" else ["--batch", "1", "--pack", size]
    steps = math.ceil(task.questions / args.questions_per_step)
    return _last_line([
        str(args.trl_python), "-m", "benchmarks.trl_worker", "--model", resolve_model(args.model),
        "--sequences", str(task.sequences), "--first", str(first.sequences),
        "--steps", str(steps), "--learning-rate", str(m_step_config(args).learning_rate),
        *how, *more,
    ])  # fmt: skip


def _last_line(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def gradient_difference(args: argparse.Namespace, setting: str, task: Task, folder: Path) -> float:
    """The relative L2 distance of TRL's gradient of one step from ours, on the same sequences."""
    ours, theirs = folder / "ours.safetensors", folder / "trl.safetensors"
    run_ours(args, "--gradient", str(ours), task=task, first=task)
    run_trl(args, setting, "--gradient", str(theirs), task=task, first=task)
    a, b = load_file(ours), load_file(theirs)
    assert a.keys() == b.keys()
    distance = sum(float((a[n].double() - b[n].double()).square().sum()) for n in a)
    return math.sqrt(distance / sum(float(a[n].double().square().sum()) for n in a))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """TRL's best setting, its gradient, then both comparisons, interleaved."""
    if not args.trl_python.exists():
        raise ConfigError(f"{args.trl_python}: no such file; make bench-trl-env")
    groups = by_question(
        trajectories(args, 1 + max(args.questions, args.weighted_questions), folder)
    )
    first = Task.write([equal(groups[0][0])], "first", folder)
    some = [equal(group[0]) for group in groups[1 : 1 + args.questions]]
    task = Task.write(some, "equal", folder)
    chosen = [item for group in groups[1 : 1 + args.weighted_questions] for item in group]
    weighted = Task.write(chosen, "weighted", folder)
    few = Task.write(some[:GRADIENT_QUESTIONS], "gradient", folder)
    tried = {s: run_trl(args, s, task=task, first=first)["seconds"] for s in args.trl.split(",")}
    best = min(tried, key=lambda setting: tried[setting])
    distance = gradient_difference(args, best, few, folder)
    peaks: dict[str, int] = {}
    own: dict[str, Any] = {}

    def timed(name: str, run: Any) -> float:
        figures = run()
        peaks[name] = max(peaks.get(name, 0), figures["peak_bytes"])
        own[name] = figures.get("m_step") or {"steps": figures["steps"]}
        return figures["seconds"]

    runs = {
        "ours": functools.partial(run_ours, args),
        "ours_checkpointed": functools.partial(run_ours, args, "--checkpointing"),
        "trl": functools.partial(run_trl, args, best),
    }
    systems = {}
    for suffix, on in (("", task), ("_weighted", weighted)):
        for name, run in runs.items():
            each = functools.partial(run, task=on, first=first)
            systems[name + suffix] = functools.partial(timed, name + suffix, each)
    ceilings = Ceilings()
    seconds = interleaved(systems, args.runs, ceilings.measure)
    tokens = {n: spread([task.tokens / s for s in seconds[n]]) for n in runs}
    weighted_names = [f"{n}_weighted" for n in runs]
    per_second = {n: spread([weighted.questions / s for s in seconds[n]]) for n in weighted_names}
    return {
        "machine": facts(),
        "ceiling": ceilings.figures(),
        "gradient_difference": distance,
        "trl_settings_tried": tried,
        "trl_setting": best,
        "questions": task.questions,
        "tokens": task.tokens,
        "tokens_per_second": tokens,
        "tokens_ratio": _ratios({n: t["median"] for n, t in tokens.items()}),
        "weighted_questions": weighted.questions,
        "weighted_tokens": weighted.tokens,
        # 1: one sample has all the weight, and leaving out is easy; K: all weigh the same.
        "weighted_effective_samples": statistics.mean(
            effective_sample_size([item.weight for item in group]) for group in by_question(chosen)
        ),
        "questions_per_second": per_second,
        "questions_ratio": _ratios({n: q["median"] for n, q in per_second.items()}),
        "peak_gb": {name: peak / 1e9 for name, peak in peaks.items()},
        "peak_ratio": _ratios({n: peaks[n] for n in runs})
        | _ratios({n: peaks[n] for n in weighted_names}),
        "own_figures": own,  # what each says of itself: steps, and ours of its tokens
    }


def _ratios(values: dict[str, float]) -> dict[str, float]:
    """Each of ours over TRL's, which comes last."""
    *ours, rival = values
    return {name: values[name] / values[rival] for name in ours}


def main() -> None:
    """Measure and print, or be one of the processes."""
    args = options().parse_args()
    if args.worker:
        finish(worker(args), True)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        if name in ("machine", "ceiling", "own_figures"):
            continue
        inner = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{name} {part}".strip(), v) for part, v in inner]
    table("Machine", list(figures["machine"].items()))
    table("Ceiling, in this run", list(figures["ceiling"].items()))
    table("M-step", rows)
    finish(figures, args.json)


if __name__ == "__main__":
    launch(main)
