"""An analyser turns text into the words that are indexed and searched for.

One analyser serves passages and queries alike; its settings are saved with the index. It does not
count or score.
"""

from __future__ import annotations

import difflib
import importlib
import re
import threading
import unicodedata
from collections.abc import Iterable
from typing import Any

import Stemmer

from exsearch.errors import ConfigError

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
# Languages of which bm25s has the stopwords; of any other none are left out.
_LISTED = "danish dutch french german italian norwegian portuguese russian spanish swedish turkish"

_VERSIONS = (1, 2)  # of an index that was built earlier, and of one that is built now
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff"
    "\u20d0-\u20ff]+"
)
# Han, kana, Thai, Lao, Tibetan, Burmese, Khmer: written without blanks between words.
_UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u0f00\u0f18-\u0f39\u0f3e-\u0fff\u1000-\u1049\u1050-\u109f"
    "\u1780-\u17d3\u17d7-\u17dd\u3005-\u3007\u3031-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MARKS = "\u0900-\u0963\u0966-\u0dff"  # vowels of India's scripts are no letters to `re`
_JOINTS = "-./_\u2010-\u2015"
_FIRST_WORD = re.compile(r"[^\W_]+")  # of version 1
_CHUNK = re.compile(rf"[\w{_MARKS}{_UNSPACED}]+(?:[{_JOINTS}]+[\w{_MARKS}{_UNSPACED}]+)*")
_JOINT = re.compile(rf"[{_JOINTS}]+")
_UNSPACED_RUN = re.compile(rf"([{_UNSPACED}]+)")


class Analyser:
    """Lower case, accents off, words, stopwords out, stems: the steps in this order.

    In languages other than English, accents are taken off the stems, since the stopwords and the
    endings have them. A script that is written without blanks gives each two neighbouring letters.
    Letters and digits with hyphens, dots or strokes between them (X-43A) give their parts, and the
    whole as one more word (x43a), which a passage's length does not count. Threads may share an
    analyser.

    Args:
        stemmer: The name of a Snowball algorithm; empty leaves words unstemmed.
        stopwords: The words that are left out, in lower case; for English without accents.
        max_word_length: The number of characters after which a word is cut, so that what is no word
            can't bloat the index.
        version: The version of the steps. Version 1 has no pairs of letters and no wholes, and all
            of it takes accents off first.

    Raises:
        ValueError: another version, or no such stemmer.

    Example:
        >>> Analyser().words("Who directed the Cafés of São Paulo?")
        ['direct', 'cafe', 'sao', 'paulo']
        >>> Analyser().words("The X-43A in 東京都")
        ['x', '43a', '東京', '京都', 'x43a']
    """

    def __init__(
        self,
        stemmer: str = "english",
        stopwords: Iterable[str] = ENGLISH_STOPWORDS,
        max_word_length: int = 64,
        version: int = _VERSIONS[-1],
    ):
        if version not in _VERSIONS:
            raise ValueError(f"analyser version {version}: this exsearch knows 1 and 2")
        if stemmer and stemmer not in Stemmer.algorithms():
            raise ValueError(f"no Snowball stemmer is called {stemmer!r}")
        self.stemmer = stemmer
        self.stopwords = frozenset(stopwords)
        self.max_word_length = max_word_length
        self.version = version
        self._accents_first = stemmer in ("", "english", "porter")
        # Its cache costs more than it saves: an index asks once for each word, a query for few.
        self._stem = Stemmer.Stemmer(stemmer, 0).stemWord if stemmer else str
        self._lock = threading.Lock()  # a stemmer has one buffer of its own

    @classmethod
    def of(cls, language: str, stopwords: bool = True) -> Analyser:
        """The analyser for texts in a language.

        Args:
            language: The name of a Snowball algorithm; empty for words as they are, without
                stopwords.
            stopwords: Whether the stopwords of the language are left out, where a list is known.

        Raises:
            ConfigError: no such language.
        """
        known = Stemmer.algorithms()
        if language and language not in known:
            near = difflib.get_close_matches(language, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"no stemmer for the language {language!r}; {hint}")
        if not stopwords or language not in ("english", *_LISTED.split()):
            return cls(language, ())
        if language == "english":
            return cls()
        lists = importlib.import_module("bm25s.stopwords")
        return cls(language, getattr(lists, f"STOPWORDS_{language.upper()}"))

    def words(self, text: str) -> list[str]:
        """The words of a text with repeats: each chunk's in order, then the wholes.

        There are none for a text of stopwords only.
        """
        found = [self.analyse(chunk) for chunk in self.chunks(text)]
        parts = [word for words, _ in found for word in words]
        return parts + [whole for _, wholes in found for whole in wholes]

    def chunks(self, text: str) -> list[str]:
        """The pieces of a text between blanks and other signs, which `analyse` takes one by one."""
        if self.version == 1:
            return _FIRST_WORD.findall(_fold_first(text))
        text = text.lower()
        if not text.isascii():
            text = fold(text) if self._accents_first else unicodedata.normalize("NFKC", text)
        return _CHUNK.findall(text)

    def analyse(self, chunk: str) -> tuple[list[str], list[str]]:
        """The words of one of the `chunks`, and the whole that they make: one, or mostly none."""
        if self.version == 1 or (chunk.isascii() and chunk.isalnum()):
            return self._words(chunk), []
        words: list[str] = []
        parts = [part for part in _JOINT.split(chunk) if part]
        for part in parts:
            for place, run in enumerate(_UNSPACED_RUN.split(part)):
                if place % 2:
                    words += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
                else:
                    words += self._words(run)
        whole = "".join(parts)[: self.max_word_length]
        mixed = any(map(str.isdigit, whole)) and any(map(str.isalpha, whole))
        return words, [fold(whole)] if mixed and len(parts) > 1 else []

    def _words(self, part: str) -> list[str]:
        if not part or part in self.stopwords:
            return []
        with self._lock:
            stem = self._stem(part[: self.max_word_length])
        return [stem if self._accents_first else fold(stem)]

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
    parts = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower()))
    return unicodedata.normalize("NFC", parts).lower()


def _fold_first(text: str) -> str:
    """What version 1 had for `fold`: it takes off whatever is combined, vowels included."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in parts if not unicodedata.combining(c)).lower()
