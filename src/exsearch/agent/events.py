"""An event tells one thing that happened in an episode, as it happens.

The events of an episode tell all of it: what each call wrote, what was searched and found, what was
recorded, and how it ended. Progress displays, servers and pages read nothing else. Events are told
and not kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from exsearch.records import CallKind, Passage, Step, StopReason


class EventKind(StrEnum):
    """The kinds of events, by what happened."""

    BEGUN = "begun"  # a call of the model begins; again with the same number where it is retried
    TEXT = "text"  # what the call has written so far, all of it
    SEARCH = "search"  # a query goes to the retriever
    PASSAGES = "passages"  # what the search found
    EVIDENCE = "evidence"  # a step is complete, with what was recorded
    ANSWER = "answer"
    END = "end"  # nothing follows


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One event of an episode.

    Attributes:
        kind: The kind of the event.
        episode: The number that `Runner.add` gave; no two episodes of a runner share it.
        id: The trajectory's id, `<question id>#<sample>`; where the same question is asked twice
            at once, both episodes have it.
        at: Seconds since 1970.
        call: The number of the call (`begun`, `text`) among the episode's calls, from 0.
        action: What the call is for (`begun`, `text`).
        text: What was written so far (`text`), the query (`search`), the answer (`answer`), or what
            went wrong (`end`; empty where nothing did).
        passages: What was found, best first (`passages`).
        step: The finished step (`evidence`).
        stop_reason: Why the episode ended (`end`); None where it was cancelled.
    """

    kind: EventKind
    episode: int
    id: str
    at: float
    call: int | None = None
    action: CallKind | None = None
    text: str = ""
    passages: tuple[Passage, ...] = ()
    step: Step | None = None
    stop_reason: StopReason | None = None


OnEvent = Callable[[Event], None]


def showing(bar: Any) -> OnEvent:
    """A listener that moves a progress bar on by 1 whenever an episode ends.

    In between the bar tells of calls and searches, since the first episodes may take minutes.

    Args:
        bar: The bar, as `Bars.open` gives it.
    """
    calls = searches = 0

    def listen(event: Event) -> None:
        nonlocal calls, searches
        calls += event.kind is EventKind.BEGUN
        searches += event.kind is EventKind.SEARCH
        bar.set_postfix_str(f"{calls} calls, {searches} searches", refresh=False)
        bar.update(int(event.kind is EventKind.END))

    return listen
