"""Postings say which passages hold a word, and what each scores for it; a search adds them up.

They are memory-mapped arrays: opening reads none of them, and a search only what it needs. They do
not know where scores come from.

Glossary:
    posting  A passage that holds a word, with its score for the word.
    top      The highest score of a word's postings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exsearch.json_files import parse_json
from exsearch.retrievers.arrays import hash_text, map_array

HASHES = "words.npy"  # uint64 (words,), hashes of the words, sorted
TOPS = "words.tops.npy"  # float32 (words,), the top of each
STARTS = "postings.starts.npy"  # int64 (words + 1,), where those of each word begin; the last ends
NUMBERS = "postings.npy"  # int32 (postings,), their passages: of each word in ascending order
SCORES = "postings.scores.npy"  # float32 (postings,)
FIRST_VERSION = ("indptr.csc.index.npy", "indices.csc.index.npy", "data.csc.index.npy")

_AT_ONCE = 4096  # postings that are added up in less time than it takes to look which are needed
_SLACK = 1 - 1e-6  # scores are compared as float32


class Postings:
    """The postings in a folder, open for searching. Threads may share them.

    Args:
        folder: The folder that `write_postings` filled.

    Attributes:
        starts: int64 (words + 1,), where the postings of each word begin; the last is the end.
        numbers: int32 (postings,), their passages.

    Raises:
        OSError, ValueError, KeyError: a file is missing or not what it should be.
    """

    _FILES = (STARTS, NUMBERS, SCORES)

    def __init__(self, folder: Path):
        self.starts, self.numbers, self._scores = (map_array(folder / f) for f in self._FILES)
        sizes = {len(self._scores), len(self.numbers), int(self.starts[-1])}
        if len(sizes) != 1 or len(self.starts) != self._read_words(folder) + 1:
            raise ValueError(f"the files of {folder} do not belong together")

    def _read_words(self, folder: Path) -> int:
        """Read the words, and return their number."""
        self.hashes, self._tops = map_array(folder / HASHES), map_array(folder / TOPS)
        return len(self.hashes) if len(self.hashes) == len(self._tops) else -1

    def _find(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The places among the given words of those that some passage holds, and their numbers."""
        wanted = np.array([hash_text(word) for word in words], dtype=np.uint64)
        found = np.searchsorted(self.hashes, wanted)
        found[found == len(self.hashes)] = 0
        (held,) = np.nonzero(self.hashes[found] == wanted)
        return held, found[held]

    def _top(self, words: np.ndarray) -> np.ndarray:
        return self._tops[words]

    def best(self, words: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best passages that hold one of the words, highest score first, then lowest number.

        The rare words say which passages may be among the best. Once the frequent ones can't lift
        any other among them, they are only looked up for these: Turtle and Flood 1995, "Query
        evaluation: strategies and optimizations" (MaxScore).

        Args:
            words: The words of a query; one that comes twice counts twice.
            k: The most passages.

        Returns:
            The numbers and the scores of the passages: two arrays of equal length, at most k.
        """
        asked = Counter(words)
        held, found = self._find(list(asked))
        times = np.array(list(asked.values()), dtype=np.float64)[held]
        starts, ends = self.starts[found], self.starts[found + 1]
        order = np.argsort(ends - starts, kind="stable")
        tops = (self._top(found) * times)[order]
        rest = [*np.cumsum(tops[::-1])[::-1].tolist(), 0.0]  # the tops of the words from here on
        columns = (starts[order].tolist(), ends[order].tolist(), times[order].tolist())
        spans = list(zip(*columns, strict=True))
        numbers, sums = np.empty(0, np.int32), np.empty(0)
        done, floor = 0, 0.0  # no passage below the floor is among the best
        while done < len(spans) and (len(sums) < k or floor <= rest[done]):
            parts, size = [(numbers, sums)], -max(_AT_ONCE, len(sums), k)
            while done < len(spans) and (size < 0 or rest[0] <= 2 * rest[done]):
                start, end, count = spans[done]
                scores = self._scores[start:end]
                parts.append((self.numbers[start:end], scores if count == 1 else scores * count))
                done, size = done + 1, size + end - start
            numbers, sums = _add_up(parts)
            floor = _floor(sums, k)
        for place in range(done, len(spans)):
            kept = sums >= floor - rest[place]
            numbers, sums = numbers[kept], sums[kept]
            start, end, count = spans[place]
            own = self.numbers[start:end]
            at = np.minimum(own.searchsorted(numbers), len(own) - 1)
            sums += np.where(own[at] == numbers, self._scores[start:end][at], 0.0) * count
            floor = _floor(sums, k)
        kept = sums >= floor
        numbers, scores = numbers[kept], sums[kept].astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:k]
        return numbers[best], scores[best]


class FirstPostings(Postings):
    """The postings of version 1, which bm25s can load, too: the words stand in a JSON file."""

    _FILES = FIRST_VERSION

    def _read_words(self, folder: Path) -> int:
        self._vocab = parse_json((folder / "vocab.index.json").read_bytes())
        return len(self._vocab)

    def _find(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        held = [place for place, word in enumerate(words) if word in self._vocab]
        found = [self._vocab[words[place]] for place in held]
        return np.array(held, dtype=np.int64), np.array(found, dtype=np.int64)

    def _top(self, words: np.ndarray) -> np.ndarray:
        spans = zip(self.starts[words], self.starts[words + 1], strict=True)
        return np.array([self._scores[start:end].max(initial=0) for start, end in spans])


def _add_up(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Passages in ascending order, each once, and the sums of their scores."""
    numbers = np.concatenate([numbers for numbers, _ in parts])
    order = np.argsort(numbers, kind="stable")  # merges runs, quicker than it looks
    numbers = numbers[order]
    new = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    (firsts,) = new.nonzero()  # the first posting of each passage
    scores = np.concatenate([scores for _, scores in parts], dtype=np.float64)
    return numbers[firsts], np.add.reduceat(scores[order], firsts)


def _floor(sums: np.ndarray, k: int) -> float:
    """A little less than the k-th highest sum; 0 where there are fewer."""
    if len(sums) < k:
        return 0.0
    return float(np.partition(sums, len(sums) - k)[len(sums) - k]) * _SLACK
