"""Self-Ask (Press et al. 2023): follow-up questions, each answered by the best passage found."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Answer, Look, Plan, Show
from exsearch.methods.format import ask_answer, ask_thought, noted, think_prompt
from exsearch.records import Question, Step, StopReason


@dataclasses.dataclass(frozen=True)
class SelfAskMethod:
    """Ask follow-up questions until the answer is plain; the notes quote passages.

    Attributes:
        max_steps: The most searches, one a sub-query; then the answer frame is forced.
        passage_words: The number of words of the best passage that enter the notes.
        show: Which words these are: the `start` of the text, or the sentences that fit the `query`.
        thought_tokens: The most tokens that a follow-up question, or the answer, may take.
    """

    name: ClassVar[str] = "self-ask"
    max_steps: int = 5
    passage_words: int = 40
    show: Show = "start"
    thought_tokens: int = 64

    def __post_init__(self) -> None:
        check_least(self, max_steps=0, passage_words=1, thought_tokens=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Ask and search in turn, until the model answers or no search is left (`Method.plan`)."""
        while len(steps) < self.max_steps:
            prompt = think_prompt(question.question, steps)
            action = yield ask_thought(prompt, self.thought_tokens, done=len(steps))
            if isinstance(action, Answer):
                return action
            look = Look(action.query, 1, self.passage_words, self.show)
            steps.append(noted(action.query, (yield look)))
        prompt = think_prompt(question.question, steps)
        return (yield ask_answer(prompt, self.thought_tokens, StopReason.MAX_STEPS))
