"""An ending tells in words why a trajectory stopped, and what failed on the way to it.

It says nothing of the answer itself.
"""

from __future__ import annotations

from exsearch.records import StopReason, Trajectory

_STOPPED = {
    StopReason.MAX_STEPS: "it made as many searches as it may, and had to answer then",
    StopReason.MAX_TOKENS: "the model wrote as much as it may, and reached no answer",
    StopReason.MALFORMED: "the model wrote what can't be read",
    StopReason.RETRIEVER_ERROR: "a search failed",
    StopReason.ENGINE_ERROR: "the model failed",
}


def stopped(trajectory: Trajectory) -> str:
    """Why a trajectory stopped, in words; empty for an ordinary answer."""
    words = _STOPPED.get(trajectory.stop_reason, "")
    detail = trajectory.error or trajectory.malformed
    return f"{words} ({detail})" if words and detail else words


def degraded(trajectory: Trajectory) -> tuple[str, ...]:
    """What failed on the way of a trajectory that went on all the same, a sentence each."""
    told: list[str] = []
    if trajectory.retries:
        told.append("a reply that could not be read was written anew")
    for number, step in enumerate(trajectory.steps, start=1):
        if not step.passages:
            told.append(f"search {number} found nothing")
    return tuple(told)
