"""A BM25 index scores passages by the words that they share with a query; rare words count more.

The arithmetic is Lucene's variant, where every score is above 0, the words are the analyser's, and
all files are memory-mapped. It uses no model and reads no corpus format.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from exsearch.errors import ConfigError, DataError, IndexDamagedError, RetrieverError
from exsearch.json_files import read_json
from exsearch.records import Passage
from exsearch.retrievers import FACTS_FILE, REMEDY
from exsearch.retrievers.analyser import Analyser
from exsearch.retrievers.base import Indexable, refuse_search
from exsearch.retrievers.passages import PassageStore, write_passages
from exsearch.retrievers.pieces import KeptPieces, NewPieces, write_postings
from exsearch.retrievers.postings import FirstPostings, Postings
from exsearch.runs import (
    MANIFEST,
    locked,
    new_folder,
    read_steadily,
    refuse_other_content,
    sha256_file,
    verify_folder,
)

K1 = 1.2
B = 0.75
TITLE_WEIGHT = 2

_VERSION = 2  # version 1 can be searched, too
_HASHED_BYTES = 30_000_000  # a larger index is only checked by size, unless asked
_QUERY_WORDS = 1024  # a query is cut there, like Lucene's; each word costs time


def build_bm25(
    passages: Iterable[Passage],
    out: Path | str,
    *,
    language: str = "english",
    stopwords: bool = True,
    k1: float = K1,
    b: float = B,
    title_weight: int = TITLE_WEIGHT,
    progress: bool = True,
) -> int:
    """Index passages into the folder `out`, whole or not at all, and return their number.

    Passages and their words go to disk as they come; in memory are the words that differ, some 12
    bytes a passage, and a fixed 100 MB. `postings.Postings` has the formula.

    Args:
        passages: The corpus; it is read once. Blank passages are left out; `retriever.json` says
            how many.
        out: The folder to write.
        language: The language whose Snowball stemmer is used; empty for words as they are.
        stopwords: Whether the frequent words of the language are left out, where a list is known.
        k1: How slowly further occurrences of a word in a passage add less, 0 or more.
        b: How much longer passages are marked down, from 0 (not at all) to 1.
        title_weight: The number of times that each word of a title counts, 0 or more.
        progress: Whether a terminal shows a progress bar, on standard error.

    Raises:
        DataError: no passage, an id that comes twice, no word in any passage.
        ConfigError: `out` exists and is no index, or a parameter is out of range.
    """
    out = Path(out)
    if not (k1 >= 0 and 0 <= b <= 1 and title_weight >= 0):
        given = f"k1={k1}, b={b}, title_weight={title_weight}"
        raise ConfigError(f"{given}: expected k1 >= 0, 0 <= b <= 1, title_weight >= 0")
    settings: dict[str, Any] = {"k1": k1, "b": b, "title_weight": title_weight}
    settings["analyser"] = Analyser.of(language, stopwords).settings()
    refuse_other_content(out, FACTS_FILE, "index")
    return _write(passages, out, settings, None, progress)


def _write(
    passages: Iterable[Passage],
    out: Path,
    settings: dict[str, Any],
    old: tuple[PassageStore, np.ndarray, KeptPieces] | None,
    progress: bool,
) -> int:
    """Write an index with the facts in `settings`: of an old one what is kept, then passages."""
    passages = passages if isinstance(passages, Indexable) else Indexable(passages)
    k1, b, weight = (settings[name] for name in ("k1", "b", "title_weight"))
    lengths = old[2].lengths if old else np.empty(0, np.int32)
    disable = None if progress else True
    with new_folder(out) as folder:
        with (
            tempfile.TemporaryFile(dir=folder) as scratch,
            tqdm(passages, "index", unit=" passages", disable=disable) as bar,
        ):
            new = NewPieces(scratch, settings["analyser"], weight, len(lengths))
            for passage in write_passages(bar, folder, old and old[:2]):
                new.append(passage.title, passage.text)
            new.flush()
            lengths = np.concatenate([lengths, np.frombuffer(new.lengths, np.int32)])
            if not lengths.any():
                raise DataError("no passage has a word to index: only stopwords or signs in all")
            sources = [old[2], new] if old else [new]
            write_postings(folder, sources, lengths, k1, b, disable_progress=disable)
        facts = {"kind": "bm25", "version": _VERSION, "passages": len(lengths)}
        facts |= {"left_out": passages.left_out + settings.get("left_out", 0)}
        facts |= {name: settings[name] for name in ("k1", "b", "title_weight", "analyser")}
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return len(lengths)


class Bm25Retriever:
    """A BM25 index on disk, open for searching; a few threads may share it.

    Args:
        postings: Which passages hold each word.
        store: The passages of the index.
        facts: The content of its `retriever.json`.
        identity: The text that names the index in results.

    Example:
        >>> retriever = Bm25Retriever.open(path)  # doctest: +SKIP
        >>> [passage.title for passage in retriever.search(["Who wrote Dune?"], k=5)[0]]
    """

    def __init__(
        self, postings: Postings, store: PassageStore, facts: dict[str, Any], identity: str
    ):
        self._postings, self._store = postings, store
        self._facts, self._identity = facts, identity
        self.analyser = Analyser(**facts["analyser"])

    @classmethod
    def open(cls, path: Path | str, *, hashes: bool | None = None) -> Bm25Retriever:
        """Open the index that `build_bm25` wrote.

        Args:
            path: The index folder. The sizes of its files are always checked by its manifest.
            hashes: Whether the content of the files is checked, too; None checks an index of less
                than 30 MB.

        Raises:
            IndexDamagedError: the folder or a file is missing or altered.
        """
        path = Path(path)
        return read_steadily(path, lambda: cls._open(path, hashes))

    @classmethod
    def _open(cls, path: Path, hashes: bool | None) -> Bm25Retriever:
        if hashes is None:
            size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
            hashes = size < _HASHED_BYTES
        verify_folder(path, IndexDamagedError, hashes=hashes, remedy=REMEDY)
        try:
            facts = read_json(path / FACTS_FILE, IndexDamagedError, REMEDY, analyser=dict)
            if facts["kind"] != "bm25" or facts["version"] not in (1, _VERSION):
                raise ValueError(f"kind {facts['kind']!r}, version {facts['version']}")
            first = facts["version"] == 1
            postings = FirstPostings(path / "bm25s") if first else Postings(path)
            identity = f"sha256:{sha256_file(path / MANIFEST)}"
            retriever = cls(postings, PassageStore(path), facts, identity)
            if facts["passages"] != len(retriever):
                raise ValueError("its files do not belong together")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            message = f"{path}: not an index that this exsearch can read ({error}); {REMEDY}"
            raise IndexDamagedError(message) from error
        return retriever

    def __len__(self) -> int:
        return len(self._store)

    build = staticmethod(build_bm25)  # it has more settings than a `RetrieverKind` asks for

    @classmethod
    def update(
        cls,
        passages: Iterable[Passage],
        place: Path | str,
        *,
        remove: Iterable[str] = (),
        progress: bool = True,
    ) -> int:
        """Remove passages from an index, add others after the rest, and return how many there are.

        The index becomes what one built anew over these passages would be, byte by byte, but only
        the new passages are analysed. It changes in one step; what is open stays as it was.

        Args:
            passages: The passages to add.
            place: The index folder.
            remove: The ids of the passages to remove; one of them may be added again.
            progress: Whether a terminal shows a progress bar.

        Raises:
            DataError: an id that is not there to remove, or is there already; nothing is left.
            ConfigError: an index of version 1, or `place` holds other files.
            IndexDamagedError: the index is missing or damaged.
            RunError: another process changes this index.
        """
        path = Path(place)
        refuse_other_content(path, FACTS_FILE, "index")
        with locked(path.parent, path.name):
            old = cls.open(path, hashes=True)
            if old._facts["version"] == 1:
                raise ConfigError(f"{path}: of version 1, which can be searched only; {REMEDY}")
            kept = np.ones(len(old), dtype=bool)
            for passage_id in remove:
                number = old._store.number(passage_id)
                if number is None:
                    raise DataError(f'{path} has no passage "{passage_id}"; nothing was removed')
                kept[number] = False
            pieces = KeptPieces(path, old._postings, kept)
            return _write(passages, path, old._facts, (old._store, kept, pieces), progress)

    def identity(self) -> str:
        """The hash of the index's manifest, which holds the hash of every other file."""
        return self._identity

    def passages(self) -> Iterator[Passage]:
        """All passages of the index, in the order of the corpus."""
        return (self._store[number] for number in range(len(self)))

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, in their order, without scores; None for an unknown id.

        Raises:
            RetrieverError: a passage can't be read.
            TypeError: `ids` is one text.
        """
        return self._store.fetch(ids)

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query, best first; of equal scores the earlier in the corpus.

        Only passages that share a word with the query are returned: none for an empty query or one
        of stopwords only. A query is cut after 1,024 words.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query.

        Raises:
            TypeError: `queries` is one text.
            RetrieverError: a passage can't be read.
            ValueError: `k` is below 1.
        """
        refuse_search(queries, k)
        try:
            return [self._search_one(query, k) for query in queries]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise RetrieverError(f"the BM25 search failed: {error}; {REMEDY}") from error

    def _search_one(self, query: str, k: int) -> list[Passage]:
        words = self.analyser.words(query)[:_QUERY_WORDS]
        hits = []
        for number, score in zip(*self._postings.best(words, k), strict=True):
            passage = self._store[number]
            hits.append(dataclasses.replace(passage, score=float(score)))
        return hits
