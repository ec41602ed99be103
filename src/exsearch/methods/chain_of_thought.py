"""Chain of thought (Wei et al. 2022): the model reasons, then answers; nothing is retrieved."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Plan
from exsearch.methods.format import REASON_INSTRUCTION, answer_prompt, ask_reasons
from exsearch.records import Question, Step


@dataclasses.dataclass(frozen=True)
class ChainOfThoughtMethod:
    """Ask for reasons and the answer in one reply.

    Attributes:
        thought_tokens: The most tokens that reasons and answer may take.
    """

    name: ClassVar[str] = "chain-of-thought"

    thought_tokens: int = 128

    def __post_init__(self) -> None:
        check_least(self, thought_tokens=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Ask, and end with the answer (`Method.plan`)."""
        prompt = answer_prompt(question.question, instruction=REASON_INSTRUCTION)
        return (yield ask_reasons(prompt, self.thought_tokens))
