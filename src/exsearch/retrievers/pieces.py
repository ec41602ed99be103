"""A piece says how often words occur in some passages; merged, pieces become scored postings.

A piece is small enough for memory. New passages bring theirs, and an index that exists gives its
own, so that passages are added and removed without reading the others again.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from exsearch.retrievers import postings as names
from exsearch.retrievers.analyser import Analyser
from exsearch.retrievers.arrays import hash_text, map_array, scratch_array, write_array
from exsearch.retrievers.postings import Postings

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]  # words, passages, counts; sorted in this order

# What a search does not need, but a change of the index does:
_COUNTS = "postings.counts.npy"  # unsigned (postings,), how often the passage holds the word
_LENGTHS = "passages.lengths.npy"  # int32 (passages,), the number of words of each

CHUNK = 2_000_000  # words or postings that are worked on at a time; about 50 bytes each
_REMEMBERED = 2_000_000  # chunks of text whose words are kept in memory


class _Numbers(dict[str, bytes]):
    """The numbers of a chunk's words as bytes of int32; ~number where lengths do not count it."""

    def __init__(self, analyser: Analyser):
        super().__init__()
        self.by_hash: dict[int, int] = {}
        self._analyser = analyser

    def __missing__(self, chunk: str) -> bytes:
        words, wholes = self._analyser.analyse(chunk)
        if len(self) >= _REMEMBERED:
            self.clear()
        numbers = [*map(self._number, words), *(~self._number(whole) for whole in wholes)]
        self[chunk] = found = array("i", numbers).tobytes()
        return found

    def _number(self, word: str) -> int:
        return self.by_hash.setdefault(hash_text(word), len(self.by_hash))


class NewPieces:
    """The pieces of passages that come one by one, on disk.

    Args:
        file: An empty file to write and read, which whoever opened it closes and deletes.
        analyser: The settings of the analyser.
        title_weight: The number of times that each word of a title counts.
        first: The number of the first passage.

    Attributes:
        lengths: The number of words of each passage so far.
    """

    def __init__(self, file: IO[bytes], analyser: dict[str, Any], title_weight: int, first: int):
        self.lengths = array("i")
        self._analyser, self._title_weight = Analyser(**analyser), title_weight
        self._numbers = _Numbers(self._analyser)
        self._file, self._sizes = file, array("q")
        self._first = first  # passage of the piece that is begun
        self._words, self._ends = array("i"), array("q", [0])  # of that piece

    def append(self, title: str, text: str) -> None:
        """Add the words of the next passage."""
        self._words.frombytes(self._of(title) * self._title_weight + self._of(text))
        self._ends.append(len(self._words))
        if len(self._words) >= CHUNK:
            self.flush()

    def _of(self, text: str) -> bytes:
        return b"".join(map(self._numbers.__getitem__, self._analyser.chunks(text)))

    def flush(self) -> None:
        """Write the piece that is begun, and wait until all are on the disk."""
        passages = len(self._ends) - 1
        words = np.frombuffer(self._words, dtype=np.int32).astype(np.int64)
        rows = np.repeat(np.arange(passages), np.diff(np.frombuffer(self._ends, dtype=np.int64)))
        self.lengths.extend(np.bincount(rows[words >= 0], minlength=passages).tolist())
        keys = np.where(words >= 0, words, ~words) * max(passages, 1) + rows
        keys, counts = np.unique(keys, return_counts=True)
        words, rows = np.divmod(keys, max(passages, 1))
        for column in (words, rows + self._first, counts):
            self._file.write(column.astype(np.int32).data)
        self._file.flush()
        self._sizes.append(len(keys))
        self._first += passages
        self._words, self._ends = array("i"), array("q", [0])

    @property
    def hashes(self) -> np.ndarray:
        """The hashes of the words by their numbers, uint64 (words,)."""
        return np.fromiter(self._numbers.by_hash, dtype=np.uint64)

    def __len__(self) -> int:
        return sum(self._sizes)

    def __iter__(self) -> Iterator[Piece]:
        self._file.seek(0)
        for size in self._sizes:
            words, rows, counts = np.fromfile(self._file, np.int32, 3 * size).reshape(3, size)
            yield words, rows, counts


