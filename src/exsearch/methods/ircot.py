"""IRCoT (Trivedi et al. 2023): each sentence of the reasoning is the next search."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Answer, Look, Plan, Show
from exsearch.methods.format import NEXT_INSTRUCTION, answer_prompt, ask_answer, ask_sentence
from exsearch.records import Passage, Question, Step, StopReason


@dataclasses.dataclass(frozen=True)
class IrcotMethod:
    """Search for the question, then for each sentence that the model writes, until it answers.

    Attributes:
        max_steps: The most searches, that for the question included; then the frame is forced.
        passages: The most passages that a search returns.
        kept: The most passages in view, the newest of those found so far.
        passage_words: The number of words of a passage that the model is shown, on average.
        show: Which words these are: the `start` of the text, or the sentences that fit the `query`.
        thought_tokens: The most tokens that a sentence, or the answer, may take.
    """

    name: ClassVar[str] = "ircot"

    max_steps: int = 4
    passages: int = 3
    kept: int = 6
    passage_words: int = 60
    show: Show = "start"
    thought_tokens: int = 64

    def __post_init__(self) -> None:
        check_least(self, max_steps=1, passages=1, kept=1, passage_words=1, thought_tokens=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Search and write a sentence in turn, until the model answers (`Method.plan`)."""
        query, asked = question.question, question.question
        thoughts: list[str] = []
        seen: dict[str, Passage] = {}
        shown: list[Passage] = []
        while len(steps) < self.max_steps:
            found = yield Look(query, self.passages, self.passage_words, self.show)
            steps.append(Step(query, found))
            for passage in found:  # found again, it is new again
                seen.pop(passage.id, None)
                seen[passage.id] = passage
            shown = list(seen.values())[-self.kept :]
            if len(steps) == self.max_steps:
                break
            prompt = answer_prompt(asked, shown, instruction=NEXT_INSTRUCTION, thoughts=thoughts)
            query = yield ask_sentence(prompt, self.thought_tokens, len(thoughts))
            if isinstance(query, Answer):
                return query
            thoughts.append(query)
        prompt = answer_prompt(asked, shown, thoughts=thoughts)
        return (yield ask_answer(prompt, self.thought_tokens, StopReason.MAX_STEPS))
