"""Direct: the model answers from what it knows; nothing is retrieved."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Plan
from exsearch.methods.format import answer_prompt, ask_answer
from exsearch.records import Question, Step


@dataclasses.dataclass(frozen=True)
class DirectMethod:
    """Ask the question, and nothing else.

    Attributes:
        answer_tokens: The most tokens that the answer may take.
    """

    name: ClassVar[str] = "direct"

    answer_tokens: int = 64

    def __post_init__(self) -> None:
        check_least(self, answer_tokens=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Ask for the answer, and end with it (`Method.plan`)."""
        return (yield ask_answer(answer_prompt(question.question), self.answer_tokens))
