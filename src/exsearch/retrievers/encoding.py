"""Encoding turns a store of passages into a file of vectors, and goes on after a kill.

Chunks of vectors wait in a folder beside the index until it is whole. Each is named by a hash of
the model and of the texts that it was made from, so another corpus or model never takes it over.
It searches nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exsearch.errors import ConfigError
from exsearch.progress import Bars
from exsearch.retrievers.encoder import Encoder, passage_text
from exsearch.retrievers.passages import PassageStore
from exsearch.runs import locked, refuse_link, remove_folder, write_atomic, written

VECTORS_FILE = "vectors.bin"  # (passages, dimensions), row by row, little-endian
CHUNK = 1024  # passages that are encoded and committed together


@contextlib.contextmanager
def encode_passages(
    store: PassageStore, encoder: Encoder, dtype: str, folder: Path, out: Path, bars: Bars
) -> Iterator[float]:
    """Write the vectors of all passages, and give the length of the longest one.

    What was finished is kept beside `out` until the block ends well, for the next that builds it.

    Args:
        store: The passages.
        encoder: The model.
        dtype: The type of the values that are written.
        folder: Where the vectors are written.
        out: The index that is being built.
        bars: Opens the progress bar.

    Raises:
        ModelError: the model gives what is no number.
        RunError: another process builds the same index.
    """
    kept = out.with_name(f".{out.name}.vectors")
    refuse_link(kept)
    with locked(kept):
        try:
            yield _write(store, encoder, dtype, folder / VECTORS_FILE, kept, bars)
        except BaseException:
            if not any(kept.glob("*.chunk")):
                remove_folder(kept)
            raise
        remove_folder(kept)


def _write(
    store: PassageStore, encoder: Encoder, dtype: str, file: Path, kept: Path, bars: Bars
) -> float:
    longest = 0.0
    with written(file) as out, bars.open("encode", len(store), "passage") as bar:
        for start in range(0, len(store), CHUNK):
            numbers = range(start, min(start + CHUNK, len(store)))
            texts = [passage_text(store[number]) for number in numbers]
            rows, new = _chunk(texts, encoder, np.dtype(dtype).newbyteorder("<"), kept)
            out.write(rows.tobytes())
            lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
            longest = max(longest, float(lengths.max()))
            if not (new or bar.disable):
                bar.initial += len(rows)  # the rate is of what is encoded now
            bar.update(len(rows))
    return longest


def _chunk(texts: list[str], encoder: Encoder, dtype: Any, kept: Path) -> tuple[np.ndarray, bool]:
    """The vectors of some texts, and whether they were encoded only now."""
    facts = json.dumps([encoder.identity, str(dtype), texts])
    name = hashlib.blake2b(facts.encode(), digest_size=20).hexdigest()
    file, shape = kept / f"{name}.chunk", (len(texts), encoder.dimensions)
    if file.is_file() and file.stat().st_size == dtype.itemsize * shape[0] * shape[1]:
        return np.fromfile(file, dtype).reshape(shape), False
    with np.errstate(over="ignore"):
        rows = encoder.passages(texts).astype(dtype)
    if not np.isfinite(rows).all():
        raise ConfigError(f"a vector holds a value beyond {dtype.name}; build with dtype=float32")
    write_atomic(file, rows.tobytes())
    return rows, True
