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
    """Token ids with the loss that each carries.

    Attributes:
        input_ids: The token ids, prompts included.
        loss_weights: For each id the factor of -log p(id | ids before it) in the loss; mostly 0.
        sources: The ids of the trajectories that the sequence came from.
        against: For each id its factor where it is to become less likely, 0 or less; empty where
            nothing is. `loss_weights` are then 0 or more.
        sampled: For each id its log p when it was sampled, for a ratio of policies; empty for the
            loss of the method.
    """

    input_ids: tuple[int, ...]
    loss_weights: tuple[float, ...]
    sources: tuple[str, ...]
    against: tuple[float, ...] = ()
    sampled: tuple[float, ...] = ()

    @property
    def targets(self) -> int:
        """The number of tokens that carry loss."""
        return sum(w != 0 for w in self.loss_weights) + sum(w != 0 for w in self.against)


def training_sequences(item: WeightedTrajectory) -> list[TrainingSequence]:
    """The sequences of one weighted trajectory.

    Each call's output carries the weight w_k. In the last call the sampled answer is dropped and
    each accepted answer y_j takes its place, with w_k · r_kj on the answer and on the tokens of z
    before it: as Σ_j r_kj = 1, those sum to w_k (`method.md`, M-step).

    Calls whose prompt goes on from the one before (`transcript` context) share one sequence. A
    trajectory that ends before its answer (`actions`) is learned without one.

    Args:
        item: The weighted trajectory.

    Returns:
        The sequences that carry loss; none for a trajectory without weight or answer.
    """
    if not _teaches(item):
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
    if not item.answer_ids:
        done.append(TrainingSequence(ids, weights, source))
    for share, answer in zip(item.answer_shares, item.answer_ids, strict=True):
        if share:
            scaled = tuple(w * share for w in weights)
            done.append(
                TrainingSequence(
                    (*ids, *answer), (*scaled, *[item.weight * share] * len(answer)), source
                )
            )
    return [s for s in done if s.targets]


def _teaches(item: WeightedTrajectory) -> bool:
    """Whether there is something to learn: a weight, and an answer unless it ends before that."""
    t = item.trajectory
    excerpt = t.answer_start is None and t.stop_reason.has_answer  # `actions` makes these
    return item.weight != 0 and bool(item.answer_ids or excerpt)


