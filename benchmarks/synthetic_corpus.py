"""A synthetic corpus has as many passages as asked for, and words as frequent as real ones.

Words follow Zipf's law: the r-th most frequent is drawn with probability ~ 1/r, and the first ranks
are English stopwords, as in English. The same seed gives the same bytes; a smaller corpus is the
beginning of a larger one. It means nothing: it is for speed, not for answers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from exsearch.retrievers.analyser import ENGLISH_STOPWORDS

VOCABULARY = 1_000_000
PASSAGE_WORDS = 60  # on average
QUERY_WORDS = (5, 12)  # least and most, stopwords included
SEED = 20

_BATCH = 5_000  # passages drawn at a time: what is held in memory
_SYLLABLES = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ["", *"lmnrt"]]


def write_corpus(path: Path, passages: int) -> None:
    """Write a corpus of JSON lines, {"id", "title", "text"}."""
    with path.open("w", encoding="utf-8") as file:
        for number, words in enumerate(_passages(passages)):
            title, text = " ".join(words[:2]), " ".join(words[2:])
            file.write(json.dumps({"id": f"p{number}", "title": title, "text": text}) + "\n")


def make_queries(count: int, passages: int) -> list[str]:
    """Queries of a few words, each from one passage of the corpus's first part."""
    rng = np.random.default_rng([SEED, 1])
    chosen = set(rng.choice(min(passages, 4 * count), count, replace=False).tolist())
    queries = []
    for number, words in enumerate(_passages(max(chosen) + 1)):
        if number in chosen:
            size = int(rng.integers(QUERY_WORDS[0], QUERY_WORDS[1], endpoint=True))
            queries.append(" ".join(rng.choice(words, min(size, len(words)), replace=False)))
    rng.shuffle(queries)
    return queries


def _passages(count: int) -> Iterator[list[str]]:
    """The words of each passage in turn."""
    rng = np.random.default_rng([SEED, 0])
    vocabulary = _vocabulary()
    chances = 1 / np.arange(1, VOCABULARY + 1)
    ranks_below = np.cumsum(chances / chances.sum())
    for start in range(0, count, _BATCH):
        lengths = 20 + rng.poisson(PASSAGE_WORDS - 20, _BATCH)
        ranks = np.searchsorted(ranks_below, rng.random(int(lengths.sum())))
        words = vocabulary[np.minimum(ranks, VOCABULARY - 1)]
        ends = np.cumsum(lengths)
        for end, length in list(zip(ends, lengths, strict=True))[: count - start]:
            yield words[end - length : end].tolist()


def _vocabulary() -> np.ndarray:
    """Words by rank, all different: stopwords, then made-up ones of two syllables and more."""
    words: dict[str, None] = dict.fromkeys(ENGLISH_STOPWORDS)
    for number in itertools.count(len(_SYLLABLES)):
        if len(words) == VOCABULARY:
            return np.array(list(words), dtype=object)
        word = ""
        while number:
            number, place = divmod(number, len(_SYLLABLES))
            word += _SYLLABLES[place]
        words[word] = None  # already there: "more", "before"
    raise AssertionError
