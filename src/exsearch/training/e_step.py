"""The E-step weighs sampled trajectories by the likelihood of the gold answer after each.

`weigh` is the step itself; `sample_and_weigh` runs it over fixed chunks of questions, each
committed whole, so that a killed run goes on with the same chunks. It does not update weights of a
model.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.agent.episode import answer_ids
from exsearch.agent.events import OnEvent
from exsearch.agent.rollout import count_failed, rollout
from exsearch.agent.turns import with_turn_scores
from exsearch.config import check_least, check_positive, check_share
from exsearch.engines.base import Engine, Sampling, TooLongError
from exsearch.errors import ConfigError, TrainingError
from exsearch.evaluation.metrics import exact_match, f1
from exsearch.halves import by_halves
from exsearch.methods.base import Method
from exsearch.records import Question, Trajectory, WeightedTrajectory
from exsearch.retrievers.base import Retriever
from exsearch.runs import in_chunks
from exsearch.training.weights import Reward, Weighting, importance_weights
from exsearch.trajectories import by_question, to_lines

_REWARDS = {"em": exact_match, "f1": f1}
_SCORED_TOGETHER = 32  # trajectories: few enough that the cache still holds the first of them


@dataclasses.dataclass(frozen=True)
class EStepConfig:
    """How trajectories are sampled and weighed.

    Attributes:
        questions: The number of questions in an iteration; 0 takes all.
        samples: K, the number of trajectories a question.
        temperature: The temperature of sampling. With any other than 1, weights are exact only with
            `proposal_correction`.
        top_p: The mass of the likeliest tokens that are drawn from; below 1 the weights are
            approximate even when corrected.
        weighting: How a question's samples share its weight: `posterior`, `likelihood`, `uniform`,
            `best` or `correct` (`method.md`, E-step); or `group_advantage`, for comparison: the
            M-step then follows a clipped policy gradient, and no gold answer is a target.
        reward: What `group_advantage` rewards: `em` or `f1` of the sampled answer; a sample without
            an answer has 0.
        weight_temperature: τ, by which the a_k are divided before they become weights.
        length_normalized: Takes a_k as a mean over the answer's tokens, not as a sum. This is not
            the method.
        proposal_correction: Multiplies w_k by p(z|x)/q(z|x), as the trajectory itself records them
            (`method.md`, E-step). For one that was drawn from the model, this factor is 1.
        chunk: The number of questions that are sampled together and committed as one.
        max_error_share: The largest share of a chunk's samples that may fail by a search or a call;
            above it the run stops. The last chunk, if it is smaller, is judged together with all
            before it.
        samples_of: A finished run that began as this one does; the samples of its first E-step are
            weighed anew, in place of drawing the same again. Empty draws them.
    """

    questions: int = 0
    samples: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    weighting: Weighting = "posterior"
    reward: Reward = "em"
    weight_temperature: float = 1.0
    length_normalized: bool = False
    proposal_correction: bool = True
    chunk: int = 32
    max_error_share: float = 0.1
    samples_of: str = ""

    def __post_init__(self) -> None:
        check_least(self, questions=0, samples=1, temperature=0, chunk=1)
        check_share(self, "top_p", "max_error_share")
        check_positive(self, "top_p", "weight_temperature")
        if self.temperature == 0 and self.samples > 1:
            raise ConfigError(
                f"{self.samples} samples at temperature 0 are {self.samples} times the same, which "
                "can't be weighed against each other: take a temperature above 0, or 1 sample"
            )

    @property
    def posterior(self) -> bool:
        """True where w_k is the posterior weight of the method, and no other figure."""
        return (
            self.weighting == "posterior"
            and self.weight_temperature == 1
            and not self.length_normalized
            and self.temperature > 0
        )

    @property
    def sampling(self) -> Sampling:
        """The proposal q: the distribution that tokens are drawn from."""
        return Sampling(self.temperature, self.top_p)


def weigh(
    trajectories: Sequence[Trajectory], engine: Engine, config: EStepConfig | None = None
) -> list[WeightedTrajectory]:
    """Score the gold answers after each trajectory and turn the scores into weights.

    Failed samples (`*_error`) are dropped; the others of a question make up its K. What a
    trajectory was drawn from is read from its own log p and log q, never from `config`
    (`method.md`, E-step).

    Args:
        trajectories: Trajectories in any order; a question's samples are found by its id.
        engine: The engine, with the weights that sampled the trajectories.
        config: How scores become weights; by default as `EStepConfig` has it.

    Returns:
        The trajectories that did not fail, in their order, with their weights.

    Raises:
        ValueError: a question without answers, or a trajectory without token ids.
    """
    config = config or EStepConfig()
    kept = [t for t in trajectories if not t.stop_reason.is_error]
    return weigh_anew(_score_answers(kept, engine, config), config)


def weigh_anew(
    scored: Sequence[WeightedTrajectory], config: EStepConfig
) -> list[WeightedTrajectory]:
    """Scored trajectories with other weights, by what was sampled and scored before.

    Args:
        scored: Trajectories with their scores, all samples of a question among them.
        config: How scores become weights.
    """
    weights_of: dict[str, Iterator[float]] = {}
    for group in by_question(scored):
        trajectories = [item.trajectory for item in group]
        weights = importance_weights(
            [item.answer_log_prob for item in group],
            weighting=config.weighting,
            temperature=config.weight_temperature,
            log_ratios=[t.latent_log_ratio for t in trajectories]
            if config.proposal_correction
            else None,
            correct=[exact_match(t.answer, t.question.answers) == 1 for t in trajectories],
            rewards=[_REWARDS[config.reward](t.answer, t.question.answers) for t in trajectories],
        )
        weights_of[group[0].trajectory.question.id] = iter(weights)
    return [
        dataclasses.replace(item, weight=next(weights_of[item.trajectory.question.id]))
        for item in scored
    ]


def _score_answers(
    trajectories: Sequence[Trajectory], engine: Engine, config: EStepConfig
) -> list[WeightedTrajectory]:
    """Trajectories with a_kj of each accepted answer after them, and weight 0."""
    pairs: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []  # whose, prompt, answer
    for i, t in enumerate(trajectories):
        if not t.question.distinct_answers:
            raise ValueError(f"question {t.question.id!r} has no answers to weigh by")
        if not t.trainable:
            raise ValueError(
                f"trajectory {t.id!r} carries no token ids, so it can't be weighed: its engine "
                "gives none; sample with --engine transformers"
            )
        if t.answer_start is None:
            continue
        last = t.calls[-1]
        prompt = (*last.prompt_ids, *last.output_ids[: t.answer_start])
        for answer in t.question.distinct_answers:
            pairs.append((i, prompt, answer_ids(answer, engine.tokenizer)))
    scores: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in trajectories]
    found = by_halves(
        lambda some: engine.log_prob([p for _, p, _ in some], [a for _, _, a in some]),
        pairs,
        TooLongError,
    )
    for (i, _, answer), log_probs in zip(pairs, found, strict=True):
        if isinstance(log_probs, TooLongError):  # an answer without room is no alternative
            continue
        total = sum(log_probs)
        scores[i].append((total / len(answer) if config.length_normalized else total, answer))
    return [
        WeightedTrajectory(t, 0.0, tuple(a for a, _ in s), tuple(ids for _, ids in s))
        for t, s in zip(trajectories, scores, strict=True)
    ]


def sample_and_weigh(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    file: Path,
    config: EStepConfig,
    method: Method,
    *,
    seed: int,
    iteration: int,
    on_event: OnEvent | None = None,
) -> list[dict[str, Any]]:
    """Run the E-step over all questions, chunk by chunk, into a file of JSON lines.

    Chunks already committed are not sampled again (`runs.in_chunks`). A question without answers
    gives plain trajectories, without weights, and so does an engine without token ids or scores;
    training has none of those. Times are in the chunks' facts alone, so that the file is the same
    bytes however often the work was stopped.

    Args:
        questions: The questions; a killed run gives the same ones again.
        engine: The engine that samples and scores.
        retriever: The retriever that answers the sub-queries.
        file: The file that trajectories are appended to.
        config: How trajectories are sampled and weighed.
        method: How questions are answered.
        seed: Decides all sampling.
        iteration: The number of the iteration, from 1; 0 outside of training. It is part of the
            randomness.
        on_event: A function that is called with each event of the episodes.

    Returns:
        For each chunk: `samples`, `failed` ones, `sampling_seconds`, and `scoring_seconds`, of
        which `turn_seconds` are for the likelihood after each search.

    Raises:
        TrainingError: more than `config.max_error_share` of a chunk's samples failed.
    """

    def work(chunk: Sequence[Question]) -> tuple[Iterator[str], dict[str, Any]]:
        start = time.perf_counter()
        scorer = _Scorer(engine, config)

        trajectories = rollout(
            chunk,
            engine,
            retriever,
            samples=config.samples,
            method=method,
            sampling=config.sampling,
            seed=seed,
            iteration=iteration,
            on_finished=scorer.take,
            on_event=on_event,
        )
        alone = len(chunk) == config.chunk
        failed = count_failed(
            trajectories, config.max_error_share, file, TrainingError, alone=alone
        )
        scored = scorer.finish()
        weighted = weigh_anew([scored[t.id] for t in trajectories if t.id in scored], config)
        plain = [t for t in trajectories if not scorer.weighable(t)]
        facts = {
            "samples": len(trajectories),
            "failed": failed,
            "sampling_seconds": round(time.perf_counter() - start - scorer.seconds, 3),
            "scoring_seconds": round(scorer.seconds, 3),
            "turn_seconds": round(scorer.turn_seconds, 3),
        }
        plain = [dataclasses.replace(t, seconds=0.0) for t in plain]
        return to_lines([*weighted, *plain]), facts

    return in_chunks(questions, config.chunk, file, work)


class _Scorer:
    """Scores trajectories soon after they end, while the engine's cache still holds their ends."""

    def __init__(self, engine: Engine, config: EStepConfig):
        self._engine, self._config = engine, config
        self._waiting: list[Trajectory] = []
        self._scored: dict[str, WeightedTrajectory] = {}
        self.seconds = self.turn_seconds = 0.0

    def weighable(self, trajectory: Trajectory) -> bool:
        """True where there is an answer to score, and token ids to score it after."""
        if not (self._engine.scores and self._engine.tokenizer.model_ids):
            return False
        # A method may answer without asking the model.
        called = bool(trajectory.calls) or trajectory.stop_reason.is_error
        return called and bool(trajectory.question.distinct_answers)

    def take(self, ended: Sequence[Trajectory]) -> None:
        """Take in trajectories that have just ended."""
        self._waiting += [t for t in ended if self.weighable(t) and not t.stop_reason.is_error]
        if len(self._waiting) >= _SCORED_TOGETHER:
            self.finish()

    def finish(self) -> dict[str, WeightedTrajectory]:
        """All trajectories that were taken in, by id, scored and with weight 0."""
        start = time.perf_counter()
        waiting = with_turn_scores(self._waiting, self._engine)
        self.turn_seconds += time.perf_counter() - start
        for item in _score_answers(waiting, self._engine, self._config):
            plain = dataclasses.replace(item.trajectory, seconds=0.0)
            self._scored[plain.id] = dataclasses.replace(item, trajectory=plain)
        self._waiting = []
        self.seconds += time.perf_counter() - start
        return self._scored
