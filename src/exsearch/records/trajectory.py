"""A trajectory is one way from a question to an answer: its steps, its calls and how it ended.

A weighted one also has its weight among the samples of its question. Both are made elsewhere.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from enum import StrEnum

from exsearch.records.question import Passage, Question, refuse_text


class StopReason(StrEnum):
    """Why a trajectory ended. The `*_error` ones are no samples at all and are dropped from K."""

    ANSWERED = "answered"
    MAX_STEPS = "max_steps"  # the answer frame was forced, and an answer followed
    MAX_TOKENS = "max_tokens"
    MALFORMED = "malformed"
    RETRIEVER_ERROR = "retriever_error"
    ENGINE_ERROR = "engine_error"

    @property
    def is_error(self) -> bool:
        """True where a search or an engine call failed, so that the trajectory is no sample."""
        return self in (StopReason.RETRIEVER_ERROR, StopReason.ENGINE_ERROR)

    @property
    def has_answer(self) -> bool:
        """True where the trajectory reached its answer."""
        return self in (StopReason.ANSWERED, StopReason.MAX_STEPS)


class CallKind(StrEnum):
    """What a model call was for. A forced answer is `answer`; a free one ends a `think`."""

    THINK = "think"
    SELECT = "select"
    RECORD = "record"
    ANSWER = "answer"


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """A fact that a record call wrote.

    Attributes:
        text: The fact, on one line.
        passage_ids: The ids of the passages that the record named as its source.
    """

    text: str
    passage_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        refuse_text("passage_ids", self.passage_ids)


Spans = tuple[tuple[int, int], ...]  # where parts of a text begin and end, in characters


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One search: what was asked, what was found, and what was kept of it.

    Attributes:
        query: The sub-query that was searched for.
        passages: The passages that were found, best first.
        selected_ids: The ids of the passages that the model selected, best first; None where the
            select action is off.
        evidence: The fact that was recorded; None where nothing in the passages helped.
        spans: Which parts of each passage's text the model was shown; None where it is not known.
    """

    query: str
    passages: tuple[Passage, ...]
    selected_ids: tuple[str, ...] | None = None
    evidence: Evidence | None = None
    spans: tuple[Spans, ...] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        refuse_text("selected_ids", self.selected_ids)

    @property
    def shown(self) -> tuple[Passage, ...]:
        """The passages that a record sees: all that were found, or the selected ones in order."""
        if self.selected_ids is None:
            return self.passages
        by_id = {p.id: p for p in self.passages}
        return tuple(by_id[id_] for id_ in self.selected_ids)


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One model call: exactly the token ids that the engine saw and those it sampled.

    Both lists of log-probs have one value an output token, natural logarithm, and are empty for
    calls that were not sampled (warm-up). All four lists are empty where the engine gives no ids,
    so that nothing can be learned from the call.

    Attributes:
        kind: What the call was for.
        prompt_ids: The token ids of the prompt, a forced frame included.
        output_ids: The token ids that were sampled, the end token included where it was reached.
        log_probs: log p of each output token under the sampling weights, at temperature 1 and
            without truncation (`method.md`, E-step).
        proposal_log_probs: log q of each output token under the distribution that it was drawn
            from (`method.md`, E-step).
    """

    kind: CallKind
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    proposal_log_probs: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Trajectory:
    """One way from a question to an answer: z and what followed it (`method.md`, The model).

    Attributes:
        question: The question that was asked.
        steps: The searches, in their order.
        calls: The model calls, in their order.
        answer: The answer that was given; empty where none was reached.
        stop_reason: Why the trajectory ended.
        iteration: The number of the iteration that sampled it, from 1; 0 outside of training.
        sample: The trajectory's number among the samples of its question, from 0.
        answer_start: The index in the last call's `output_ids` at which the sampled answer begins:
            0 where the answer frame was forced, None without ids or without an answer.
        malformed: What was wrong with a malformed generation; None where none was.
        retries: The number of malformed generations that were sampled anew; 0 in an E-step.
        error: The message of a failed search or engine call; None where none failed.
        seconds: Seconds from the start of the rollout to the end of this trajectory.
        method: The name of the method that made it (`methods.METHODS`).
        truncated_sampling: True where the tokens were drawn from a distribution that leaves some
            out (`top_p` below 1, or greedy): the importance weight is then approximate.
        turn_scores: a_t, log p of the gold answer after the first t searches, in nats, for t from 0
            on (`agent.turns`); empty where it was not scored.

    Example:
        A question, one search that found one passage, and the answer. Id 2 ends a reply; ids 40 and
        41 spell the frame `Answer:`, so the answer begins at index 2 of the last call.

        >>> passage = Passage("p1", "Ada Fenn", "She was born in Quillmoor.", score=2.25)
        >>> evidence = Evidence("Ada Fenn was born in Quillmoor.", passage_ids=("p1",))
        >>> search = (-0.5, -0.25, -0.125)  # log p of each token of "Search: Ada Fenn birthplace"
        >>> record = (-1.5, -0.5)  # of "[1] Ada Fenn was born in Quillmoor."
        >>> answer = (-0.5, 0.0, -0.75, 0.0)  # of "Answer: Quillmoor"
        >>> trajectory = Trajectory(
        ...     question=Question("q7", "Where was Ada Fenn born?", answers=("Quillmoor",)),
        ...     steps=(Step("Ada Fenn birthplace", (passage,), evidence=evidence),),
        ...     calls=(
        ...         Call(CallKind.THINK, (1, 20, 21), (30, 31, 2), search, search),
        ...         Call(CallKind.RECORD, (1, 22), (32, 2), record, record),
        ...         Call(CallKind.THINK, (1, 20, 32), (40, 41, 50, 2), answer, answer),
        ...     ),
        ...     answer="Quillmoor",
        ...     stop_reason=StopReason.ANSWERED,
        ...     iteration=1,
        ...     answer_start=2,
        ...     seconds=3.5,
        ... )
        >>> trajectory.id, trajectory.latent_log_prob, trajectory.has_exact_weight
        ('q7#0', -3.375, True)
    """

    question: Question
    steps: tuple[Step, ...]
    calls: tuple[Call, ...]
    answer: str
    stop_reason: StopReason
    iteration: int = 0
    sample: int = 0
    answer_start: int | None = None
    malformed: str | None = None
    retries: int = 0
    error: str | None = None
    seconds: float = 0.0
    method: str = "searcher"
    truncated_sampling: bool = False
    turn_scores: tuple[float, ...] = ()

    @property
    def turn_gains(self) -> tuple[float, ...]:
        """Δ_t = a_t - a_(t-1) of each search, in nats (`method.md`, "Around the method")."""
        return tuple(b - a for a, b in itertools.pairwise(self.turn_scores))

    @property
    def id(self) -> str:
        """Question id and sample number, unique within one iteration."""
        return f"{self.question.id}#{self.sample}"

    @property
    def trainable(self) -> bool:
        """True where every call carries the ids that were seen and written, and none failed."""
        return (
            bool(self.calls)
            and not self.stop_reason.is_error
            and all(call.prompt_ids and call.output_ids for call in self.calls)
        )

    @property
    def has_exact_weight(self) -> bool:
        """True where log p(z|x) and log q(z|x) give its importance weight exactly.

        That takes both for every token of z, and no retry or truncation on the way (`method.md`,
        E-step); a proposal that is the model's own needs no ratio, truncated or not.
        """
        if self.retries or not all(
            len(c.log_probs) == len(c.proposal_log_probs) == len(c.output_ids) for c in self.calls
        ):
            return False
        return self.drawn_from_model or not self.truncated_sampling

    @property
    def drawn_from_model(self) -> bool:
        """True where log p and log q of z are the same: no importance ratio is due."""
        return all(c.log_probs[:n] == c.proposal_log_probs[:n] for c, n in self.latent_calls)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The evidence pool, in the order in which it was recorded."""
        return tuple(step.evidence for step in self.steps if step.evidence is not None)

    @property
    def passages(self) -> tuple[Passage, ...]:
        """Every passage that was found, each once, in the order of first appearance."""
        seen: dict[str, Passage] = {}
        for step in self.steps:
            for passage in step.passages:
                seen.setdefault(passage.id, passage)
        return tuple(seen.values())

    @property
    def prompt_tokens(self) -> int:
        """Tokens the engine was asked to read, over all calls."""
        return sum(len(call.prompt_ids) for call in self.calls)

    @property
    def output_tokens(self) -> int:
        """Tokens the engine wrote, over all calls."""
        return sum(len(call.output_ids) for call in self.calls)

    @property
    def latent_calls(self) -> tuple[tuple[Call, int], ...]:
        """Each call with how many of its output tokens belong to z; the rest is the answer."""
        last = len(self.calls) - 1
        return tuple(
            (
                c,
                self.answer_start
                if i == last and self.answer_start is not None
                else len(c.output_ids),
            )
            for i, c in enumerate(self.calls)
        )

    @property
    def latent_log_prob(self) -> float:
        """Log p(z|x) under the sampling weights, in nats; 0 where it was not sampled.

        z is all thoughts, selections and records, and the decision to stop (`method.md`, The
        model).
        """
        return math.fsum(lp for call, n in self.latent_calls for lp in call.log_probs[:n])

    @property
    def latent_log_ratio(self) -> float:
        """Log p(z|x) / q(z|x), in nats; 0 for calls that do not record both."""
        return math.fsum(
            p - q
            for call, n in self.latent_calls
            for p, q in zip(call.log_probs[:n], call.proposal_log_probs[:n], strict=False)
        )

    @property
    def latent_proposal_log_prob(self) -> float:
        """Log q(z|x) under the distribution that z was drawn from; 0 where it was not sampled."""
        return math.fsum(lp for call, n in self.latent_calls for lp in call.proposal_log_probs[:n])


