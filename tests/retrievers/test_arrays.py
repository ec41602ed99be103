"""An array file is as numpy writes it, or an error says why not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from exsearch.retrievers.arrays import scratch_array, write_array


@pytest.mark.parametrize("length", [0, 1, 5, 3_000_000])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.uint64])
def test_the_bytes_are_numpy_s_own(tmp_path: Path, dtype: type, length: int):
    array = np.arange(length, dtype=dtype)
    expected = io.BytesIO()
    np.save(expected, array, allow_pickle=False)
    write_array(tmp_path / "a.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == expected.getvalue()
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r", allow_pickle=False), array)


@pytest.mark.parametrize("length", [1, 3_000_000])
def test_a_full_disk_is_an_error(length: int):
    with pytest.raises(OSError, match="No space left"):
        write_array(Path("/dev/full"), np.zeros(length))


def test_the_disk_has_put_room_aside_for_a_scratch_array(tmp_path: Path):
    array = scratch_array(tmp_path / "a", np.float32, 300_000)
    assert (tmp_path / "a").stat().st_blocks * 512 >= array.nbytes == 1_200_000
    array[:] = 1
    assert array.sum() == 300_000
