"""A re-ranker's training is a job in a folder, carried out to its end or on from where it stopped.

It opens what is named and writes down what determines the result; `training.reranker` trains.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exsearch.config import to_plain
from exsearch.data.questions import load_questions
from exsearch.errors import DataError
from exsearch.jobs.inputs import question_file
from exsearch.jobs.provenance import ENVIRONMENT_FILE, below, refuse_others, settle
from exsearch.progress import Bars
from exsearch.records import Question
from exsearch.retrievers import open_retriever
from exsearch.retrievers.guarded import TIMEOUT, guarded
from exsearch.retrievers.model_files import find_model, hash_model
from exsearch.runs import is_complete, locked, sha256_file, write_atomic
from exsearch.training.reranker import (
    Candidates,
    RerankerConfig,
    find_candidates,
    train_on,
)

_SETTINGS = "settings.json"  # what determines the training
_SUMMARY = "summary.json"  # its figures on dev
MODEL = "model"  # the folder of the trained model


def train_reranker(
    train: Sequence[str],
    dev: str,
    index: str,
    folder: Path,
    config: RerankerConfig,
    *,
    limit: int | None = None,
    timeout: float = TIMEOUT,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Train a re-ranker for a place, or go on with it.

    Args:
        train: Question files to learn from, whose questions name their support.
        dev: A question file by which the best model is chosen.
        index: An index folder, or the address of a search server, with the passages of both.
        folder: The folder of the training; the model is written to `model` in it.
        config: How it is trained.
        limit: The number of questions of each file, from the first on; None takes all.
        timeout: Seconds until a search counts as failed.
        bars: Opens the progress bars; None shows them.

    Returns:
        The figures, as `training.reranker.train_on` gives them.

    Raises:
        RunError: the folder holds a training with other settings, or something else.
        DataError: questions that can't be learned from, or that are in train and dev.
        ExSearchError: whatever else stands in the way.
    """
    bars = bars or Bars()
    files = [question_file(name) for name in [*train, dev]]
    *parts, dev_part = (load_questions(file, limit) for file in files)
    questions = [question for part in parts for question in part]
    _refuse_shared(questions, dev_part, dev)
    retriever = guarded(open_retriever(index), timeout)
    settings = {
        "train": [f"sha256:{sha256_file(file)}" for file in files[:-1]],
        "dev": f"sha256:{sha256_file(files[-1])}",
        "limit": limit,
        "index": retriever.identity(),
        "config": {**to_plain(config), "model": hash_model(find_model(config.model))},
    }
    refuse_others(folder / _SETTINGS, settings, below(folder))
    with locked(folder):
        begun = (folder / "checkpoints").exists() or (folder / MODEL).exists()
        settle(folder / _SETTINGS, settings, folder / ENVIRONMENT_FILE, begun=begun)
        if is_complete(folder / MODEL) and (folder / _SUMMARY).is_file():
            return json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        found: list[list[Candidates]] = []
        for asked, name in ((questions, ", ".join(train)), (dev_part, dev)):
            supported = [question for question in asked if question.supporting]
            found.append(find_candidates(supported, retriever, config.first, bars))
            if not found[-1]:
                raise DataError(
                    f"no question has supporting passages that are in {index}", file=name
                )
        learned, measured = found
        figures = {
            "questions": len(learned),
            "left_out": len(questions) - len(learned),
            "dev_questions": len(measured),
            **train_on(learned, measured, folder, config, bars),
        }
        write_atomic(folder / _SUMMARY, json.dumps(figures, indent=1))
        return figures


def _refuse_shared(train: Sequence[Question], dev: Sequence[Question], file: str) -> None:
    """Make sure that no question is learned from and measured by."""
    known = {question.question for question in train}
    shared = [question.id for question in dev if question.question in known]
    if shared:
        count = f"{len(shared)} such" if len(shared) > 1 else "the only one"
        said = f'question "{shared[0]}" is also one to learn from ({count}); dev must be others'
        raise DataError(said, file=file)
