"""An analyser turns text into the words that are indexed and searched for.

One analyser serves passages and queries alike; its settings are saved with the index. It does not
count or score.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Any

import Stemmer

_ENGLISH = """
a about above after again against all also am an and any are as at be because been before being
below between both but by can could d did do does doing down during each few for from further
had has have having he her here hers herself him himself his how i if in into is it its itself
just ll m may me might more most must my myself no nor not now o of off on once only or other
our ours ourselves out over own re s same shall she should so some such t than that the their
theirs them themselves then there these they this those through to too under until up ve very
was we were what when where which while who whom whose why will with would y you your yours
yourself yourselves
"""
ENGLISH_STOPWORDS = tuple(_ENGLISH.split())
_WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True)
class Analyser:
    """Lower case, accents off, words, stopwords out, stems: the steps in this order.

    Example:
        >>> Analyser().words("Who directed the Cafés of São Paulo?")
        ['direct', 'cafe', 'sao', 'paulo']
    """

    stemmer: str = "english"  # a Snowball algorithm, or "" for none
    stopwords: tuple[str, ...] = ENGLISH_STOPWORDS
    max_word_length: int = 64  # longer ones are no words; cut, so that they can't bloat the index
    version: int = 1  # of the steps, not of the settings

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"analyser version {self.version} is newer than this exsearch")
        if self.stemmer and self.stemmer not in Stemmer.algorithms():
            raise ValueError(f"no Snowball stemmer is called {self.stemmer!r}")
        object.__setattr__(self, "stopwords", tuple(self.stopwords))
        object.__setattr__(self, "_stopwords", frozenset(self.stopwords))
        stem = Stemmer.Stemmer(self.stemmer).stemWords if self.stemmer else list
        object.__setattr__(self, "_stem", stem)

    def words(self, text: str) -> list[str]:
        """The words of a text, in order and with repeats; none for a text of stopwords only."""
        stopwords: frozenset[str] = self._stopwords  # pyright: ignore[reportAttributeAccessIssue]
        longest = self.max_word_length
        found = [word[:longest] for word in _WORD.findall(fold(text)) if word not in stopwords]
        return self._stem(found)  # pyright: ignore[reportAttributeAccessIssue]

    def settings(self) -> dict[str, Any]:
        """What `Analyser(**settings)` needs to be this analyser again."""
        return dataclasses.asdict(self)


def fold(text: str) -> str:
    """Lower case, compatibility forms unified, accents taken off."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in parts if not unicodedata.combining(c)).lower()