@dataclasses.dataclass(frozen=True, slots=True)
class WeightedTrajectory:
    """A trajectory with the likelihood of the gold answer after it and its importance weight.

    `answer_log_probs` and `answer_ids` have an item for each accepted answer that was scored. Both
    are empty where the trajectory never reached the answer: a_k is then -inf.

    Attributes:
        trajectory: The trajectory z_k.
        weight: The importance weight w_k (`method.md`, E-step).
        answer_log_probs: a_kj = log p(y_j|x,z_k) of each accepted answer y_j in nats, a sum over
            its tokens, end token included (`method.md`, E-step); a mean over them where
            `e_step.length_normalized` is set.
        answer_ids: The token ids of each y_j that were scored and are trained on.
    """

    trajectory: Trajectory
    weight: float
    answer_log_probs: tuple[float, ...] = ()
    answer_ids: tuple[tuple[int, ...], ...] = ()

    @property
    def answer_log_prob(self) -> float:
        """a_k = logsumexp_j a_kj (`method.md`, E-step); -inf without an answer."""
        return log_sum_exp(self.answer_log_probs)

    @property
    def answer_shares(self) -> tuple[float, ...]:
        """r_kj = exp(a_kj - a_k): how the accepted answers share the loss (`method.md`, M-step).

        All are 0 where every a_kj is -inf: there is nothing to share.
        """
        total = self.answer_log_prob
        if total == -math.inf:
            return (0.0,) * len(self.answer_log_probs)
        return tuple(math.exp(a - total) for a in self.answer_log_probs)


def log_sum_exp(values: Sequence[float]) -> float:
    """Log Σ exp(v), without overflow; -inf for an empty sum."""
    peak = max(values, default=-math.inf)
    if peak == -math.inf:
        return -math.inf
    return peak + math.log(math.fsum(math.exp(v - peak) for v in values))