def policy_sequences(item: WeightedTrajectory) -> list[TrainingSequence]:
    """The sequences of one trajectory for a policy gradient; its weight is its advantage A_k.

    All sampled tokens carry it, those of the answer too, however the trajectory ended; the gold
    answer carries nothing (`method.md`, "Around the method").

    Args:
        item: The trajectory, with the log p of each token when it was sampled.

    Raises:
        ValueError: its calls have no such log p.
    """
    if not item.weight:
        return []
    done: list[TrainingSequence] = []
    for call in item.trajectory.calls:
        if len(call.log_probs) != len(call.output_ids):
            raise ValueError(f"trajectory {item.trajectory.id!r} has no log p of its tokens")
        before = (0.0,) * len(call.prompt_ids)
        up, down = max(item.weight, 0.0), min(item.weight, 0.0)
        count = len(call.output_ids)
        done.append(
            TrainingSequence(
                (*call.prompt_ids, *call.output_ids),
                (*before, *[up] * count),
                (item.trajectory.id,),
                (*before, *[down] * count),
                (*before, *call.log_probs),
            )
        )
    return done


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
                tuple(a + b for a, b in zip(other.against, s.against, strict=True)),
                s.sampled,
            )
        by_ids[s.input_ids] = s
    return list(by_ids.values())


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Sequences as one pass of the model: each token after a given prefix stands in it once.

    A target is a token that carries loss.

    Attributes:
        ids: The token ids of the pass, int64 (N,).
        positions: Each token's index in its own sequence, int64 (N,).
        spans: The sequences as spans of the pass; those without a new token are left out.
        targets: The ids of the targets, int64 (M,).
        predictors: For each target the token of the pass after which it comes, int64 (M,).
        weights: For each target the sum of the loss weights of all sequences that go through it,
            float64 (M,).
        sources: The ids of the trajectories.
        against: For each target the sum of `against`, float64 (M,); None for the method's loss.
        sampled: For each target its log p when it was sampled, float64 (M,); None likewise.
    """

    ids: np.ndarray
    positions: np.ndarray
    spans: tuple[Span, ...]
    targets: np.ndarray
    predictors: np.ndarray
    weights: np.ndarray
    sources: tuple[str, ...]
    against: np.ndarray | None = None
    sampled: np.ndarray | None = None


def micro_batches(sequences: Sequence[TrainingSequence], budget: int) -> Iterator[MicroBatch]:
    """Pack sequences into passes of the model.

    Args:
        sequences: Sequences without repeats (`merged`).
        budget: The most tokens in one pass; a sequence with more has a pass of its own.
    """
    for members, spans in shared([s.input_ids for s in sequences], budget):
        chosen = [sequences[i] for i in members]
        size = spans[-1].start + spans[-1].new
        ids, positions = np.zeros(size, np.int64), np.zeros(size, np.int64)
        weights, predictors = np.zeros(size), np.zeros(size, np.int64)
        against, sampled = np.zeros(size), np.zeros(size)
        for s, span in zip(chosen, spans, strict=True):
            ids[span.all_places] = s.input_ids
            positions[span.all_places] = np.arange(len(s.input_ids))
            weights[span.all_places] += s.loss_weights
            if s.sampled:
                against[span.all_places] += s.against
                # Where one sequence has a prompt's token another may have sampled it.
                own = np.asarray(s.sampled)
                sampled[span.all_places] = np.where(own, own, sampled[span.all_places])
            predictors[span.all_places[1:]] = span.all_places[:-1]
        at = np.flatnonzero((weights != 0) | (against != 0))
        policy = any(s.sampled for s in chosen)
        sources = tuple(dict.fromkeys(name for s in chosen for name in s.sources))
        yield MicroBatch(
            ids,
            positions,
            tuple(s for s in spans if s.new),
            ids[at],
            predictors[at],
            weights[at],
            sources,
            against[at] if policy else None,
            sampled[at] if policy else None,
        )


def without_negligible(
    samples: Sequence[WeightedTrajectory], least: float
) -> tuple[list[WeightedTrajectory], float]:
    """Leave out what hardly counts among the samples of one question.

    A trajectory goes by its w_k. Of one that stays, an accepted answer goes by its r_kj, and the
    others take over its share: z carries w_k in all, whatever the number of answers.

    Args:
        samples: The weighted trajectories of a question.
        least: The least that w_k must be, as a share of the largest of the question; and r_kj, as a
            share of the largest of the trajectory.

    Returns:
        The trajectories that are kept, and the sum of the w_k and w_k · r_kj that are left out.
    """
    largest = max((item.weight for item in samples), default=0.0)
    kept: list[WeightedTrajectory] = []
    left_out = 0.0
    for item in samples:
        if not item.weight or item.weight < least * largest:
            left_out += item.weight
            continue
        shares = item.answer_shares
        stays = [j for j, share in enumerate(shares) if share >= least * max(shares)]
        left_out += item.weight * sum(r for j, r in enumerate(shares) if j not in stays)
        scores, ids = item.answer_log_probs, item.answer_ids
        item = dataclasses.replace(
            item,
            answer_log_probs=tuple(scores[j] for j in stays),
            answer_ids=tuple(ids[j] for j in stays),
        )
        kept.append(item)
    return kept, left_out


def mean_loss_tokens(items: Iterable[WeightedTrajectory], *, policy: bool = False) -> float:
    """The mean number of tokens that carry loss in a trajectory with any weight; else 0.

    `method.md`, M-step: each optimizer step is divided by it.

    Args:
        items: The weighted trajectories.
        policy: True counts what a policy gradient learns from: all that was sampled.
    """
    if policy:
        sampled = [item.trajectory.output_tokens for item in items if item.weight]
        return sum(sampled) / len(sampled) if sampled else 0.0
    counts = [
        sum(latent for _, latent in item.trajectory.latent_calls)
        + sum(r * len(a) for r, a in zip(item.answer_shares, item.answer_ids, strict=True))
        for item in items
        if _teaches(item)
    ]
    return sum(counts) / len(counts) if counts else 0.0
