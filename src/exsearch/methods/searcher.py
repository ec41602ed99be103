"""The searcher thinks, searches, records, and answers from its notes: ExSearch's own method.

    until no search is left:
        think    write a sub-query, or answer
        search   the retriever finds passages
        select   name the passages that help (optional)
        record   copy the fact that helps into the notes
    answer from the notes

The wording of each action is `format`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any, ClassVar, Literal

from exsearch.config import check_least
from exsearch.errors import ConfigError
from exsearch.methods.base import Answer, Ask, Found, Look, Plan, Show
from exsearch.methods.format import (
    SEARCH_FRAME,
    ask_answer,
    ask_thought,
    note_prompt,
    parse_note,
    parse_record,
    parse_select,
    pooled,
    record_prompt,
    select_prompt,
    think_prompt,
)
from exsearch.records import CallKind, Question, Step, StopReason


@dataclasses.dataclass(frozen=True)
class SearcherMethod:
    """How the searcher searches.

    Attributes:
        max_steps: T, the most searches; after them the answer frame is forced.
        passages: The most passages that a search returns.
        passage_words: The number of words of a passage that the model is shown, on average.
        show: Which words these are: the `start` of the text, or the sentences that fit the `query`.
        context: What a prompt holds: `notes` (a thought sees question and notes, a record its
            sub-query and passages) or `transcript` (all that came before, one growing sequence).
        think: Whether the model writes sub-queries; False searches once, for the question itself,
            to see what thinking is worth.
        search: Whether sub-queries are searched for; False has the model note what it knows, to see
            what searching is worth.
        select: Whether the model picks passages between search and record.
        record: Whether the model copies the fact that helps; False puts all that is shown of the
            passages into the notes, to see what recording is worth.
        facts: What a record copies: the `sentence` that answers the query, or its `words` alone.
        always_search: Whether the first thought is made a query, to see what stopping is worth.
        thought_tokens: The most tokens that a thought, or the answer, may take.
        select_tokens: The most tokens that a choice of passages may take.
        record_tokens: The most tokens that a record may take.
    """

    name: ClassVar[str] = "searcher"

    max_steps: int = 5
    passages: int = 5
    passage_words: int = 100
    show: Show = "start"
    context: Literal["notes", "transcript"] = "notes"
    think: bool = True
    search: bool = True
    select: bool = False
    record: bool = True
    facts: Literal["sentence", "words"] = "sentence"
    always_search: bool = False
    thought_tokens: int = 64
    select_tokens: int = 24
    record_tokens: int = 96

    def __post_init__(self) -> None:
        check_least(self, max_steps=0, passages=1, passage_words=1)
        check_least(self, thought_tokens=1, select_tokens=1, record_tokens=1)
        if not self.search and not (self.think and self.record):
            raise ConfigError("search = false needs think and record: nothing else is left to do")

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Think, search and record until the model answers or no search is left (`Method.plan`)."""
        limit, goes_on = self.thought_tokens, self.context == "transcript"
        # Without thoughts there is one query, and to search for it again would find the same.
        while len(steps) < (self.max_steps if self.think else min(1, self.max_steps)):
            query = question.question
            if self.think:
                forced = SEARCH_FRAME if self.always_search and not steps else ""
                prompt = self._prompt(question, steps)
                action = yield ask_thought(prompt, limit, goes_on=goes_on, forced=forced)
                if isinstance(action, Answer):
                    return action
                query = action.query
            found: Found = ()
            if self.search:
                found = yield Look(query, self.passages, self.passage_words, self.show)
            steps.append((yield from self._read(query, found, goes_on)))
        prompt = self._prompt(question, steps)
        return (yield ask_answer(prompt, limit, StopReason.MAX_STEPS, goes_on=goes_on))

    def _read(self, query: str, found: Found, goes_on: bool) -> Generator[Ask, Any, Step]:
        """Select where asked to, then record; an empty choice leaves nothing to record."""
        step = Step(query, found)
        if self.select and found:
            selected = yield Ask(
                CallKind.SELECT,
                select_prompt(query, found),
                lambda text: parse_select(text, found),
                self.select_tokens,
                goes_on=goes_on,
            )
            step = Step(query, found, selected)
        if step.selected_ids == ():
            return step
        if not self.record:
            return dataclasses.replace(step, evidence=pooled(step.shown))
        evidence = yield Ask(
            CallKind.RECORD,
            record_prompt(query, step.shown, words=self.facts == "words")
            if self.search
            else note_prompt(query),
            lambda text: parse_record(text, step.shown) if self.search else parse_note(text),
            self.record_tokens,
            goes_on=goes_on,
        )
        return dataclasses.replace(step, evidence=evidence)

    def _prompt(self, question: Question, steps: list[Step]) -> str:
        transcript = self.context == "transcript" and steps
        return "Go on." if transcript else think_prompt(question.question, steps)
