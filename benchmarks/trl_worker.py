"""The rival of the M-step: TRL's SFTTrainer on sequences that are tokens already.

It runs in an environment of its own (`make bench-trl-env`), knows nothing of this package, and is
started by m_step.py. Its input is JSON lines of `{"input_ids", "completion_mask"}`; it prints one
JSON object last.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.machine import peak_bytes


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--model", required=True)
    made.add_argument("--sequences", type=Path, required=True)
    made.add_argument("--first", type=Path, help="sequences of a step before, for warming up")
    made.add_argument("--steps", type=int, default=1)
    made.add_argument("--batch", type=int, default=8, help="sequences, or packs, of a micro-batch")
    made.add_argument("--pack", type=int, default=0, help="tokens of a pack; 0 groups by length")
    made.add_argument("--learning-rate", type=float, default=2e-5)
    made.add_argument("--gradient", type=Path, help="write the gradient of all sequences, no step")
    return made


class Clock(TrainerCallback):
    """The time between the begin and the end of training: nothing of its preparation."""

    def __init__(self):
        self.begin = self.seconds = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start."""
        self.begin = time.perf_counter()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.begin


def trainer(
    args: argparse.Namespace, model: Any, tokenizer: Any, file: Path, steps: int, folder: str
) -> SFTTrainer:
    """The trainer of one pass over a file of sequences in so many optimizer steps."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    config = SFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,  # it would cost a third more
        completion_only_loss=True,
        max_length=args.pack or None,
        packing=bool(args.pack),
        train_sampling_strategy="random" if args.pack else "group_by_length",
        per_device_train_batch_size=args.batch,
        num_train_epochs=1,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_grad_norm=1.0,
        seed=0,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    made = SFTTrainer(
        model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    micro_batches = math.ceil(len(made.train_dataset) / args.batch)
    made.args.gradient_accumulation_steps = math.ceil(micro_batches / steps)
    made.accelerator.gradient_accumulation_steps = made.args.gradient_accumulation_steps
    return made


def write_gradient(made: SFTTrainer, file: Path) -> None:
    """The gradient of one step over all sequences, as its loss and collator make it."""
    rows = [made.train_dataset[i] for i in range(len(made.train_dataset))]
    names = ("input_ids", "labels", "seq_lengths")  # the last of packs only
    batch = made.data_collator([{k: r[k] for k in names if k in r} for r in rows])
    count = (batch["labels"] != -100).sum()
    model: Any = made.model
    model.train()
    made.compute_loss(model, batch, num_items_in_batch=count).backward()
    save_file({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, file)


def main() -> None:
    """Train, or write a gradient."""
    args = options().parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    with tempfile.TemporaryDirectory() as folder:
        if args.gradient:
            write_gradient(
                trainer(args, model, tokenizer, args.sequences, 1, folder), args.gradient
            )
            print(json.dumps({}))
            return
        trainer(args, model, tokenizer, args.first, 1, folder).train()
        made, clock = trainer(args, model, tokenizer, args.sequences, args.steps, folder), Clock()
        made.add_callback(clock)
        made.train()
        figures = {
            "seconds": clock.seconds,
            "steps": made.state.global_step,
            "peak_bytes": peak_bytes(),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
