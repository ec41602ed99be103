"""Equivalence: speed has changed no token of any rollout, greedy or sampled.

A model's rollouts over questions are run, greedily and sampled. Then every token of every call is
judged by plain transformers, one unbatched pass a call: it must be the argmax of the logits, or,
where it was sampled, of logit / T plus the noise of its key and position. By induction the simple
path then writes the same trajectories. A difference is accepted only where two scores tie within
1e-4, and is listed; log-probabilities must agree within 1e-4.

    python -m benchmarks.equivalence --model runs/2wiki_cpu [--data DIR] [--questions 64] [--json]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.machine import facts
from benchmarks.report import finish, launch, parser, table
from benchmarks.workload import SAMPLE, build_index, questions, recipe
from exsearch.agent.rollout import rollout
from exsearch.engines import load_engine
from exsearch.engines.base import GREEDY, Sampling, random_key
from exsearch.engines.local.sampling import gumbel_noise
from exsearch.models.settings import resolve_model
from exsearch.records import Trajectory
from exsearch.retrievers import open_retriever

TIE = 1e-4
SEED = 0


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--data", default=SAMPLE, help="folder with corpus and test .jsonl.gz")
    made.add_argument("--model", default="smollm2-135m", help="best one that follows the format")
    made.add_argument("--questions", type=int, default=64)
    made.add_argument("--samples", type=int, default=2, help="of each question, where sampled")
    return made


def judged(
    trajectories: Sequence[Trajectory], plain: Any, sampling: Sampling
) -> tuple[dict[str, Any], list[tuple[str, int, int, float]]]:
    """Counts, and the tokens that plain transformers would not have written, with their gaps."""
    differences: list[tuple[str, int, int, float]] = []
    calls = tokens = 0
    log_prob_gap = 0.0
    for t in trajectories:
        for n, call in enumerate(t.calls):
            key = random_key(SEED, t.iteration, t.question.id, t.sample, n, 0)
            logits = after(plain, call.prompt_ids, call.output_ids)  # (N, V)
            scores = logits.double().numpy()
            if sampling.temperature:
                at = np.arange(len(scores), dtype=np.uint64)[:, None]
                every = np.arange(scores.shape[1], dtype=np.uint64)[None]
                scores = scores + gumbel_noise(np.array([[key]], np.uint64), at, every)
            written = scores[np.arange(len(scores)), list(call.output_ids)]
            gaps = scores.max(-1) - written
            differences += [(t.id, n, int(i), float(gaps[i])) for i in np.flatnonzero(gaps > 0)]
            log_probs = torch.log_softmax(logits, -1).gather(
                -1, torch.tensor(call.output_ids)[:, None]
            )
            gap = (log_probs[:, 0] - torch.tensor(call.log_probs)).abs().max()
            log_prob_gap = max(log_prob_gap, float(gap))
            calls, tokens = calls + 1, tokens + len(call.output_ids)
    counts = {"trajectories": len(trajectories), "calls": calls, "tokens": tokens}
    return {**counts, "largest_log_prob_gap": log_prob_gap}, differences


@torch.inference_mode()
def after(plain: Any, prompt: Sequence[int], output: Sequence[int]) -> torch.Tensor:
    """Logits that each output token was drawn from, by one plain pass over the call alone."""
    ids = torch.tensor([(*prompt, *output)])
    return plain(ids, use_cache=False, logits_to_keep=len(output) + 1).logits[0, :-1].float()


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both rollouts, judged."""
    whole = recipe()
    engine: Any = load_engine(args.model, device="cpu", system_prompt=whole.model.system_prompt)
    plain = AutoModelForCausalLM.from_pretrained(resolve_model(args.model), dtype=torch.float32)
    retriever = open_retriever(build_index(args.data, folder))
    asked = questions(args.data, args.questions)
    found: dict[str, Any] = {}
    for name, sampling, samples in (("greedy", GREEDY, 1), ("sampled", Sampling(), args.samples)):
        trajectories = rollout(
            asked,
            engine,
            retriever,
            samples=samples,
            method=whole.method,
            sampling=sampling,
            seed=SEED,
        )
        counts, differences = judged(trajectories, plain.eval(), sampling)
        found[name] = {
            **counts,
            "ties": [d for d in differences if d[3] <= TIE],
            "differences": [d for d in differences if d[3] > TIE],
        }
    return {**facts(), **found}


def main() -> None:
    """Measure and print."""
    args = options().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder))
    for name in ("greedy", "sampled"):
        rows = [(k, len(v) if isinstance(v, list) else v) for k, v in figures[name].items()]
        table(name.capitalize(), rows)
    finish(figures, args.json)


if __name__ == "__main__":
    launch(main)