class KeptPieces:
    """The pieces of those passages of an index that stay, which are numbered anew.

    Args:
        folder: The index folder.
        postings: Its postings.
        kept: Which of its passages stay, bool (passages,).

    Attributes:
        lengths: The number of words of each passage that stays, int32 (passages,).
    """

    def __init__(self, folder: Path, postings: Postings, kept: np.ndarray):
        self.hashes = postings.hashes
        self.lengths = map_array(folder / _LENGTHS)[kept]
        self._counts = map_array(folder / _COUNTS)
        self._postings = postings
        self._renumbered = np.where(kept, np.cumsum(kept) - 1, -1)

    def __len__(self) -> int:
        return len(self._counts)

    def __iter__(self) -> Iterator[Piece]:
        for start in range(0, len(self), CHUNK):
            span = slice(start, min(start + CHUNK, len(self)))
            places = np.arange(span.start, span.stop)
            words = np.searchsorted(self._postings.starts, places, side="right") - 1
            numbers = self._renumbered[self._postings.numbers[span]]
            kept = numbers >= 0
            yield words[kept], numbers[kept], self._counts[span][kept]


def write_postings(
    folder: Path,
    sources: Sequence[KeptPieces | NewPieces],
    lengths: np.ndarray,
    k1: float,
    b: float,
    *,
    disable_progress: bool | None,
) -> None:
    """Merge pieces into `Postings`, with BM25 scores; the same pieces give the same bytes.

    score(word, passage) = idf tf / (tf + k1 (1 - b + b length / mean length)) with
    idf = log(1 + (N - df + 0.5) / (df + 0.5)) for N passages, df of which hold the word, tf times
    in this one; Kamphuis et al. 2020, "BM25, accurate Lucene". Lengths are in words.

    Args:
        folder: The folder to write.
        sources: The pieces, in the order of their passages.
        lengths: The number of words of each passage, int32 (passages,).
        k1: How slowly further occurrences of a word add less.
        b: How much longer passages are marked down, from 0 to 1.
        disable_progress: True hides the progress bar, None shows it on a terminal only.
    """
    hashes = np.unique(np.concatenate([source.hashes for source in sources]))
    ranks = [np.searchsorted(hashes, source.hashes) for source in sources]
    size = 2 * sum(map(len, sources))
    with (
        tqdm(total=size, desc="merge", unit=" postings", disable=disable_progress) as bar,
        tempfile.TemporaryDirectory(dir=folder) as scratch,
    ):

        def pieces() -> Iterator[Piece]:
            for source, rank in zip(sources, ranks, strict=True):
                for words, rows, counts in source:
                    yield rank[words], rows, counts
                    bar.update(len(words))

        frequencies, most = np.zeros(len(hashes), dtype=np.int64), 1
        for words, _, counts in pieces():
            frequencies += np.bincount(words, minlength=len(frequencies))
            most = max(most, int(counts.max(initial=1)))
        used = frequencies > 0  # the last passage of a word may be gone
        hashes, frequencies = hashes[used], frequencies[used]
        ranks = [(np.cumsum(used) - 1)[rank] for rank in ranks]
        starts = np.concatenate([[0], np.cumsum(frequencies)])
        files = {
            name: scratch_array(Path(scratch) / name, dtype, int(starts[-1]))
            for name, dtype in (
                (names.NUMBERS, np.int32),
                (names.SCORES, np.float32),
                (_COUNTS, np.min_scalar_type(most)),
            )
        }
        idf = np.log1p((len(lengths) - frequencies + 0.5) / (frequencies + 0.5))
        norms = k1 * (1 - b + b * lengths / lengths.mean())
        tops = np.zeros(len(hashes), dtype=np.float32)
        heads = starts[:-1].copy()  # where the next posting of each word goes
        for words, rows, counts in pieces():
            firsts = np.flatnonzero(np.diff(words, prepend=-1))
            sizes = np.diff(firsts, append=len(words))
            places = heads[words] + np.arange(len(words)) - np.repeat(firsts, sizes)
            scores = (idf[words] * counts / (counts + norms[rows])).astype(np.float32)
            for file, values in zip(files.values(), (rows, scores, counts), strict=True):
                file[places] = values
            own = words[firsts]
            heads[own] += sizes
            tops[own] = np.maximum(tops[own], np.maximum.reduceat(scores, firsts))
        files |= {names.HASHES: hashes, names.STARTS: starts, names.TOPS: tops, _LENGTHS: lengths}
        for name, values in files.items():
            write_array(folder / name, values)
    Postings(folder)  # what can't be opened never gets a manifest
