"""A training sequence is token ids with a loss weight for each: what the M-step learns from.

It decides which tokens carry loss (sampled ones and the gold answer, nothing else) and lets
sequences share what they have in common. It holds no tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from exsearch.models.prefixes import Span, shared
from exsearch.records import WeightedTrajectory


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingSequence:
    """Ids and, for each, the coefficient of -log p(id | ids before it) in the loss (mostly 0)."""

    input_ids: tuple[int, ...]
    loss_weights: tuple[float, ...]
    sources: tuple[str, ...]  # ids of the trajectories it came from

    @property
    def targets(self) -> int:
        """The number of tokens that carry loss."""
        return sum(w != 0 for w in self.loss_weights)


def training_sequences(item: WeightedTrajectory) -> list[TrainingSequence]:
    """The sequences of one weighted trajectory.

    Each call's output carries the weight w_k. In the last call the sampled answer is dropped and
    each accepted answer y_j takes its place, with w_k · r_kj on the answer and on the tokens of z
    before it: as Σ_j r_kj = 1, those sum to w_k (`method.md`, M-step).

    Calls whose prompt goes on from the one before (`transcript` context) share one sequence.
    """
    if not item.weight or not item.answer_ids:
        return []
    trajectory = item.trajectory
    source = (trajectory.id,)
    done: list[TrainingSequence] = []
    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    for call, latent in trajectory.latent_calls:
        if ids and call.prompt_ids[: len(ids)] == ids:
            gap = len(call.prompt_ids) - len(ids)
            weights = (*weights, *[0.0] * gap)
        else:
            if ids:
                done.append(TrainingSequence(ids, weights, source))
            weights = (0.0,) * len(call.prompt_ids)
        ids = (*call.prompt_ids, *call.output_ids[:latent])
        weights = (*weights, *[item.weight] * latent)
    for share, answer in zip(item.answer_shares, item.answer_ids, strict=True):
        if share:
            scaled = tuple(w * share for w in weights)
            done.append(
                TrainingSequence(
                    (*ids, *answer), (*scaled, *[item.weight * share] * len(answer)), source
                )
            )
    return [s for s in done if s.targets]


def merged(sequences: Iterable[TrainingSequence]) -> list[TrainingSequence]:
    """Equal sequences as one with their weights added: the same loss for less work."""
    by_ids: dict[tuple[int, ...], TrainingSequence] = {}
    for s in sequences:
        other = by_ids.get(s.input_ids)
        if other is not None:
            s = TrainingSequence(
                s.input_ids,
                tuple(a + b for a, b in zip(other.loss_weights, s.loss_weights, strict=True)),
                (*other.sources, *s.sources),
            )
        by_ids[s.input_ids] = s
    return list(by_ids.values())


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Sequences as one pass of the model: each token after a given prefix stands in it once.

    A target is a token that carries loss: its weight is the sum of those of all sequences that go
    through it, and `predictors` has the token of the pass after which it comes.
    """

    ids: np.ndarray  # (N,)
    positions: np.ndarray  # (N,) each token's place in its own sequence
    spans: tuple[Span, ...]
    targets: np.ndarray  # (M,) ids
    predictors: np.ndarray  # (M,) tokens of the pass
    weights: np.ndarray  # (M,) float64
    sources: tuple[str, ...]  # ids of the trajectories


def micro_batches(sequences: Sequence[TrainingSequence], budget: int) -> Iterator[MicroBatch]:
    """Sequences in passes of at most `budget` tokens each, where one sequence has no more."""
    for members, spans in shared([s.input_ids for s in sequences], budget):
        chosen = [sequences[i] for i in members]
        size = spans[-1].start + spans[-1].new
        ids, positions = np.zeros(size, np.int64), np.zeros(size, np.int64)
        weights, predictors = np.zeros(size), np.zeros(size, np.int64)
        for s, span in zip(chosen, spans, strict=True):
            ids[span.all_places] = s.input_ids
            positions[span.all_places] = np.arange(len(s.input_ids))
            weights[span.all_places] += s.loss_weights
            predictors[span.all_places[1:]] = span.all_places[:-1]
        at = np.flatnonzero(weights)
        sources = tuple(dict.fromkeys(name for s in chosen for name in s.sources))
        yield MicroBatch(
            ids,
            positions,
            tuple(s for s in spans if s.new),
            ids[at],
            predictors[at],
            weights[at],
            sources,
        )


def without_negligible(
    sequences: Sequence[TrainingSequence], threshold: float
) -> tuple[list[TrainingSequence], float]:
    """Sequences whose largest loss weight reaches `threshold`, and the loss weight left out."""
    kept = [s for s in sequences if max(s.loss_weights) >= threshold]
    mass = sum(sum(s.loss_weights) for s in sequences)
    return kept, mass - sum(sum(s.loss_weights) for s in kept)


def mean_loss_tokens(items: Iterable[WeightedTrajectory]) -> float:
    """Mean number of tokens that carry loss in a trajectory that has any weight."""
    counts = [
        sum(latent for _, latent in item.trajectory.latent_calls)
        + sum(r * len(a) for r, a in zip(item.answer_shares, item.answer_ids, strict=True))
        for item in items
        if item.weight and item.answer_ids
    ]
    return sum(counts) / len(counts) if counts else 0.0
