"""An evaluation is one greedy trajectory a question, scored: rows to read, figures to report.

Every question counts; an empty prediction is a wrong one. It does not train and does not judge by
model.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.agent.events import OnEvent
from exsearch.agent.examples import WorkedExamples
from exsearch.agent.rollout import count_failed, rollout
from exsearch.agent.turns import can_score_turns, with_turn_scores
from exsearch.engines.base import GREEDY, Engine, Sampling
from exsearch.errors import DataError, EngineError
from exsearch.evaluation.audit import audit
from exsearch.evaluation.groups import chain, group_figures, group_of, guess_right
from exsearch.evaluation.metrics import Judged, Metric, Rules, all_metrics, single_recalls
from exsearch.evaluation.significance import mean_figures
from exsearch.methods.base import Method
from exsearch.records import Question, Trajectory
from exsearch.retrievers.base import Retriever
from exsearch.runs import in_chunks, make_folder, write_atomic
from exsearch.trajectories import TRAJECTORIES_FILE, read_trajectories, to_lines

CHUNK = 100
PREDICTIONS_FILE = "predictions.jsonl"
SUMMARY_FILE = "summary.json"


def evaluate(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    folder: Path,
    *,
    method: Method,
    rules: Rules = "kilt",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    examples: WorkedExamples | None = None,
    retry_malformed: bool = True,
    chunk: int = CHUNK,
    max_error_share: float = 1.0,
    audited: bool = False,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Answer all questions and score the answers; goes on where an earlier call was killed.

    It writes `trajectories.jsonl` as it goes, then `predictions.jsonl` (one line a question) and
    `summary.json` into the folder.

    Args:
        questions: The questions, each with an accepted answer.
        engine: The engine that writes the tokens.
        retriever: The retriever that answers the sub-queries.
        folder: The folder to write, which is made where it is missing.
        method: How questions are answered.
        rules: Whose rules the metrics follow where `kilt` and `hotpotqa` differ.
        sampling: The distribution that tokens are drawn from; greedy by default.
        seed: Decides all sampling.
        examples: Solved questions that are shown before each new chat; None shows none.
        retry_malformed: Sample a malformed generation once more.
        chunk: The number of questions that are answered side by side and committed as one; what was
            begun with one number goes on with it.
        max_error_share: The share of a chunk's questions that may fail, from 0 to 1; the last
            chunk, if it is smaller, is judged together with all before it.
        audited: Whether the figures say what the passages hold for these questions (`audit`).
        on_event: A function that is called with each event of the episodes.

    Returns:
        The figures of `summarise`, the `audit` where it was wanted, the `rules`, and the `seconds`
        of all chunks together.

    Raises:
        DataError: no question, or one without an answer to score by.
        EngineError: more than `max_error_share` of a chunk failed; nothing of the chunk is kept.
    """
    if not questions:
        raise DataError("no question to evaluate")
    for question in questions:
        if not question.distinct_answers:
            raise DataError(f'question "{question.id}" has no answer to score by: leave it out')
    make_folder(folder)
    file = folder / TRAJECTORIES_FILE

    def work(asked: Sequence[Question]) -> tuple[Iterator[str], dict[str, Any]]:
        scored: dict[str, Trajectory] = {}

        def score(ended: Sequence[Trajectory]) -> None:
            scored.update({t.id: t for t in with_turn_scores(ended, engine)})

        trajectories = rollout(
            asked,
            engine,
            retriever,
            method=method,
            sampling=sampling,
            seed=seed,
            examples=examples,
            retry_malformed=retry_malformed,
            on_finished=score if can_score_turns(engine) else None,
            on_event=on_event,
        )
        trajectories = [scored.get(t.id, t) for t in trajectories]
        alone = len(asked) == chunk
        failed = count_failed(
            trajectories, max_error_share, file, EngineError, alone=alone, noun="questions"
        )
        seconds = max(t.seconds for t in trajectories)
        facts = {"samples": len(asked), "failed": failed, "seconds": seconds}
        return to_lines(trajectories), facts

    chunks = in_chunks(questions, chunk, file, work)
    metrics = all_metrics()
    rows = [row(trajectory, metrics, rules) for trajectory in read_trajectories(file)]
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    write_atomic(folder / PREDICTIONS_FILE, text)
    summary = summarise(rows, metrics)
    if audited:
        summary["audit"] = audit(questions, retriever)
    summary["rules"] = rules
    summary["seconds"] = round(sum(c["seconds"] for c in chunks), 3)
    write_atomic(folder / SUMMARY_FILE, json.dumps(summary, indent=1))
    return summary


def row(trajectory: Trajectory, metrics: Sequence[Metric], rules: Rules = "kilt") -> dict[str, Any]:
    """One trajectory as plain values: its question and answer, each metric by name, and counts.

    A metric is None where it says nothing about the question: recall, where no support is named.

    Args:
        trajectory: The trajectory of a question with an accepted answer.
        metrics: The metrics to work out.
        rules: Whose rules the metrics follow where `kilt` and `hotpotqa` differ.
    """
    question = trajectory.question
    searches = [step.passages for step in trajectory.steps]
    judged = Judged(question, trajectory.answer, trajectory.passages, rules, searches)
    return {
        "id": question.id,
        "question": question.question,
        "answers": list(question.answers),
        "prediction": trajectory.answer,
        **{metric.name: metric.function(judged) for metric in metrics},
        "group": group_of(question).value,
        "guess": guess_right(question),
        "chain": chain(trajectory),
        "steps": len(trajectory.steps),
        "queries": [s.query for s in trajectory.steps],
        "recalls": single_recalls(judged),
        "passages_a_search": max((len(s.passages) for s in trajectory.steps), default=0),
        "turn_gains": list(trajectory.turn_gains),
        "evidence": [dataclasses.asdict(e) for e in trajectory.evidence],
        "stop_reason": trajectory.stop_reason.value,
        "malformed": trajectory.malformed,
        "retries": trajectory.retries,
        "error": trajectory.error,
        "prompt_tokens": trajectory.prompt_tokens,
        "output_tokens": trajectory.output_tokens,
        "seconds": trajectory.seconds,
    }


def summarise(
    rows: Sequence[dict[str, Any]], metrics: Sequence[Metric], *, seed: int = 0
) -> dict[str, Any]:
    """The figures of an evaluation, from its rows.

    Args:
        rows: What `row` gives for each trajectory.
        metrics: The metrics that the rows hold.
        seed: Decides the resampling of the intervals.

    Returns:
        The mean of each metric, from 0 to 1, by its name, with its 95 % interval in `ci95`
        (`mean_interval`); the same of each group in `groups` (`group_figures`); counts; and mean
        `steps`. A metric that says nothing about some questions has the number of the
        others as `<name>_n`.
    """
    figures = {metric.name: [row[metric.name] for row in rows] for metric in metrics}
    malformed = Counter(r["malformed"] for r in rows if r["malformed"])
    return {
        "n": len(rows),
        **mean_figures(figures, seed=seed),
        "groups": group_figures(rows, [*figures, "guess"], seed=seed),
        "steps": _mean([float(r["steps"]) for r in rows]),
        "passages_a_search": max(r["passages_a_search"] for r in rows) if rows else 0,
        "stop_reasons": dict(Counter(r["stop_reason"] for r in rows)),
        "malformed": dict(malformed),
        "malformed_share": sum(malformed.values()) / len(rows) if rows else 0.0,
        "retries": sum(r["retries"] for r in rows),
        "prompt_tokens": sum(r["prompt_tokens"] for r in rows),
        "output_tokens": sum(r["output_tokens"] for r in rows),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
