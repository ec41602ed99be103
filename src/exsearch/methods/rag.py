"""RAG: one search with the question itself, then an answer with the passages in view."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Look, Plan, Show
from exsearch.methods.format import answer_prompt, ask_answer
from exsearch.records import Question, Step


@dataclasses.dataclass(frozen=True)
class RagMethod:
    """Retrieve once, then read.

    Attributes:
        passages: The most passages that the search returns.
        passage_words: The number of words of a passage that the model is shown, on average.
        show: Which words these are: the `start` of the text, or the sentences that fit the `query`.
        answer_tokens: The most tokens that the answer may take.
    """

    name: ClassVar[str] = "rag"

    passages: int = 5
    passage_words: int = 100
    show: Show = "start"
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        check_least(self, passages=1, passage_words=1, answer_tokens=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Search for the question itself, then ask for the answer (`Method.plan`)."""
        found = yield Look(question.question, self.passages, self.passage_words, self.show)
        steps.append(Step(question.question, found))
        prompt = answer_prompt(question.question, found)
        return (yield ask_answer(prompt, self.answer_tokens))
