"""An answer's confidence follows from what was found; one below a threshold is withheld."""

from __future__ import annotations

import dataclasses
import math

import pytest

from exsearch.agent.cited import cited_answer
from exsearch.agent.confidence import UNSUPPORTED, confidence
from exsearch.agent.ending import degraded, stopped
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
)

HARBOUR = Passage("h", "Quillmoor harbour", "It was built by Ada Fenwick in 1871. It is cold.")
RECORD = Call(CallKind.RECORD, (1,), (2,))
FACT = Evidence("It was built by Ada Fenwick in 1871.", ("h",))


def trajectory(
    answer: str = "Ada Fenwick",
    facts: tuple[Evidence | None, ...] = (FACT,),
    log_probs: tuple[float, ...] = (-3.0, math.log(0.5), math.log(0.125)),
    question: str = "Who built Quillmoor harbour?",
) -> Trajectory:
    last = Call(CallKind.THINK, (1,), tuple(range(len(log_probs))), log_probs, log_probs)
    return Trajectory(
        Question("q", question),
        steps=tuple(Step("harbour", (HARBOUR,), None, fact) for fact in facts),
        calls=(RECORD, last),
        answer=answer,
        stop_reason=StopReason.ANSWERED,
        answer_start=1,
    )


def test_a_copied_answer_rests_on_its_passage_as_far_as_the_model_is_sure():
    """Its words and the fact's are there, all words of the question, and sqrt(0.5 · 0.125)."""
    found = confidence(trajectory())
    assert dataclasses.astuple(found) == pytest.approx((1.0, 1.0, 1.0, 0.25))
    assert found.value == pytest.approx(0.25)
    assert found.withheld(0.2) == "" and found.withheld(0.3) == "the model is unsure of it"


def test_without_log_probs_support_alone_counts():
    assert confidence(trajectory(log_probs=())).value == 1.0
    unplaced = dataclasses.replace(trajectory(), answer_start=None)
    assert confidence(unplaced).sureness == 1.0


def test_an_answer_that_no_passage_says_has_none():
    found = confidence(trajectory("Bea Marlow"))
    assert (found.answer, found.support, found.value) == (0.0, 0.5, 0.0)
    assert found.withheld(0.001) == UNSUPPORTED
    assert confidence(trajectory("")).value == 0.0


def test_facts_without_support_count_half_of_it():
    invented = Evidence("Bea Marlow paid all of it.", ("h",))
    assert confidence(trajectory(facts=(FACT, invented))).support == 0.75  # (1 + (1 + 0) / 2) / 2
    nothing = confidence(trajectory(facts=(None,), log_probs=()))
    assert nothing.support == 0.5  # the method records, and nothing was recorded
    plain = dataclasses.replace(trajectory(facts=(None,)), calls=(), answer_start=None)
    assert confidence(plain).support == 1.0  # the method records nothing
    weak = confidence(trajectory("yes", log_probs=()))
    assert (weak.answer, weak.support) == (0.5, 0.75)


def test_what_was_asked_has_to_be_spoken_of():
    """Of fenwick, paint, church, lisbon (stemmed) the passage has one."""
    other = confidence(trajectory(question="Did Fenwick paint the church of Lisbon?", log_probs=()))
    assert other.coverage == 0.25 and other.value == 0.25
    assert other.withheld(0.5) == "what was found says little of what was asked"
    assert confidence(trajectory(question="Who is it?", log_probs=())).coverage == 1.0


def test_a_withheld_answer_claims_nothing():
    unsupported = trajectory("Bea Marlow")
    answer = cited_answer(unsupported, 0.3)
    assert answer.text == "(withheld: no passage that was found says it)"
    assert (answer.marks, answer.sources, answer.claims) == ((), (), ())
    assert cited_answer(unsupported).text.startswith("Bea Marlow (unsupported)")
    assert cited_answer(trajectory(""), 1.0).text.startswith("(no answer: ")


def test_an_ending_is_told_in_words():
    assert stopped(trajectory()) == "" and degraded(trajectory()) == ()
    failed = dataclasses.replace(
        trajectory(""), stop_reason=StopReason.RETRIEVER_ERROR, error="no reply"
    )
    assert stopped(failed) == "a search failed (no reply)"
    rough = dataclasses.replace(trajectory(), retries=1, steps=(Step("x", ()), Step("y", ())))
    assert degraded(rough) == (
        "a reply that could not be read was written anew",
        "search 1 found nothing",
        "search 2 found nothing",
    )
    for reason in set(StopReason) - {StopReason.ANSWERED}:
        assert stopped(dataclasses.replace(trajectory(), stop_reason=reason))
