"""The hardware is what this process may use of its machine: cores and memory.

It measures no speed, and looks at no accelerator.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

GIB = 1 << 30
# Where Linux tells the limit of a control group (version 2, version 1), such as a container's.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's limit."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _LIMITS:
        try:
            limit = file.read_text().strip()
        except OSError:
            continue
        if limit.isdigit():  # `max` where there is none
            size = min(size, int(limit))
    return size


def give_memory_back() -> None:
    """Return free memory to the system.

    glibc would keep it: blocks of a few megabytes, such as a layer's weights, lie in its heap.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
