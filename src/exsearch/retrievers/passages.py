"""A passage store keeps the passages of an index on disk and reads single ones from there.

Passages are numbered from 0 in the order in which they came. Nothing but the memory-mapped tables
is loaded; the store does not search.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from exsearch.errors import DataError, RetrieverError
from exsearch.json_files import parse_json
from exsearch.records import Passage, refuse_text
from exsearch.retrievers import REMEDY
from exsearch.retrievers.arrays import hash_text, map_array, write_array
from exsearch.runs import written

_TEXTS = "passages.jsonl"
_OFFSETS = "passages.offsets.npy"  # (passages + 1,) where each line begins; the last is the end
_IDS = "passages.ids.npy"  # (passages,) hashes of the ids, sorted
_NUMBERS = "passages.numbers.npy"  # (passages,) the passage number of each hash


def write_passages(
    passages: Iterable[Passage],
    folder: Path,
    before: tuple[PassageStore, np.ndarray] | None = None,
) -> Iterator[Passage]:
    """Write passages into an index folder, and hand each on once it is written.

    The tables are written after the last passage was taken.

    Args:
        passages: The corpus; it is read once.
        folder: The index folder.
        before: A store whose passages come first, without being handed on, and which of them do,
            bool (passages,).

    Raises:
        DataError: an id comes twice, or there is no passage.
    """
    offsets, hashes = array("q", [0]), array("Q")
    with written(folder / _TEXTS) as file:
        if before:
            store, kept = before
            for start, stop in np.flatnonzero(np.diff(kept, prepend=False, append=False)).reshape(
                -1, 2
            ):
                file.write(store.lines(start, stop))
            offsets.frombytes(np.cumsum(np.diff(store.offsets)[kept]).tobytes())
            in_order = np.empty_like(store.hashes)
            in_order[store.numbers] = store.hashes
            hashes.frombytes(in_order[kept].tobytes())
        for passage in passages:
            line = json.dumps(passage.fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            hashes.append(hash_text(passage.id))
            yield passage
    if not hashes:
        raise DataError("the corpus is empty: no passage to index")
    ids = np.frombuffer(hashes, dtype=np.uint64)
    numbers = np.argsort(ids, kind="stable")
    write_array(folder / _OFFSETS, np.frombuffer(offsets, dtype=np.int64))
    write_array(folder / _IDS, ids[numbers])
    write_array(folder / _NUMBERS, numbers.astype(np.int64))
    _check_distinct(PassageStore(folder))


def _check_distinct(store: PassageStore) -> None:
    """Refuse an id that comes twice: of equal hashes, side by side, the passages are compared."""
    for place in np.flatnonzero(store.hashes[1:] == store.hashes[:-1]):
        first, second = (int(n) for n in store.numbers[place : place + 2])
        if store[first].id == store[second].id:
            message = f'the id "{store[first].id}" comes twice (passages {first + 1}, {second + 1})'
            raise DataError(f"{message}; each passage needs an id of its own")


class PassageStore:
    """The passages of an index folder, by number or by id.

    Args:
        folder: The index folder that `write_passages` filled.

    Attributes:
        offsets: int64 (passages + 1,), the byte where each line begins; the last is the end.
        hashes: uint64 (passages,), hashes of the ids, sorted.
        numbers: int64 (passages,), the number of the passage that each hash belongs to.

    Raises:
        OSError, ValueError: a file is missing or not what it should be.
    """

    def __init__(self, folder: Path):
        self.offsets = map_array(folder / _OFFSETS)
        self.hashes = map_array(folder / _IDS)
        self.numbers = map_array(folder / _NUMBERS)
        with (folder / _TEXTS).open("rb") as file:
            self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        sizes = {len(self.offsets) - 1, len(self.hashes), len(self.numbers)}
        if len(sizes) != 1 or int(self.offsets[-1]) != len(self._texts):
            raise ValueError(f"the tables of {folder / _TEXTS} do not fit it")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Passage:
        fields = parse_json(self._texts[self.offsets[number] : self.offsets[number + 1]])
        url = fields.get("url", "")
        return Passage(id=fields["id"], title=fields["title"], text=fields["text"], url=url)

    def lines(self, start: int, stop: int) -> memoryview:
        """The bytes of the passages with the numbers from `start` up to `stop`, a line each."""
        return memoryview(self._texts)[self.offsets[start] : self.offsets[stop]]

    def number(self, passage_id: str) -> int | None:
        """The number of the passage with this id, or None."""
        wanted = np.uint64(hash_text(passage_id))
        first = np.searchsorted(self.hashes, wanted, side="left")
        end = np.searchsorted(self.hashes, wanted, side="right")
        for number in self.numbers[first:end]:
            if self[number].id == passage_id:
                return int(number)
        return None

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, in their order; None for an unknown id.

        Raises:
            RetrieverError: a passage can't be read.
            TypeError: `ids` is one text.
        """
        refuse_text("ids", ids)
        try:
            numbers = [self.number(id_) for id_ in ids]
            return [None if number is None else self[number] for number in numbers]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise RetrieverError(f"a passage can't be read: {error}; {REMEDY}") from error
