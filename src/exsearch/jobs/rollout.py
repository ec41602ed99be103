"""A rollout's job samples trajectories of a file of questions into a file, weighed."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from exsearch.agent.events import counting_ends
from exsearch.config import to_plain
from exsearch.engines import open_engine
from exsearch.evaluation.metrics import exact_match
from exsearch.jobs.inputs import Asking, open_inputs
from exsearch.jobs.provenance import settle
from exsearch.progress import Bars
from exsearch.records import WeightedTrajectory
from exsearch.runs import committed, locked
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
        asking: Who is asked what.
        file: Where to write.
        config: How trajectories are sampled and weighed.
        bars: Shows how far it is.

    Returns:
        Counts, and means over the weighed ones.

    Raises:
        RunError: the file was begun with other settings.
        ExSearchError: whatever else stands in the way.
    """
    inputs = open_inputs(asking)
    settings = {**inputs.identity, "sampling": to_plain(config)}
    with locked(file.parent, file.name):
        done = committed(file)
        settings_file = file.with_suffix(".settings.json")
        environment_file = file.with_suffix(".environment.json")
        settle(settings_file, settings, environment_file, begun=done is not None)
        engine = open_engine(asking.model)
        if not (engine.scores and engine.tokenizer.model_ids):
            logger.warning(
                "engine %s gives no token ids, so its trajectories are written without weights and "
                "can't be trained on; for that, sample with --engine transformers",
                asking.model.engine,
            )
        total = len(inputs.questions) * config.samples
        with (bars or Bars()).open("rollout", total, "trajectory", done or 0) as bar:
            chunks = sample_and_weigh(
                inputs.questions,
                engine,
                inputs.retriever,
                file,
                config,
                asking.method,
                seed=asking.seed,
                iteration=0,
                on_event=counting_ends(bar.update),
            )
    return {**rollout_figures(file), "failed": sum(c["failed"] for c in chunks)}


def rollout_figures(file: Path) -> dict[str, Any]:
    """Counts over a file of trajectories, with mean EM and weighted EM where answers are known."""
    groups: dict[str, list[tuple[float, float]]] = {}
    counts: Counter[str] = Counter()
    for trace in read_traces(file):
        trajectory = trajectory_of(trace)
        counts[trajectory.stop_reason.value] += 1
        pairs = groups.setdefault(trajectory.question.id, [])
        if isinstance(trace, WeightedTrajectory):
            em = exact_match(trajectory.answer, trajectory.question.answers)
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
