"""The confidence of an answer is how far it rests on what was found, from 0 to 1.

It is worked out from the trajectory alone: no model is asked once more. Whether an answer below a
threshold is withheld is its reader's choice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from exsearch.agent.citations import Claim, Match, claims
from exsearch.agent.shown import analyser
from exsearch.records import CallKind, Trajectory

_WEAK = 0.5  # what a passage says with other words counts half
UNSUPPORTED = "no passage that was found says it"
_REASONS = {
    "support": "what was recorded for it is in no passage that was found",
    "coverage": "what was found says little of what was asked",
    "sureness": "the model is unsure of it",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Confidence:
    """How far an answer rests on what was found; each part is from 0 to 1.

    Attributes:
        answer: 1 where a passage has the answer's words, a half where it only rests on what others
            say (yes or no), 0 where no passage says it or there is no answer.
        support: The mean of that and of the same for the recorded facts; where the method records
            and nothing was recorded, they count 0.
        coverage: The share of the question's words, stopwords left out, that stand in the answer or
            in the passages cited.
        sureness: The geometric mean of the probabilities of the answer's tokens; 1 where the engine
            gives none.
    """

    answer: float
    support: float
    coverage: float
    sureness: float

    @property
    def value(self) -> float:
        """The confidence: the product of support, coverage and sureness, 0 without the answer's."""
        return self.support * self.coverage * self.sureness if self.answer else 0.0

    def withheld(self, threshold: float) -> str:
        """Why an answer is withheld at this threshold; empty where it is not.

        Args:
            threshold: The least confidence of an answer that is told; 0 tells all.
        """
        if self.value >= threshold:
            return ""
        if not self.answer:
            return UNSUPPORTED
        return _REASONS[min(_REASONS, key=lambda name: getattr(self, name))]


def confidence(trajectory: Trajectory, said: Sequence[Claim] | None = None) -> Confidence:
    """How far the answer of a trajectory rests on what was found.

    Args:
        trajectory: A trajectory that ended; without an answer all is 0.
        said: Its `claims`, where they are known already.
    """
    if not trajectory.answer:
        return Confidence(0.0, 0.0, 0.0, 0.0)
    *facts, answer = claims(trajectory) if said is None else said
    strengths = [_strength(fact) for fact in facts]
    parts = [_strength(answer)]
    if strengths:
        parts.append(sum(strengths) / len(strengths))
    elif any(call.kind is CallKind.RECORD for call in trajectory.calls):
        parts.append(0.0)
    return Confidence(
        parts[0],
        sum(parts) / len(parts),
        _coverage(trajectory, (*facts, answer)),
        _sureness(trajectory),
    )


def _strength(claim: Claim) -> float:
    if not claim.citations:
        return 0.0
    return _WEAK if claim.citations[0].match is Match.OVERLAP else 1.0


def _coverage(trajectory: Trajectory, said: Iterable[Claim]) -> float:
    words = analyser().words
    asked = set(words(trajectory.question.question))
    if not asked:
        return 1.0  # a question of stopwords alone can't be missed
    cited = {citation.passage_id for claim in said for citation in claim.citations}
    texts = [f"{p.title} {p.text}" for p in trajectory.passages if p.id in cited]
    return len(asked & set(words(" ".join([trajectory.answer, *texts])))) / len(asked)


def _sureness(trajectory: Trajectory) -> float:
    if not trajectory.calls or trajectory.answer_start is None:
        return 1.0
    log_probs = trajectory.calls[-1].log_probs[trajectory.answer_start :]
    return math.exp(math.fsum(log_probs) / len(log_probs)) if log_probs else 1.0
