"""A trace is all that is known of one question as plain values, for a page to show.

It is made of a question's log, or of a trajectory that was saved; both have the same form. Offsets
count characters, and times are seconds since the question was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exsearch.agent.cited import CitedAnswer, Mark, cited_answer
from exsearch.agent.events import Event, EventKind
from exsearch.evaluation.metrics import exact_match
from exsearch.records import Passage, Step, Trajectory, WeightedTrajectory
from exsearch.runs import finite
from exsearch.serving.log import QuestionLog
from exsearch.trajectories import Trace, trajectory_of

FORM = 1  # of a trace; a page refuses a newer one

NOTHING = CitedAnswer("", "", (), (), ())  # of a question that has not ended, or failed

AddressOf = Callable[[Passage], str | None]  # the address of a passage


def trace_of_log(log: QuestionLog, address_of: AddressOf) -> dict[str, Any]:
    """The trace of a question that was asked here; one under way has the steps so far.

    Args:
        log: The log of the question.
        address_of: Gives the address of a passage.
    """
    trajectory = log.trajectory
    told = [event.step for event in log.events if event.step is not None]
    steps = trajectory.steps if trajectory else told
    values = {
        **_named(log.id, log.question),
        "began": log.began,
        "ended": log.ended,
        "seconds": _seconds(log),
        "steps": _steps(steps, _times(log), trajectory, address_of),
        "events": [_event(event, log, address_of) for event in log.events],
        "error": str(log.error) if log.error else None,
        **_outcome(trajectory, log.answer if trajectory else NOTHING, address_of),
    }
    return finite(values)


def trace_of_trajectory(trace: Trace) -> dict[str, Any]:
    """The trace of a trajectory that was saved, of whose events nothing is known.

    Args:
        trace: The trajectory, weighed or not.
    """
    trajectory = trajectory_of(trace)
    weighed = isinstance(trace, WeightedTrajectory)
    values = {
        **_named(trajectory.id, trajectory.question.question),
        "began": None,
        "ended": True,
        "seconds": trajectory.seconds,
        "steps": _steps(trajectory.steps, [], trajectory, _address),
        "events": [],
        "error": trajectory.error,
        **_outcome(trajectory, cited_answer(trajectory), _address),
        "weight": trace.weight if weighed else None,
    }
    return finite(values)


def row_of(id: str, trajectory: Trajectory, answer: str) -> dict[str, Any]:
    """What a list of traces tells of one of them.

    Args:
        id: The trace's id.
        trajectory: The trajectory that it is of.
        answer: The answer that is told of it; empty where it is withheld.
    """
    return {
        "id": id,
        "question": trajectory.question.question,
        "answer": answer,
        "seconds": trajectory.seconds,
        "stop_reason": trajectory.stop_reason.value,
        "error": trajectory.error,
        "outcome": outcome_of(trajectory),
    }


def outcome_of(trajectory: Trajectory | None) -> str | None:
    """`right` or `wrong` where the accepted answers are known, `none` where no answer was reached.

    None says that nobody knows.
    """
    if trajectory is None or not trajectory.answer:
        return "none"
    if not trajectory.question.distinct_answers:
        return None
    right = exact_match(trajectory.answer, trajectory.question.answers) == 1
    return "right" if right else "wrong"


def event_of(event: Event, log: QuestionLog, address_of: AddressOf) -> dict[str, Any]:
    """An event as plain values, with the passages that it tells of.

    Args:
        event: One of the log's events.
        log: The log of the question.
        address_of: Gives the address of a passage.
    """
    values = _event(event, log, address_of)
    if event.kind is EventKind.PASSAGES:
        values["passages"] = [_passage(passage, address_of) for passage in event.passages]
    return values


def _address(passage: Passage) -> str | None:
    return passage.url or None  # no server has the others


def _named(id: str, question: str) -> dict[str, Any]:
    return {"form": FORM, "id": id, "question": question}


def _outcome(
    trajectory: Trajectory | None, answer: CitedAnswer, address_of: AddressOf
) -> dict[str, Any]:
    """What came out: the answer with its claims and sources, and why it ended."""
    marks = iter(answer.marks)
    return {
        "answer": answer.answer,
        "stop_reason": trajectory.stop_reason.value if trajectory else None,
        "malformed": trajectory.malformed if trajectory else None,
        "outcome": outcome_of(trajectory),
        "accepted": list(trajectory.question.answers) if trajectory else [],
        "tokens": {
            "prompt": trajectory.prompt_tokens if trajectory else 0,
            "output": trajectory.output_tokens if trajectory else 0,
        },
        "text": answer.text,
        "marks": [{"start": mark.start, "end": mark.end, **_cited(mark)} for mark in answer.marks],
        "claims": list(_claims(answer, bool(answer.answer), marks)),
        "sources": [
            {
                "number": source.number,
                "id": source.passage.id,
                "title": source.passage.title,
                "sentence": source.sentence,
                "url": address_of(source.passage),
            }
            for source in answer.sources
        ],
    }


def _claims(answer: CitedAnswer, answered: bool, marks: Iterator[Mark]) -> Iterator[dict[str, Any]]:
    """The answer, then the facts: the order of the text, in which the marks are."""
    said = answer.claims
    for place, claim in enumerate((*said[-1:], *said[:-1]) if answered else said):
        yield {
            "kind": "answer" if answered and not place else "fact",
            "text": claim.text,
            "supported": claim.supported,
            "citations": [_cited(next(marks)) for _ in claim.citations],
        }


def _cited(mark: Mark) -> dict[str, Any]:
    cited = mark.citation
    return {
        "source": mark.source.number,
        "passage_id": cited.passage_id,
        "span": [cited.start, cited.end],
        "match": cited.match.value,
    }


def _steps(
    steps: Sequence[Step],
    times: Sequence[dict[str, float]],
    trajectory: Trajectory | None,
    address_of: AddressOf,
) -> list[dict[str, Any]]:
    gains = trajectory.turn_gains if trajectory else ()
    supporting = trajectory.question.supporting if trajectory else ()
    return [
        {
            "query": step.query,
            "passages": [
                {**_passage(passage, address_of), "supporting": passage.id in supporting}
                for passage in step.passages
            ],
            "selected_ids": None if step.selected_ids is None else list(step.selected_ids),
            "evidence": _evidence(step),
            "times": times[n] if n < len(times) else None,
            "gain": gains[n] if n < len(gains) else None,
        }
        for n, step in enumerate(steps)
    ]


def _passage(passage: Passage, address_of: AddressOf) -> dict[str, Any]:
    return {
        "id": passage.id,
        "title": passage.title,
        "text": passage.text,
        "score": passage.score,
        "url": address_of(passage),
    }


def _evidence(step: Step) -> dict[str, Any] | None:
    fact = step.evidence
    return fact and {"text": fact.text, "passage_ids": list(fact.passage_ids)}


def _event(event: Event, log: QuestionLog, address_of: AddressOf) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": event.kind.value, "at": _since(log, event.at)}
    if event.action is not None:
        values |= {"call": event.call, "action": event.action.value}
    if event.text and not (event.kind is EventKind.ANSWER and log.abstain):  # it may be withheld
        values["text"] = event.text
    if event.kind is EventKind.EVIDENCE and event.step is not None:
        values["evidence"] = _evidence(event.step)
    if event.stop_reason is not None:
        values["stop_reason"] = event.stop_reason.value
    return values


def _times(log: QuestionLog) -> list[dict[str, float]]:
    """For each step when it began, searched, found and was done."""
    times: list[dict[str, float]] = []
    now: dict[str, float] = {}
    for event in log.events:
        at = _since(log, event.at)
        match event.kind:
            case EventKind.BEGUN:
                now.setdefault("began", at)
            case EventKind.SEARCH:
                now |= {"began": now.get("began", at), "searched": at}
            case EventKind.PASSAGES:
                now["found"] = at
            case EventKind.EVIDENCE:
                times.append({**now, "done": at})
                now = {}
            case _:
                pass
    return times


def _seconds(log: QuestionLog) -> float | None:
    if log.trajectory:
        return log.trajectory.seconds
    return _since(log, log.events[-1].at) if log.ended and log.events else None


def _since(log: QuestionLog, at: float) -> float:
    return round(max(0.0, at - log.began), 4)
