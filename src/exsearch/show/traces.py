"""Trajectories and answers as a person reads them, and as plain values."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from exsearch.agent.citations import claims
from exsearch.agent.cited import cited_answer
from exsearch.agent.confidence import confidence
from exsearch.agent.ending import degraded, stopped
from exsearch.agent.events import Event, EventKind
from exsearch.errors import DataError
from exsearch.evaluation.metrics import exact_match
from exsearch.records import Step, Trajectory, WeightedTrajectory
from exsearch.terminal import safe
from exsearch.trajectories import TRAJECTORIES_FILE, Trace, read_traces, trajectory_of


def find_traces(place: Path, wanted: str | None = None, limit: int | None = None) -> list[Trace]:
    """The traces of a file, or of an evaluation's folder.

    Args:
        place: A file of trajectories, weighed or not, or the folder of an evaluation.
        wanted: The id of a question, or of one trajectory (`<question id>#<sample>`); None is all.
        limit: The most traces, from the first on; None is all.

    Raises:
        DataError: no such file, a line that is no trajectory, or none with the wanted id.
    """
    file = place / TRAJECTORIES_FILE if place.is_dir() else place
    if not file.is_file():
        message = "no such file of trajectories; `evaluate` and `rollout` write them"
        raise DataError(message, file=file)
    chosen = (
        trace
        for trace in read_traces(file)
        if wanted in (None, trajectory_of(trace).question.id, trajectory_of(trace).id)
    )
    found = list(itertools.islice(chosen, limit))
    if not found:
        message = "no trajectory in it" if wanted is None else f"no trajectory with the id {wanted}"
        raise DataError(message, file=file)
    return found


def trace_object(trace: Trace) -> dict[str, Any]:
    """A trace as plain values, without token ids."""
    trajectory = trajectory_of(trace)
    values: dict[str, Any] = {"id": trajectory.id, "question": trajectory.question.question}
    values |= answer_object(trajectory)
    values["answers"] = list(trajectory.question.answers)
    if isinstance(trace, WeightedTrajectory):
        values["weight"] = trace.weight
        values["answer_log_prob"] = trace.answer_log_prob
    return values


def answer_object(trajectory: Trajectory, abstain: float = 0.0) -> dict[str, Any]:
    """An answer with its evidence, claims (facts, then the answer) and steps as plain values.

    Args:
        trajectory: A trajectory that ended.
        abstain: The least confidence of an answer that is told. One below it is empty and claims
            nothing, and `withheld` says why; what was done for it stays.
    """
    titles = {p.id: p.title for p in trajectory.passages}
    said = claims(trajectory)
    sure = confidence(trajectory, said)
    withheld = trajectory.answer and sure.withheld(abstain)
    return {
        "answer": "" if withheld else trajectory.answer,
        "withheld": withheld or None,
        "confidence": round(sure.value, 4),
        "evidence": [
            {**dataclasses.asdict(e), "titles": [titles.get(i, "") for i in e.passage_ids]}
            for e in trajectory.evidence
        ],
        "claims": [] if withheld else [dataclasses.asdict(claim) for claim in said],
        "steps": [
            {
                "query": step.query,
                "passages": [{"id": p.id, "title": p.title, "url": p.url} for p in step.passages],
                "selected_ids": step.selected_ids,
                "evidence": step.evidence and dataclasses.asdict(step.evidence),
            }
            for step in trajectory.steps
        ],
        "stop_reason": trajectory.stop_reason.value,
        "stopped": stopped(trajectory) or None,
        "degraded": list(degraded(trajectory)),
        "malformed": trajectory.malformed,
        "tokens": {"prompt": trajectory.prompt_tokens, "output": trajectory.output_tokens},
        "seconds": trajectory.seconds,
    }


def answer_text(trajectory: Trajectory, abstain: float = 0.0) -> str:
    """The answer, the facts that it rests on, and the sentences of passages that say them.

    Args:
        trajectory: A trajectory that ended.
        abstain: The least confidence of an answer that is told.
    """
    answer = cited_answer(trajectory, abstain)
    head, *rows = answer.text.split("\n")
    lines = [safe(head), *(f"  {safe(row)}" for row in rows)]
    if answer.sources:
        lines.append("")
    for source in answer.sources:
        place = f"{safe(source.passage.title)} ({safe(source.passage.id)})"
        lines.append(f'  [{source.number}] {place}: "{safe(source.sentence)}"')
        if source.passage.url:
            lines.append(f"      {safe(source.passage.url)}")
    return "\n".join(lines)


def ending_text(trajectory: Trajectory) -> str:
    """What a person is told of an ending that is out of the ordinary; empty for any other."""
    why = stopped(trajectory)
    lines = [f"stopped: {why}"] if why else []
    lines += [f"on the way: {what}" for what in degraded(trajectory)]
    return "\n".join(map(safe, lines))


class Told:
    """What a person is told of one question as it happens: each event, and seconds of each step."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._since = 0.0

    def line(self, event: Event) -> str:
        """What is told of the next event; empty for what need not be told.

        Args:
            event: An event of the question; they come in their order.
        """
        if self._began is None:
            self._began = self._since = event.at
        text = event_text(event)
        if event.kind is EventKind.EVIDENCE:
            text += f" ({event.at - self._since:.1f} s)"
            self._since = event.at
        elif event.kind is EventKind.END:
            ended = "answered" if event.stop_reason and event.stop_reason.has_answer else "ended"
            took = f"{event.at - self._since:.1f} s; {event.at - self._began:.1f} s in all"
            text = f"{ended} ({took})"
        return text


