"""A part holds the trajectories of one file and one method, without the token ids that they carry.

A run has a part for each round's samples and one for each stage's dev answers; an evaluation has
one. What warm-up learned from is nobody's behaviour, and is no part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from exsearch.errors import DataError, RunError
from exsearch.evaluation.evaluate import SUMMARY_FILE
from exsearch.records import Trajectory, WeightedTrajectory
from exsearch.training.stages import METRICS_FILE, START, WARM_UP
from exsearch.trajectories import TRAJECTORIES_FILE, Trace, read_traces, trajectory_of


class Kind(StrEnum):
    """Where trajectories are from."""

    SAMPLED = "sampled"  # a round's E-step, by the model before it, at its own temperature
    DEV = "dev"  # greedy, by the model of a stage
    EVALUATION = "evaluation"  # a folder of `evaluate`, or a file of `rollout`


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """What the calls of one action took in a trajectory.

    Attributes:
        calls: The number of calls.
        read: Tokens of their prompts.
        written: Tokens that the model wrote.
    """

    calls: int
    read: int
    written: int


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A trajectory, and the sums of what was taken out of it.

    Attributes:
        trajectory: The trajectory; its calls have their kinds and no tokens.
        tokens: What the calls of each action took, by its name.
        surprise: The mean of -log p over the tokens of z, in nats; None where they have none.
        weight: Its weight among its question's samples; None where it was not weighed.
        log_joint: a_k + log p(z_k|x)/q(z_k|x), in nats; None where it was not weighed.
    """

    trajectory: Trajectory
    tokens: Mapping[str, Tokens]
    surprise: float | None
    weight: float | None = None
    log_joint: float | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """The trajectories of one file and one method.

    Attributes:
        place: The folder or file that was named.
        stage: The stage of a run; empty elsewhere.
        kind: Where the trajectories are from.
        method: The name of the method that made them.
        file: The file that they stand in.
        samples: The trajectories, in their order.
    """

    place: Path
    stage: str
    kind: Kind
    method: str
    file: Path
    samples: tuple[Sample, ...]


def is_run(place: Path) -> bool:
    """Whether a place is the folder of a training run."""
    return (place / METRICS_FILE).is_file()


def read_parts(place: Path) -> list[Part]:
    """The parts of a place, in the order in which they were made.

    Args:
        place: The folder of a run or of an evaluation, or a file of trajectories.

    Raises:
        RunError: it is none of them.
        DataError: it has no trajectory, or a file of them is damaged.
    """
    parts = parts_so_far(place)
    if not parts:
        raise DataError("no trajectory in it", file=place)
    return parts


def parts_so_far(place: Path) -> list[Part]:
    """As `read_parts`; none of a run that has just begun."""
    parts: list[Part] = []
    for stage, kind, file in _files(place):
        methods: dict[str, list[Sample]] = {}
        for trace in read_traces(file):
            own = methods.setdefault(trajectory_of(trace).method, [])
            own.append(sample_of(trace))
        parts += [Part(place, stage, kind, m, file, tuple(own)) for m, own in methods.items()]
    return parts


def _files(place: Path) -> Iterator[tuple[str, Kind, Path]]:
    if place.is_file():
        yield "", Kind.EVALUATION, place
    elif is_run(place):
        names = sorted(folder.name for folder in place.iterdir() if folder.is_dir())
        first = [name for name in (WARM_UP, START) if name in names]
        for name in [*first, *(n for n in names if n.startswith("iteration-"))]:
            sampled, dev = place / name / TRAJECTORIES_FILE, place / name / "dev"
            if name not in first and sampled.is_file():
                yield name, Kind.SAMPLED, sampled
            if (dev / TRAJECTORIES_FILE).is_file():
                yield name, Kind.DEV, dev / TRAJECTORIES_FILE
    elif (place / TRAJECTORIES_FILE).is_file():
        yield "", Kind.EVALUATION, place / TRAJECTORIES_FILE
    elif (place / SUMMARY_FILE).is_file():
        raise RunError(f"{place}: has figures and no {TRAJECTORIES_FILE}")
    else:
        missing = "no such folder" if not place.exists() else "neither a run nor an evaluation"
        raise RunError(f"{place}: {missing}; name what `train` or `evaluate` wrote")


def sample_of(trace: Trace) -> Sample:
    """A trace without its token ids."""
    trajectory = trajectory_of(trace)
    tokens: dict[str, Tokens] = {}
    for call in trajectory.calls:
        own = tokens.get(call.kind, Tokens(0, 0, 0))
        read, written = own.read + len(call.prompt_ids), own.written + len(call.output_ids)
        tokens[call.kind.value] = Tokens(own.calls + 1, read, written)
    latent = [lp for call, n in trajectory.latent_calls for lp in call.log_probs[:n]]
    surprise = -sum(latent) / len(latent) if latent else None
    calls = tuple(
        dataclasses.replace(c, prompt_ids=(), output_ids=(), log_probs=(), proposal_log_probs=())
        for c in trajectory.calls
    )
    bare = dataclasses.replace(trajectory, calls=calls)
    if not isinstance(trace, WeightedTrajectory):
        return Sample(bare, tokens, surprise)
    joint = trace.answer_log_prob + trajectory.latent_log_ratio
    weight = trace.weight if math.isfinite(trace.weight) else None
    return Sample(bare, tokens, surprise, weight, joint)
