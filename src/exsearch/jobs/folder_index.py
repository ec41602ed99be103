"""A folder index is a BM25 index of a folder of texts that follows what changes in the folder.

It is kept in the user's cache, with a hash of each file, so that only files that were added or
changed are read again and those that went are removed. It searches nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exsearch
from exsearch.data.corpus import read_text, text_files
from exsearch.data.documents import Documents
from exsearch.data.json_lines import clean
from exsearch.errors import DataError, IndexDamagedError
from exsearch.json_files import check_shape, read_json
from exsearch.records import Passage
from exsearch.retrievers import build_index, update_index
from exsearch.retrievers.bm25 import Bm25Retriever
from exsearch.runs import (
    cache_folder,
    locked,
    make_folder,
    remove_folder,
    sha256_file,
    write_atomic,
)

logger = logging.getLogger(__name__)

_FACTS = "files.json"  # beside the index: what it was made of
_INDEX = "index"
_SHAPE: dict[str, type] = {"sha256": str, "passages": int}


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """A folder's index as it stands now, and what was done for it.

    Attributes:
        index: The index, for `open_retriever`.
        files: The number of files in it.
        passages: The number of passages in it.
        added: The number of files that were new.
        changed: The number of files with another content than before.
        removed: The number of files that are no longer there or can't be read any more.
        unread: The files that could not be read and are passed over.
    """

    index: Path
    files: int
    passages: int
    added: int
    changed: int
    removed: int
    unread: tuple[Path, ...] = ()


def index_folder(
    folder: str | Path, *, cache: Path | None = None, progress: bool = True
) -> FolderIndex:
    """Index a folder of texts and documents, or take over what changed in it since.

    The files are those that `read_corpus` reads in a folder. One that can't be read is passed over
    with a warning. A process that indexes the same folder meanwhile is waited for, and what is
    damaged in the cache is made anew.

    Args:
        folder: The folder.
        cache: The folder of all such indexes; None takes `folders` in the user's cache
            (`EXSEARCH_CACHE`).
        progress: Whether a terminal shows a progress bar.

    Raises:
        DataError: no such folder, or no text in it.

    Example:
        >>> place = index_folder("notes").index  # doctest: +SKIP
        >>> exsearch.Searcher("runs/mine", place).ask("Who wrote Dune?")  # doctest: +SKIP
    """
    source = Path(folder)
    if source.exists() and not source.is_dir():
        raise DataError("a file; name the folder that it is in", file=source)
    digest = hashlib.sha256(str(source.resolve()).encode(errors="surrogateescape")).hexdigest()
    place = (cache or cache_folder() / "folders") / digest[:16]
    make_folder(place.parent)
    place.mkdir(mode=0o700, exist_ok=True)  # it holds what the files say
    with locked(place, wait=True):
        return _Update(source, place).run(progress)


class _Update:
    """One update of a folder's index, by the process that holds it.

    Args:
        source: The folder.
        place: The folder in the cache.

    Attributes:
        files: The hash and the number of passages of each file in the index, by its name.
        before: The same, as it was.
        unread: The files that could not be read.
    """

    def __init__(self, source: Path, place: Path):
        self._source, self._index, self._facts = source, place / _INDEX, place / _FACTS
        self.before = self._read_facts()
        self.files: dict[str, tuple[str, int]] = {}
        self.unread: list[Path] = []

    def run(self, progress: bool) -> FolderIndex:
        """Bring the index up to date."""
        passages = self._passages()
        first = next(passages, None)  # from here on `files` has all that stays as it was
        gone = [name for name, kept in self.before.items() if self.files.get(name) != kept]
        ids = [f"{name}#{n}" for name in gone for n in range(1, self.before[name][1] + 1)]
        new = itertools.chain([first] if first else [], passages)
        if not self.before:
            if first is None:
                raise DataError("no file in this folder has a text to read", file=self._source)
            self._clear()
            build_index(new, self._index, progress=progress)
        elif first or ids:
            update_index(new, self._index, remove=ids, progress=progress)
        if self.files != self.before:
            self._write_facts()
        changed = sum(name in self.files for name in gone)
        return FolderIndex(
            self._index,
            files=len(self.files),
            passages=sum(count for _, count in self.files.values()),
            added=len(self.files.keys() - self.before.keys()),
            changed=changed,
            removed=len(gone) - changed,
            unread=tuple(self.unread),
        )

    def _passages(self) -> Iterator[Passage]:
        """The passages of files that are new or changed; before the first, all files are hashed."""
        pending: list[tuple[Path, str, str]] = []
        for file in text_files(self._source):
            name = clean(file.relative_to(self._source).as_posix())
            try:
                digest = sha256_file(file)  # before it is read: what changes meanwhile shows later
            except OSError as error:
                self._pass_over(file, f"{file}: can't be read: {error.strerror or error}")
                continue
            kept = self.before.get(name)
            if kept and kept[0] == digest:
                self.files[name] = kept
            else:
                pending.append((file, name, digest))
        with Documents() as documents:
            for file, name, digest in pending:
                try:
                    passages = list(read_text(file, name, documents))
                except DataError as error:
                    self._pass_over(file, str(error))
                    continue
                self.files[name] = digest, len(passages)
                yield from passages

    def _pass_over(self, file: Path, why: str) -> None:
        logger.warning("%s: passed over", why)
        self.unread.append(file)

    def _read_facts(self) -> dict[str, tuple[str, int]]:
        """What the index was made of; nothing where that can't be relied on."""
        if not self._facts.exists():
            return {}
        try:
            facts = read_json(self._facts, IndexDamagedError, version=str, index=str, files=dict)
            if facts["version"] != exsearch.__version__:  # it may cut texts in another way
                return {}
            if Bm25Retriever.open(self._index, hashes=True).identity() != facts["index"]:
                return {}  # a process was killed between the two
            found = [(name, check_shape(f, _SHAPE)) for name, f in facts["files"].items()]
        except (IndexDamagedError, ValueError) as error:
            logger.warning("%s; the folder is indexed anew", error)
            return {}
        return {name: (f["sha256"], f["passages"]) for name, f in found}

    def _write_facts(self) -> None:
        files = {n: {"sha256": digest, "passages": c} for n, (digest, c) in self.files.items()}
        facts: dict[str, Any] = {"folder": str(self._source.resolve())}
        identity = Bm25Retriever.open(self._index).identity()
        facts |= {"version": exsearch.__version__, "index": identity, "files": files}
        write_atomic(self._facts, json.dumps(facts, indent=1))

    def _clear(self) -> None:
        """Remove what stands in the index's place, which can't be relied on."""
        if self._index.is_symlink() or self._index.is_file():
            self._index.unlink()
        remove_folder(self._index)