def event_text(event: Event) -> str:
    """What a person is told of an event as it happens; empty for what need not be told."""
    if event.kind is EventKind.SEARCH:
        return f"search: {safe(event.text)}"
    if event.kind is EventKind.PASSAGES:
        titles = [safe(p.title) or f"[{safe(p.id)}]" for p in event.passages]
        return f"  found: {' | '.join(titles) or 'nothing'}"
    if event.kind is EventKind.EVIDENCE and event.step is not None:
        evidence = event.step.evidence
        return f"  record: {safe(evidence.text) if evidence else 'nothing found'}"
    return ""


def trace_text(trace: Trace) -> str:
    """A trajectory as a person reads it: question, searches, evidence, answer and gold."""
    trajectory = trajectory_of(trace)
    question = trajectory.question
    lines = [f"{safe(trajectory.id)}  {safe(question.question)}"]
    gains = dict(enumerate(trajectory.turn_gains, start=1))
    for number, step in enumerate(trajectory.steps, start=1):
        lines += _step_lines(number, step, set(question.supporting))
        if number in gains:
            lines.append(f"     gain: {gains[number]:+.2f} (log p of the gold answer)")
    lines.append(f"  answer: {safe(trajectory.answer) or '(none)'}{_verdict(trajectory)}")
    if question.answers:
        lines.append(f"  gold: {safe(' | '.join(question.answers))}")
    tokens = f"{trajectory.prompt_tokens} tokens read, {trajectory.output_tokens} written"
    if trajectory.calls and not trajectory.prompt_tokens:
        tokens = "its engine gave no token ids, so it can't be weighed or trained on"
    detail = trajectory.malformed or trajectory.error
    reason = (
        f"{trajectory.stop_reason.value} ({safe(detail)})" if detail else trajectory.stop_reason
    )
    lines.append(f"  end: {reason}; {tokens}")
    if isinstance(trace, WeightedTrajectory):
        score = trace.answer_log_prob
        lines.append(f"  weight: {trace.weight:.3f}, log p(gold answer): {score:.2f}")
    return "\n".join(lines)


def _verdict(trajectory: Trajectory) -> str:
    if not trajectory.question.distinct_answers:
        return ""
    right = exact_match(trajectory.answer, trajectory.question.answers) == 1
    return "  (right)" if right else "  (wrong)"


def _step_lines(number: int, step: Step, supporting: set[str]) -> list[str]:
    lines = [f"  {number}. search: {safe(step.query)}"]
    for passage in step.passages:
        mark = "*" if passage.id in supporting else " "
        unused = step.selected_ids is not None and passage.id not in step.selected_ids
        note = "  (not selected)" if unused else ""
        lines.append(f"     {mark} [{safe(passage.id)}] {safe(passage.title)}{note}")
    if step.evidence is None:
        return [*lines, "     record: nothing found"]
    sources = ", ".join(step.evidence.passage_ids)
    return [*lines, f"     record: {safe(step.evidence.text)}  [{safe(sources)}]"]
