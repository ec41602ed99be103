"""The parts that sentence-transformers' trainer calls while it trains a re-ranker.

They measure, show progress and mark checkpoints; `reranker` says what is trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments
from transformers import TrainerCallback

from exsearch.retrievers.encoder import passage_text
from exsearch.training.reranker import AT, Candidates, RerankerConfig, dev_figures, mark_whole


class Journal(TrainerCallback):
    """Moves a bar on, and marks checkpoints that are whole.

    Args:
        bar: The bar of the steps.
    """

    def __init__(self, bar: Any):
        self._bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Show what an earlier call has done."""
        self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Count a step, and measure the last one."""
        self._bar.update(1)
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Mark the checkpoint that has just been written."""
        mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _DevEvaluator(BaseEvaluator):
    """Measures the order that a model gives the passages that were found for dev questions."""

    def __init__(self, dev: Sequence[Candidates], batch_size: int):
        super().__init__()
        self.primary_metric = f"recall_at_{AT}"
        self._dev, self._batch_size = dev, batch_size

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        pairs = [(c.question.question, passage_text(p)) for c in self._dev for p in c.found]
        scores = iter(model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False))
        lists = [
            sorted(
                (dataclasses.replace(p, score=float(next(scores))) for p in each.found),
                key=lambda p: -(p.score or 0),
            )
            for each in self._dev
        ]
        return dev_figures(self._dev, lists)


def evaluator(dev: Sequence[Candidates], batch_size: int) -> BaseEvaluator:
    """What measures a model on dev questions.

    Args:
        dev: The questions with what was found for them.
        batch_size: The number of pairs that go through the model at once.
    """
    return _DevEvaluator(dev, batch_size)


def training_arguments(
    folder: Path, config: RerankerConfig, steps: int
) -> CrossEncoderTrainingArguments:
    """How the trainer trains.

    Args:
        folder: The folder of the checkpoints: of the newest, and of the best on dev.
        config: How the re-ranker is trained.
        steps: The number of optimizer steps in all.
    """
    every = max(1, -(-steps // config.evaluations))
    return CrossEncoderTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        metric_for_best_model=f"eval_recall_at_{AT}",
        greater_is_better=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
