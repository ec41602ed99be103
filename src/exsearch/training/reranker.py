"""A re-ranker is trained to tell the passages that answer a question from others that were found.

The passages that a question names as its support are the right ones; the wrong ones come from the
search that the re-ranker will re-order. sentence-transformers trains; here stands what on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.config import check_least, check_positive
from exsearch.errors import DataError, MissingExtraError
from exsearch.evaluation.metrics import answer_recall, recall_by_id
from exsearch.progress import Bars
from exsearch.records import Passage, Question
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.encoder import passage_text
from exsearch.retrievers.model_files import DEFAULT_MODEL, load_model
from exsearch.runs import new_folder, remove_folder, write_atomic

AT = 5  # passages of which the recall on dev is taken, by which the best model is chosen
_CHUNK = 64  # questions that are searched together
_WHOLE = "whole"  # a file in a checkpoint that was written to its end


@dataclasses.dataclass(frozen=True)
class RerankerConfig:
    """How a re-ranker is trained.

    Attributes:
        model: The model that it starts from: a folder, a Hugging Face id, or `all-MiniLM-L6-v2`.
        first: The number of passages a question that are searched: wrong ones are drawn from them,
            and on dev they are re-ordered.
        negatives: The most wrong passages a question.
        epochs: The number of times that each pair is learned from.
        batch_size: The number of pairs in one optimizer step.
        learning_rate: The highest rate, reached after a tenth of the steps; from there it falls to
            0 in a line.
        max_tokens: The most tokens of a question with a passage; the model reads no more later.
        evaluations: The number of times that dev is measured, the last time at the end.
        seed: Decides the weights of the new head, the wrong passages and the order of pairs.
    """

    model: str = DEFAULT_MODEL
    first: int = 20
    negatives: int = 3
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 5e-5
    max_tokens: int = 160
    evaluations: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, first=2, negatives=1, epochs=1, batch_size=1, max_tokens=8, evaluations=1)
        check_positive(self, "learning_rate")


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What was found for a question, and what supports it.

    Attributes:
        question: The question.
        found: The first passages, as they were found.
        support: The passages that support it, found or not.
    """

    question: Question
    found: list[Passage]
    support: list[Passage]

    def wrong(self) -> list[Passage]:
        """The passages that were found, support nothing, and hold no accepted answer."""
        known = {passage.id for passage in self.support}.union(self.question.supporting)
        return [
            passage
            for passage in self.found
            if passage.id not in known and not answer_recall([passage], self.question.answers)
        ]


def find_candidates(
    questions: Sequence[Question], retriever: Retriever, first: int, bars: Bars
) -> list[Candidates]:
    """Search for questions; those without a support in the place are left out.

    Raises:
        RetrieverError: a search failed.
    """
    candidates: list[Candidates] = []
    with bars.open("search", len(questions), "question") as bar:
        for start in range(0, len(questions), _CHUNK):
            some = questions[start : start + _CHUNK]
            lists = retriever.search([question.question for question in some], first)
            for question, found in zip(some, lists, strict=True):
                support = [p for p in retriever.fetch(question.supporting) if p is not None]
                if support:
                    candidates.append(Candidates(question, found, support))
            bar.update(len(some))
    return candidates


def pairs(candidates: Sequence[Candidates], config: RerankerConfig) -> dict[str, list[Any]]:
    """Questions with passages: every right one, labelled 1, and wrong ones, labelled 0.

    Raises:
        DataError: no question has both.
    """
    rows: list[tuple[str, str, float]] = []
    for each in candidates:
        wrong = each.wrong()
        draw = random.Random(f"{config.seed}:{each.question.id}")
        drawn = draw.sample(wrong, min(config.negatives, len(wrong)))
        for passages, label in ((each.support, 1.0), (drawn, 0.0)):
            rows += [(each.question.question, passage_text(p), label) for p in passages]
    labels = {label for _, _, label in rows}
    if len(labels) < 2:
        raise DataError("nothing to learn from: no question has right and wrong passages")
    queries, passages, marks = zip(*rows, strict=True)
    return {"query": list(queries), "passage": list(passages), "label": list(marks)}


