"""An analyser turns text into the words that are indexed and searched for.

One analyser serves passages and queries alike; its settings are saved with the index. It does not
count or score.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable
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


class Analyser:
    """Lower case, accents off, words, stopwords out, stems: the steps in this order.

    Threads may share an analyser.

    Args:
        stemmer: The name of a Snowball algorithm; empty leaves words unstemmed.
        stopwords: The words that are left out, in lower case and without accents.
        max_word_length: The number of characters after which a word is cut, so that what is no word
            can't bloat the index.
        version: The version of the steps; there is only version 1.

    Raises:
        ValueError: another version, or no such stemmer.

    Example:
        >>> Analyser().words("Who directed the Cafés of São Paulo?")
        ['direct', 'cafe', 'sao', 'paulo']
    """

    def __init__(
        self,
        stemmer: str = "english",
        stopwords: Iterable[str] = ENGLISH_STOPWORDS,
        max_word_length: int = 64,
        version: int = 1,
    ):
        if version != 1:
            raise ValueError(f"analyser version {version}: this exsearch knows version 1")
        if stemmer and stemmer not in Stemmer.algorithms():
            raise ValueError(f"no Snowball stemmer is called {stemmer!r}")
        self.stemmer = stemmer
        self.stopwords = frozenset(stopwords)
        self.max_word_length = max_word_length
        self.version = version
        self._stem = Stemmer.Stemmer(stemmer).stemWords if stemmer else list
        self._lock = threading.Lock()  # a stemmer has one buffer of its own

    def words(self, text: str) -> list[str]:
        """The words of a text, in order and with repeats; none for a text of stopwords only."""
        found = [
            word[: self.max_word_length]
            for word in _WORD.findall(fold(text))
            if word not in self.stopwords
        ]
        with self._lock:
            return self._stem(found)

    def settings(self) -> dict[str, Any]:
        """The arguments that make this analyser again, as values that JSON can hold."""
        return {
            "stemmer": self.stemmer,
            "stopwords": sorted(self.stopwords),
            "max_word_length": self.max_word_length,
            "version": self.version,
        }


def fold(text: str) -> str:
    """The text in lower case, with compatibility forms unified and accents taken off."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in parts if not unicodedata.combining(c)).lower()
