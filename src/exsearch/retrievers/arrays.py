"""An array file is written so that a disk which is full or fails is an error, never a torn file.

`numpy.save` leaves some errors unseen, and a map of a file on a full disk ends the process. Texts
stand in arrays as numbers. It does not know what the arrays mean.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from exsearch.runs import written


def hash_text(text: str) -> int:
    """A number that stands for a text: 8 bytes of BLAKE2b."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `numpy.save` does, byte by byte the same, and on the disk when it returns.

    Raises:
        OSError: the disk is full or fails.
    """
    with written(path) as file:
        stream: Any = SimpleNamespace(write=file.write)  # given a file, numpy writes past it
        np.save(stream, array, allow_pickle=False)


def map_array(file: Path) -> np.ndarray:
    """The array in a file; a plain one, since slices of a `np.memmap` are slow to make.

    Raises:
        OSError, ValueError: the file can't be read, or is no array.
    """
    try:
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except OSError:
        raise
    except Exception as fault:  # numpy's reader of a damaged head raises whatever it meets
        raise ValueError(f"{file.name} is no array ({fault})") from fault


def scratch_array(path: Path, dtype: DTypeLike, length: int) -> np.ndarray:
    """A new array that is a file, shape (length,), for which the disk has put room aside.

    Raises:
        OSError: the disk has no room for it.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, length * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=(length,))
