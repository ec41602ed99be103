"""Iter-RetGen (Shao et al. 2023): the answer is searched for, and the question answered anew."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Answer, Look, Plan, Show
from exsearch.methods.format import REASON_INSTRUCTION, answer_prompt, ask_reasons
from exsearch.records import Question, Step


@dataclasses.dataclass(frozen=True)
class IterRetgenMethod:
    """Search and answer several times; each search is for the question with the last reply.

    Attributes:
        max_steps: The number of searches, each with an answer after it; the last one counts.
        passages: The most passages that a search returns.
        passage_words: The number of words of a passage that the model is shown, on average.
        show: Which words these are: the `start` of the text, or the sentences that fit the `query`.
        thought_tokens: The most tokens that reasons and answer may take.
    """

    name: ClassVar[str] = "iter-retgen"

    max_steps: int = 2
    passages: int = 5
    passage_words: int = 60
    show: Show = "start"
    thought_tokens: int = 128

    def __post_init__(self) -> None:
        check_least(self, max_steps=1, passages=1, passage_words=1, thought_tokens=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Search, reason and answer in turn, and end with the last answer (`Method.plan`)."""
        query, reply = question.question, Answer("")
        while len(steps) < self.max_steps:
            found = yield Look(query, self.passages, self.passage_words, self.show)
            steps.append(Step(query, found))
            prompt = answer_prompt(question.question, found, instruction=REASON_INSTRUCTION)
            reply = yield ask_reasons(prompt, self.thought_tokens)
            query = " ".join([question.question, reply.thought, reply.text]).strip()
        return reply
