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
