"""An array file is written so that a disk which is full or fails is an error, never a torn file.

`numpy.save` leaves some errors unseen, and a map of a file on a full disk ends the process. It does
not know what the arrays mean.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from exsearch.runs import written


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `numpy.save` does, byte by byte the same, and on the disk when it returns.

    Raises:
        OSError: the disk is full or fails.
    """
    with written(path) as file:
        stream: Any = SimpleNamespace(write=file.write)  # given a file, numpy writes past it
        np.save(stream, array, allow_pickle=False)


def scratch_array(path: Path, dtype: type[np.generic], length: int) -> np.ndarray:
    """A new array that is a file, shape (length,), for which the disk has put room aside.

    Raises:
        OSError: the disk has no room for it.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, length * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=(length,))