def dev_figures(candidates: Sequence[Candidates], lists: Sequence[Sequence[Passage]]) -> Any:
    """The mean recall of support among the first 5 passages, and the mean reciprocal rank.

    Args:
        candidates: The questions.
        lists: The passages for each of them, best first.
    """
    recalls: list[float] = []
    ranks: list[float] = []
    for each, passages in zip(candidates, lists, strict=True):
        wanted = each.question.supporting
        recalls.append(recall_by_id([passage.id for passage in passages], wanted, AT))
        hits = [rank for rank, p in enumerate(passages, start=1) if p.id in wanted]
        ranks.append(1 / hits[0] if hits else 0.0)
    count = len(candidates)
    return {f"recall_at_{AT}": sum(recalls) / count, "mrr": sum(ranks) / count}


def train_on(
    train: Sequence[Candidates],
    dev: Sequence[Candidates],
    folder: Path,
    config: RerankerConfig,
    bars: Bars,
) -> dict[str, Any]:
    """Train a cross-encoder, or go on with it, and write the best one on dev to `folder/model`.

    Args:
        train: The questions to learn from.
        dev: The questions by which the best model is chosen.
        folder: The folder of the training; its checkpoints are in it.
        config: How it is trained.
        bars: Opens the progress bars.

    Returns:
        Figures on dev: of the order as it was found, after each evaluation, and of the best.

    Raises:
        DataError: nothing to learn from.
        ModelError: the model to start from can't be loaded.
        MissingExtraError: what trains it is not installed.
    """
    try:
        from datasets import Dataset
        from sentence_transformers.cross_encoder import CrossEncoderTrainer
        from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
        from torch import tensor
        from transformers import PrinterCallback, set_seed
    except ImportError as error:
        raise MissingExtraError("training a re-ranker", "reranker", str(error)) from None
    from exsearch.training.reranker_steps import Journal, evaluator, training_arguments

    data = pairs(train, config)
    right = sum(data["label"])
    set_seed(config.seed)
    with _untold():
        model, _ = load_model(config.model, "CrossEncoder")
    model.max_seq_length = config.max_tokens
    steps = -(-len(data["label"]) // config.batch_size) * config.epochs
    with bars.open("train", steps, "step") as bar:
        trainer = CrossEncoderTrainer(
            model=model,
            args=training_arguments(folder / "checkpoints", config, steps),
            train_dataset=Dataset.from_dict(data),
            loss=BinaryCrossEntropyLoss(model, pos_weight=tensor(len(data["label"]) / right - 1)),
            evaluator=evaluator(dev, config.batch_size),
            callbacks=[Journal(bar)],
        )
        trainer.remove_callback(PrinterCallback)  # standard output is for the result
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder / "checkpoints"))
    log = [_plain(entry) for entry in trainer.state.log_history if "eval_mrr" in entry]
    best = max(log, key=lambda entry: entry[f"recall_at_{AT}"])
    _write_best(folder, best["step"])
    base = dev_figures(dev, [each.found for each in dev])
    return {"pairs": len(data["label"]), "as_found": base, "evaluations": log, "best": best}


@contextlib.contextmanager
def _untold() -> Iterator[None]:
    """Without warnings that a bi-encoder has no head to score pairs: it gets a new one."""
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    before = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("step", f"eval_recall_at_{AT}", "eval_mrr")
    return {name.removeprefix("eval_"): entry[name] for name in names}


def _write_best(folder: Path, step: int) -> None:
    best, _ = load_model(str(folder / "checkpoints" / f"checkpoint-{step}"), "CrossEncoder")
    with new_folder(folder / "model") as new:
        best.save_pretrained(str(new), create_model_card=False)


def mark_whole(checkpoint: Path) -> None:
    """Say that a checkpoint was written to its end."""
    write_atomic(checkpoint / _WHOLE, "")


def _last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that is whole; what was torn by a kill is removed."""
    whole: list[tuple[int, str]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / _WHOLE).is_file():
            whole.append((int(checkpoint.name.rpartition("-")[2]), str(checkpoint)))
        else:
            remove_folder(checkpoint)
    return max(whole)[1] if whole else None
