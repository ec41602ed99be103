"""The hardware is told as this process may use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exsearch import hardware


def test_memory_is_that_of_the_container_where_it_has_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "_LIMITS", (tmp_path / "absent", limit))
    whole = hardware.usable_memory()
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for text, want in (("max\n", whole), ("1048576\n", 1 << 20), (f"{whole * 2}\n", whole)):
        limit.write_text(text)
        assert hardware.usable_memory() == want


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= hardware.usable_cores() <= (os.cpu_count() or 1)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_free_memory_goes_back_to_the_system():
    # Blocks as small as these lie in the heap, and each other one holds those below it there.
    blocks = [bytearray(b"x" * 60_000) for _ in range(2000)]
    kept, before = blocks[1::2], resident()
    del blocks
    hardware.give_memory_back()
    assert resident() < before - 40_000_000, len(kept)
