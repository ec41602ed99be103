"""The M-step fine-tunes a model on weighted trajectories, by the loss of `method.md`.

    L(θ) = - Σ_x Σ_k w_k · [ log p(z_k | x; θ) + Σ_j r_kj log p(y_j | x, z_k; θ) ]

One optimizer step takes whole questions and divides by one constant, never by a micro-batch's own
token count, which would re-weigh trajectories by length. It neither samples nor saves.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from exsearch.engines.base import random_key
from exsearch.errors import TrainingError
from exsearch.models.attention import PassOnly, packed_attention, packed_logits
from exsearch.models.trial import check_packable
from exsearch.records import WeightedTrajectory
from exsearch.training.batches import (
    MicroBatch,
    TrainingSequence,
    mean_loss_tokens,
    merged,
    micro_batches,
    policy_sequences,
    training_sequences,
    without_negligible,
)
from exsearch.training.checkpoint import seeded
from exsearch.training.recipe import MStepConfig

_SUMS = ("sequences", "sequence_tokens", "tokens", "loss_tokens")


@dataclasses.dataclass(frozen=True)
class Usable:
    """The questions that an M-step learns from, and how many it does not.

    Attributes:
        questions: For each question the numbers of its trajectories.
        no_signal: The number of questions whose samples all have weight 0.
        hopeless: The number of questions whose best a_k is below `min_log_likelihood`.
    """

    questions: list[list[int]]
    no_signal: int
    hopeless: int


def usable_questions(items: Sequence[WeightedTrajectory], min_log_likelihood: float) -> Usable:
    """Leave out questions without signal and hopeless ones (`method.md`, M-step).

    Args:
        items: The weighted trajectories, in any order; each is read once.
        min_log_likelihood: The least that the best a_k of a question must be, in nats.
    """
    groups: dict[str, list[int]] = {}
    weight: dict[str, float] = {}
    best: dict[str, float] = {}
    for i, item in enumerate(items):
        name = item.trajectory.question.id
        groups.setdefault(name, []).append(i)
        weight[name] = weight.get(name, 0.0) + abs(item.weight)
        best[name] = max(best.get(name, -math.inf), item.answer_log_prob)
    signal = [name for name in groups if weight[name] > 0]
    hopeful = [name for name in signal if best[name] >= min_log_likelihood]
    return Usable(
        [groups[name] for name in hopeful],
        len(groups) - len(signal),
        len(signal) - len(hopeful),
    )


def new_optimizer(model: Any, config: MStepConfig | None = None) -> torch.optim.AdamW:
    """AdamW over the weights of a model that need a gradient.

    Args:
        model: A transformers causal language model, or one with a PEFT adapter.
        config: The rate and the weight decay; by default as `MStepConfig` has them.
    """
    config = config or MStepConfig()
    trained = [p for p in model.parameters() if p.requires_grad]
    # Fused: a step over 135 million weights takes a quarter of the time on a CPU.
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.95),
        fused=True,
    )


def batch_loss(model: Any, batch: MicroBatch, clip: float = 0.0) -> torch.Tensor:
    """- Σ weight · log p over all tokens that carry loss: a sum, not a mean; one pass of the model.

    Where the batch has the log p of sampling it is - Σ min(r A, clip(r, 1-ε, 1+ε) A), with the
    ratio r of p now to p then. It is called within `packed_attention`, and so is `backward` on its
    result (`method.md`, M-step and "Around the method").

    Args:
        model: A transformers causal language model.
        batch: The tokens and targets of the pass.
        clip: ε, for a batch with the log p of sampling.

    Raises:
        TrainingError: the loss is not finite; the message names the trajectories.
    """
    device = next(model.parameters()).device
    logits = packed_logits(
        model,
        torch.from_numpy(batch.ids).to(device),
        torch.from_numpy(batch.positions).to(device),
        PassOnly(batch.spans, device),
        torch.from_numpy(batch.predictors).to(device),
    )  # (M, V): the head sees only what predicts a target
    targets = torch.from_numpy(batch.targets).to(device)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")  # (M,)

    def placed(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(device, losses.dtype)

    if batch.sampled is None or batch.against is None:
        loss = (placed(batch.weights) * losses).sum()
    else:  # A > 0 and A < 0 apart: sequences that share a token may differ in sign
        ratio = torch.exp(-losses - placed(batch.sampled))
        gained = placed(batch.weights) * ratio.clamp(max=1 + clip)
        loss = -(gained + placed(batch.against) * ratio.clamp(min=1 - clip)).sum()
    if not torch.isfinite(loss):
        names = ", ".join(batch.sources)
        raise TrainingError(
            f"the loss is {loss.item()} on the trajectories {names}; lower the rate"
        )
    return loss


def steps_total(questions: int, config: MStepConfig) -> int:
    """The number of optimizer steps of an M-step over this many questions."""
    return config.epochs * math.ceil(questions / config.questions_per_step)


def learning_rate(step: int, total: int, config: MStepConfig) -> float:
    """The learning rate of an optimizer step: a linear rise, then a cosine to 0.

    Args:
        step: The number of the optimizer step, from 0.
        total: The number of all optimizer steps.
        config: The highest rate, and the share of the steps in which it rises.
    """
    rise = max(1, round(config.rise_share * total))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    share = (step - rise) / max(1, total - rise)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def m_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    weighted: Sequence[WeightedTrajectory],
    config: MStepConfig | None = None,
    *,
    seed: int | str = 0,
    first_step: int = 0,
    policy: bool = False,
    on_step: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Fine-tune `model` in place.

    Args:
        model: A transformers causal language model (or a PEFT one), float32 weights.
        optimizer: A new optimizer (`new_optimizer`), or as it was when an earlier call stopped.
        weighted: The E-step's trajectories, in any order; a `WeightedFile` stays on disk.
        config: Rates and limits; by default as `MStepConfig` has them.
        seed: Decides the order of questions, and dropout where the model has it.
        first_step: The number of optimizer steps already taken, in a resumed run.
        policy: True follows the clipped policy gradient of sampled tokens; weights are advantages.
        on_step: A function that is called after each optimizer step with its figures.

    Returns:
        Figures of the whole M-step, earlier steps included: questions, left out ones, optimizer
        steps, tokens, the share of all weight that is left out; and the seconds of this call.

    Raises:
        TrainingError: a loss or a gradient is not finite; the weights are then not to be used.
        ModelError: a model whose layers can't be packed (see `check_packable`).
    """
    config = config or MStepConfig()
    usable = usable_questions(weighted, -math.inf if policy else config.min_log_likelihood)
    learned = (weighted[i] for group in usable.questions for i in group)
    mean_tokens = mean_loss_tokens(learned, policy=policy)
    total = steps_total(len(usable.questions), config)
    device = next(model.parameters()).device
    accelerator = Accelerator(
        mixed_precision="bf16" if device.type == "cuda" else "no", cpu=device.type == "cpu"
    )
    if config.gradient_checkpointing:
        _enable_gradient_checkpointing(model)
    check_packable(model.eval())
    model.train()
    start = time.perf_counter()
    # `sequence_tokens` are counted before prefixes are shared; `tokens` go through the model.
    figures: dict[str, float] = dict.fromkeys(_SUMS, 0)
    weight = left_out = 0.0
    for step, questions in enumerate(_steps(usable.questions, config, seed)):
        samples = [[weighted[i] for i in group] for group in questions]
        if policy:
            made = (s for group in samples for item in group for s in policy_sequences(item))
            sequences, negligible = merged(made), 0.0
        else:
            sequences, negligible = _sequences(samples, config.min_weight)
        weight += sum(abs(item.weight) for group in samples for item in group)
        left_out += negligible
        batches = list(micro_batches(sequences, config.token_budget))
        tokens = sum(len(b.ids) for b in batches)
        figures["sequences"] += len(sequences)
        figures["sequence_tokens"] += sum(len(s.input_ids) for s in sequences)
        figures["tokens"] += tokens
        figures["loss_tokens"] += sum(s.targets for s in sequences)
        if step < first_step:  # counted, as it is a part of the whole
            continue
        norm = len(questions) * mean_tokens
        rate = learning_rate(step, total, config)
        # Seeded by the step alone: dropout is then the same in a resumed run.
        with seeded(random_key(seed, step), device), packed_attention(model):
            loss, gradient = _optimizer_step(
                model, optimizer, accelerator, batches, norm, rate, config
            )
        if on_step:
            on_step({
                "step": step + 1, "optimizer_steps": total, "loss": loss, "learning_rate": rate,
                "grad_norm": gradient, "tokens": tokens,
            })  # fmt: skip
    model.eval()
    return {
        "questions": len(usable.questions),
        "without_signal": usable.no_signal,
        "hopeless": usable.hopeless,
        "optimizer_steps": total,
        "mean_loss_tokens": mean_tokens,
        **figures,
        "left_out_share": left_out / weight if weight else 0.0,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _enable_gradient_checkpointing(model: Any) -> None:
    new_name = getattr(model, "activation_checkpointing_enable", None)  # transformers 5 renames it
    (new_name or model.gradient_checkpointing_enable)()


def _steps(
    questions: list[list[int]], config: MStepConfig, seed: int | str
) -> Iterator[list[list[int]]]:
    """The questions of each optimizer step, in a new order every epoch, by the seed alone."""
    for epoch in range(config.epochs):
        order = list(range(len(questions)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for start in range(0, len(order), config.questions_per_step):
            yield [questions[i] for i in order[start : start + config.questions_per_step]]


def _sequences(
    questions: Sequence[Sequence[WeightedTrajectory]], least: float
) -> tuple[list[TrainingSequence], float]:
    """What is learned from the samples of some questions, and the weight that is left out."""
    parts = [without_negligible(samples, least) for samples in questions]
    made = (s for kept, _ in parts for item in kept for s in training_sequences(item))
    return merged(made), sum(left_out for _, left_out in parts)


def _optimizer_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    batches: Sequence[MicroBatch],
    norm: float,
    rate: float,
    config: MStepConfig,
) -> tuple[float, float]:
    """Take one optimizer step; returns the loss and the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        with accelerator.autocast():
            loss = batch_loss(model, batch, config.clip) / norm
        accelerator.backward(loss)
        total += loss.item()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
    if not torch.isfinite(gradient):
        names = ", ".join(dict.fromkeys(n for batch in batches for n in batch.sources))
        raise TrainingError(
            f"the gradient is not finite on the trajectories {names}; lower the rate"
        )
    optimizer.step()
    # A fused optimizer leaves the versions alone, by which caches see that weights have changed.
    torch.autograd.graph.increment_version(trained)
    return total, float(gradient)
