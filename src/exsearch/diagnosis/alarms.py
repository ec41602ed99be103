"""An alarm is a rule that says what looks wrong in a run's rounds, and what to try.

It reads the figures of `rounds`, and stops nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from exsearch.diagnosis.rates import difference


@dataclasses.dataclass(frozen=True)
class Alarm:
    """Something in a run that looks wrong.

    Attributes:
        name: The name of the alarm.
        stage: The stage that it is about.
        says: What was seen.
        remedy: What to try.
    """

    name: str
    stage: str
    says: str
    remedy: str


# Of each figure that is watched: where it is found, which way is bad (-1 a fall), the least change
# as a share of what it was, and what to try.
_Figure = Callable[[Mapping[str, Any]], Any]
WATCHED: tuple[tuple[str, _Figure, int, float, str], ...] = (
    ("queries repeat", lambda s: (s["sampled"] or {}).get("distinct_queries"), -1, 0.1,
     "raise e_step.temperature, or fewer epochs a round"),
    ("entropy falls", lambda s: (s["sampled"] or {}).get("surprise"), -1, 0.5,
     "lower m_step.learning_rate, or raise e_step.samples"),
    ("answers grow", lambda s: (s["dev"] or {}).get("answer_words"), 1, 0.5,
     "look at the answers: a format may have been unlearned"),
    ("answers shrink", lambda s: (s["dev"] or {}).get("answer_words"), -1, 0.5,
     "look at the answers: one word may have become the answer to all"),
    ("guesses rise", lambda s: (s["dev"] or {}).get("guessed"), 1, 0.0,
     "train on fewer questions that can be guessed"),
    ("unfounded answers rise", lambda s: (s["dev"] or {}).get("unfounded"), 1, 0.0,
     "raise m_step.min_log_likelihood, so that hopeless questions teach nothing"),
)  # fmt: skip
LEAST_SAMPLES = 0.1  # of K - 1, above 1: fewer effective samples are a collapse of the weights
MOST_HOPELESS = 0.5


def alarms(stages: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """What looks wrong at the last stage, beside the first that has the same figure.

    A change counts where its 95 % interval leaves 0 out and it is large enough.

    Args:
        stages: What `rounds` gives.
    """
    found: list[Alarm] = []
    for name, figure, way, least, remedy in WATCHED:
        known = [(s["stage"], f) for s in stages if (f := figure(s))]
        if len(known) > 1 and (says := _change(known[0][1], known[-1][1], way, least)):
            found.append(Alarm(name, known[-1][0], says, remedy))
    gaps = [(s["stage"], s["gap"]["em"]) for s in stages if "em" in s["gap"]]
    if len(gaps) > 1 and (says := _change(gaps[0][1], gaps[-1][1], 1, 0.0)):
        found.append(
            Alarm("overfitting", gaps[-1][0], f"gap of EM: {says}", "stop a round earlier")
        )
    for stage in stages[-1:]:
        found += _of_weights(stage)
    return found


def _change(before: dict[str, Any], after: dict[str, Any], way: int, least: float) -> str:
    """What changed, in words; empty where nothing did that counts."""
    change = difference(after, before)
    if min(way * end for end in change["ci95"]) <= 0 or (
        way * change["value"] < least * abs(before["value"])
    ):
        return ""
    return f"{before['value']:.3f} -> {after['value']:.3f}"


def _of_weights(stage: Mapping[str, Any]) -> Iterator[Alarm]:
    share = (stage["sampled"] or {}).get("effective_samples")
    counts = stage["weights"]
    if share and counts and share["n"]:
        k = sum(counts) / share["n"]
        if share["ci95"][1] * k < 1 + LEAST_SAMPLES * (k - 1):
            says = f"{share['value'] * k:.2f} effective samples of {k:.0f}"
            remedy = "raise e_step.weight_temperature or e_step.samples"
            yield Alarm("weights collapse", stage["stage"], says, remedy)
    hopeless = stage["hopeless"]
    if hopeless and hopeless["ci95"][0] > MOST_HOPELESS:
        says = f"{100 * hopeless['value']:.0f} % of the questions are hopeless"
        yield Alarm(
            "hopeless questions", stage["stage"], says, "raise e_step.samples, or warm up more"
        )
    gain = stage["journal"]["probe_gain"] or {}
    error = gain.get("standard_error")
    if error is not None and gain["difference"] + 2 * error < 0:
        says = f"by {gain['difference']:.2f} ± {error:.2f} nats"
        yield Alarm("objective falls", stage["stage"], says, "lower m_step.learning_rate")
