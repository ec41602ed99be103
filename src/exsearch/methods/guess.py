"""Guess and guess-title answer without a model: what stands beside every figure of one that has.

A rule says how far a data set can be guessed. Neither is meant to be good.
"""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from exsearch.config import check_least
from exsearch.methods.base import Answer, Look, Plan
from exsearch.methods.format import one_line
from exsearch.records import Question, Step

_LAST_OPTION = re.compile(r"\bor\s+(?P<option>[^?]+?)\s*\?*\s*$", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"\s*(?:am|is|are|was|were|do|does|did|has|have|had|can|could|will|would|shall|should|may|might"
    r"|must)\b",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\s*\([^()]*\)\s*$")


def guess(question: str) -> str:
    """What a rule of two lines answers; empty where it knows nothing.

    The last option of a question that ends with "… A or B?", and yes to one that begins with an
    auxiliary verb.

    Example:
        >>> guess("Which film came out first, Alpha or The Beta?"), guess("Was Ada born in Wales?")
        ('The Beta', 'yes')
    """
    question = one_line(question)
    if found := _LAST_OPTION.search(question):
        return found["option"].rpartition(" or ")[2].strip(" ,")
    return "yes" if _YES_OR_NO.match(question) else ""


@dataclasses.dataclass(frozen=True)
class GuessMethod:
    """Look at the question alone (`guess`); nothing is asked and nothing retrieved."""

    name: ClassVar[str] = "guess"

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """End with the guess at once (`Method.plan`)."""
        yield from ()
        return Answer(guess(question.question))


@dataclasses.dataclass(frozen=True)
class GuessTitleMethod:
    """Search once with the question; the first title that it does not name is the answer.

    What a title has in brackets at its end, as in "Alpha (film)", is left out.

    Attributes:
        passages: The most passages that the search returns.
    """

    name: ClassVar[str] = "guess-title"

    passages: int = 5

    def __post_init__(self) -> None:
        check_least(self, passages=1)

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """Search, and end with a title (`Method.plan`)."""
        found = yield Look(question.question, self.passages, 1)
        steps.append(Step(question.question, found))
        asked = f" {_words(question.question)} "
        titles = [_BRACKETS.sub("", one_line(passage.title)) for passage in found]
        others = (t for t in titles if _words(t) and f" {_words(t)} " not in asked)
        return Answer(next(others, ""))


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
