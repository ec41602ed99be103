"""Worked examples are solved questions, shown to an untrained model as earlier turns.

They are context only and are never trained on; `replay` makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from exsearch.engines.base import Message
from exsearch.records import CallKind


@dataclasses.dataclass(frozen=True)
class WorkedExamples:
    """Turns that show an untrained model the format before the real prompt.

    Attributes:
        turns: For each kind of call the user and assistant turns that are shown, in their order.
    """

    turns: Mapping[CallKind, tuple[Message, ...]] = dataclasses.field(default_factory=dict)

    def before(self, kind: CallKind, prompt: str) -> list[Message]:
        """The turns of a new chat: the examples for this kind of call, then the prompt."""
        return [*self.turns.get(kind, ()), Message(role="user", content=prompt)]
