"""A passage store keeps the passages of an index on disk and reads single ones from there.

Passages are numbered from 0 in the order in which they came. Nothing but the memory-mapped tables
is loaded; the store does not search.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from exsearch.errors import DataError
from exsearch.json_files import parse_json
from exsearch.records import Passage
from exsearch.retrievers.arrays import write_array
from exsearch.runs import written

_TEXTS = "passages.jsonl"
_OFFSETS = "passages.offsets.npy"  # (passages + 1,) where each line begins; the last is the end
_IDS = "passages.ids.npy"  # (passages,) hashes of the ids, sorted
_NUMBERS = "passages.numbers.npy"  # (passages,) the passage number of each hash


def _hash_id(passage_id: str) -> int:
    digest = hashlib.blake2b(passage_id.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def write_passages(passages: Iterable[Passage], folder: Path) -> Iterator[Passage]:
    """Write passages into an index folder, and hand each on once it is written.

    The tables are written after the last passage was taken.

    Args:
        passages: The corpus; it is read once.
        folder: The index folder.

    Raises:
        DataError: an id comes twice, or there is no passage.
    """
    offsets, hashes = array("q", [0]), array("Q")
    with written(folder / _TEXTS) as file:
        for passage in passages:
            fields = {"id": passage.id, "title": passage.title, "text": passage.text}
            line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            hashes.append(_hash_id(passage.id))
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
        self.offsets = np.load(folder / _OFFSETS, mmap_mode="r", allow_pickle=False)
        self.hashes = np.load(folder / _IDS, mmap_mode="r", allow_pickle=False)
        self.numbers = np.load(folder / _NUMBERS, mmap_mode="r", allow_pickle=False)
        with (folder / _TEXTS).open("rb") as file:
            self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        sizes = {len(self.offsets) - 1, len(self.hashes), len(self.numbers)}
        if len(sizes) != 1 or int(self.offsets[-1]) != len(self._texts):
            raise ValueError(f"the tables of {folder / _TEXTS} do not fit it")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Passage:
        fields = parse_json(self._texts[self.offsets[number] : self.offsets[number + 1]])
        return Passage(id=fields["id"], title=fields["title"], text=fields["text"])

    def find(self, passage_id: str) -> Passage | None:
        """The passage with this id, or None."""
        wanted = np.uint64(_hash_id(passage_id))
        first = np.searchsorted(self.hashes, wanted, side="left")
        end = np.searchsorted(self.hashes, wanted, side="right")
        for number in self.numbers[first:end]:
            passage = self[int(number)]
            if passage.id == passage_id:
                return passage
        return None
