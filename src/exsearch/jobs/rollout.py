"""A rollout's job samples trajectories of a file of questions into a file, weighed.

Sampling and weighing are the E-step's. It trains nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from exsearch.agent.events import showing
from exsearch.config import parse_config, to_plain
from exsearch.data.questions import tell_unanswered
from exsearch.engines import open_engine
from exsearch.errors import DataError
from exsearch.evaluation.metrics import exact_match
from exsearch.jobs.inputs import Asking, open_inputs, with_today_s_method
from exsearch.jobs.provenance import refuse_others, settle
from exsearch.progress import Bars
from exsearch.records import WeightedTrajectory
from exsearch.runs import committed, companion, locked, refuse_other_file
from exsearch.training.e_step import EStepConfig, sample_and_weigh
from exsearch.trajectories import read_traces, trajectory_of

logger = logging.getLogger(__name__)


def rollout(
    asking: Asking, file: Path, config: EStepConfig, *, bars: Bars | None = None
) -> dict[str, Any]:
    """Sample trajectories of a file of questions into JSON lines, weighed where answers are known.

    An engine that gives no token ids, or no scores, leaves nothing to weigh: all its trajectories
    are plain.

    Args:
        asking: The questions, the model, the method and the index.
        file: The file of JSON lines to write; settings, environment and commits stand beside it.
        config: How trajectories are sampled and weighed.
        bars: Opens the progress bar; None shows one.

    Returns:
        The figures of `rollout_figures`, and how many samples `failed`.

    Raises:
        RunError: the file was begun with other settings, or not by this command.
        ExSearchError: whatever else stands in the way.
    """
    inputs = open_inputs(asking)
    settings = {**inputs.identity, "sampling": to_plain(config)}
    refuse_other_file(file)
    settings_file, environment_file = (
        companion(file, f"{name}.json") for name in ("settings", "environment")
    )
    refuse_others(settings_file, settings, [settings_file, environment_file])
    with locked(file.parent, file.name):
        done = committed(file)
        settle(settings_file, settings, environment_file, begun=bool(done), today=_today)
        so = "their trajectories get no weight, and nothing can be learned from them"
        tell_unanswered(inputs.questions, asking.questions, so)
        engine = open_engine(asking.model)
        if not (engine.scores and engine.tokenizer.model_ids):
            logger.warning(
                "engine %s gives no token ids, so its trajectories are written without weights and "
                "can't be trained on; for that, sample with --engine transformers",
                asking.model.engine,
            )
        total = len(inputs.questions) * config.samples
        with (bars or Bars()).open("rollout", total, "trajectory", done) as bar:
            chunks = sample_and_weigh(
                inputs.questions,
                engine,
                inputs.retriever,
                file,
                config,
                asking.method,
                seed=asking.seed,
                iteration=0,
                on_event=showing(bar),
            )
    return {**rollout_figures(file), "failed": sum(c["failed"] for c in chunks)}


def _today(before: Any) -> Any:
    sampling = to_plain(parse_config(EStepConfig, before["sampling"]))
    return {**with_today_s_method(before), "sampling": sampling}


def rollout_figures(file: Path) -> dict[str, Any]:
    """Figures of a file of trajectories, weighed or plain.

    Returns:
        Counts: `questions`, `trajectories`, `weighed` ones, questions `with_signal` (whose weights
        are not all 0) and `stop_reasons`. Shares from 0 to 1: `em`, the mean EM of the weighed
        ones, and `weighted_em`, the mean over questions of EM weighted by w_k; each is None where
        there is nothing to average.

    Raises:
        DataError: the file can't be read, or a line is no trajectory.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    counts: Counter[str] = Counter()
    for trace in read_traces(file):
        trajectory = trajectory_of(trace)
        counts[trajectory.stop_reason.value] += 1
        pairs = groups.setdefault(trajectory.question.id, [])
        if isinstance(trace, WeightedTrajectory):
            try:
                em = exact_match(trajectory.answer, trajectory.question.answers)
            except ValueError as error:
                named = f'question "{trajectory.question.id}"'
                raise DataError(f"{named} was weighed: {error}", file=file) from None
            pairs.append((trace.weight, em))
    samples = [pair for pairs in groups.values() for pair in pairs]
    signal = [pairs for pairs in groups.values() if any(weight for weight, _ in pairs)]
    weighted = [sum(w * em for w, em in pairs) / sum(w for w, _ in pairs) for pairs in signal]
    return {
        "questions": len(groups),
        "trajectories": sum(counts.values()),
        "weighed": len(samples),
        "em": sum(em for _, em in samples) / len(samples) if samples else None,
        "weighted_em": sum(weighted) / len(weighted) if weighted else None,
        "with_signal": len(signal),
        "stop_reasons": dict(counts),
    }
