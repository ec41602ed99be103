"""An evaluation is one greedy trajectory a question, scored: rows to read, figures to report.

Every question counts; an empty prediction is a wrong one. It does not train and does not judge by
model.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.agent.episode import AgentConfig
from exsearch.agent.format import WorkedExamples
from exsearch.agent.rollout import rollout
from exsearch.engines.base import GREEDY, Engine, Sampling
from exsearch.errors import DataError, EngineError
from exsearch.evaluation.metrics import (
    Rules,
    accuracy,
    exact_match,
    f1,
    recall_by_answer,
    recall_by_id,
)
from exsearch.evaluation.significance import bootstrap_interval
from exsearch.records import Question, Trajectory, from_json, to_json
from exsearch.retrievers.base import Retriever
from exsearch.runs import in_chunks, write_atomic

CHUNK = 100
TRAJECTORIES = "trajectories.jsonl"
PREDICTIONS = "predictions.jsonl"
SUMMARY = "summary.json"


def evaluate(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    folder: Path,
    *,
    agent: AgentConfig,
    rules: Rules = "kilt",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    examples: WorkedExamples | None = None,
    retry_malformed: bool = True,
    chunk: int = CHUNK,
    max_error_share: float = 1.0,
    on_finished: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Answer all questions and score the answers; goes on where an earlier call was killed.

    Writes into `folder`: `trajectories.jsonl` as it goes, then `predictions.jsonl` (one line a
    question) and `summary.json`, which is also returned (`summarise`). `chunk` questions are
    answered side by side and committed as one; what was begun with one number goes on with it.

    Raises:
        DataError: no question, or one without an answer to score by.
        EngineError: more than `max_error_share` of a chunk failed; nothing of the chunk is kept.
    """
    if not questions:
        raise DataError("no question to evaluate")
    for question in questions:
        if not question.distinct_answers:
            raise DataError(f'question "{question.id}" has no answer to score by: leave it out')
    folder.mkdir(parents=True, exist_ok=True)
    report = on_finished or (lambda count: None)

    def work(asked: Sequence[Question]) -> tuple[Iterator[str], dict[str, Any]]:
        trajectories = rollout(
            asked,
            engine,
            retriever,
            config=agent,
            sampling=sampling,
            seed=seed,
            examples=examples,
            retry_malformed=retry_malformed,
            on_finished=lambda ended: report(len(ended)),
        )
        failed = [t for t in trajectories if t.stop_reason.is_error]
        if len(failed) > max_error_share * len(trajectories):
            raise EngineError(
                f"{len(failed)} of {len(trajectories)} questions failed, the last with: "
                f"{failed[-1].error}; mend the cause and run the same command again"
            )
        seconds = max(t.seconds for t in trajectories)
        return (to_json(t) for t in trajectories), {"samples": len(asked), "seconds": seconds}

    file = folder / TRAJECTORIES
    chunks = in_chunks(questions, chunk, file, work)
    with file.open("rb") as lines:
        rows = [row(from_json(Trajectory, line), agent.passages, rules) for line in lines]
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    write_atomic(folder / PREDICTIONS, text)
    summary = summarise(rows)
    summary["recall_passages_a_search"] = agent.passages
    summary["rules"] = rules
    summary["seconds"] = round(sum(c["seconds"] for c in chunks), 3)
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=1))
    return summary


def row(trajectory: Trajectory, k: int, rules: Rules = "kilt") -> dict[str, Any]:
    """What one trajectory is worth, as plain values.

    Recall is over the union of what its searches found, k passages each: `recall` by supporting ids
    (None where the question names none), `answer_recall` by an accepted answer in a passage.
    """
    question = trajectory.question
    found = trajectory.passages
    return {
        "id": question.id,
        "question": question.question,
        "answers": list(question.answers),
        "prediction": trajectory.answer,
        "em": exact_match(trajectory.answer, question.answers),
        "f1": f1(trajectory.answer, question.answers, rules),
        "acc": accuracy(trajectory.answer, question.answers),
        "recall": recall_by_id([p.id for p in found], question.supporting, len(found))
        if question.supporting
        else None,
        "answer_recall": recall_by_answer(found, question.answers, len(found)),
        "steps": len(trajectory.steps),
        "queries": [s.query for s in trajectory.steps],
        "evidence": [dataclasses.asdict(e) for e in trajectory.evidence],
        "stop_reason": trajectory.stop_reason.value,
        "malformed": trajectory.malformed,
        "retries": trajectory.retries,
        "error": trajectory.error,
        "prompt_tokens": trajectory.prompt_tokens,
        "output_tokens": trajectory.output_tokens,
        "seconds": trajectory.seconds,
    }


def summarise(rows: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, Any]:
    """Means (fractions from 0 to 1) with 95 % bootstrap intervals over questions, and counts."""
    supported = [r["recall"] for r in rows if r["recall"] is not None]
    figures = {name: [float(r[name]) for r in rows] for name in ("em", "f1", "acc")}
    figures["recall_at_k"] = supported
    figures["answer_recall_at_k"] = [float(r["answer_recall"]) for r in rows]
    intervals = {n: list(bootstrap_interval(v, seed=seed)) for n, v in figures.items() if v}
    malformed = Counter(r["malformed"] for r in rows if r["malformed"])
    return {
        "n": len(rows),
        **{name: _mean(values) for name, values in figures.items()},
        "recall_n": len(supported),
        "ci95": intervals,
        "steps": _mean([float(r["steps"]) for r in rows]),
        "stop_reasons": dict(Counter(r["stop_reason"] for r in rows)),
        "malformed": dict(malformed),
        "malformed_share": sum(malformed.values()) / len(rows) if rows else 0.0,
        "prompt_tokens": sum(r["prompt_tokens"] for r in rows),
        "output_tokens": sum(r["output_tokens"] for r in rows),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
