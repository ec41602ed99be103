"""The machine's ceiling: how fast it multiplies large matrices, and reads and copies memory.

No model can compute faster than the one or fetch its weights faster than the other, so a time
counts as good or bad only beside them. A shared machine is noisy: every benchmark measures the
ceiling in its own run, before, between and after, and takes the median.

    python -m benchmarks.machine [--json]
"""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import finish, parser, spread, table

GEMM_SIZE = 2048
ARRAY_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """FLOP and bytes a second: float32 products, reading (a sum), copying (read plus write)."""

    flops: float
    read: float
    copy: float


class Ceilings:
    """The ceilings that one benchmark measured on its way.

    Args:
        size, array_bytes: Of the matrices and of the array; smaller ones are for tests only, as
            they fit in caches.
    """

    def __init__(self, size: int = GEMM_SIZE, array_bytes: int = ARRAY_BYTES):
        self.size = size
        self.array_bytes = array_bytes
        self.measured: list[Ceiling] = []

    def measure(self) -> None:
        """Measure once more (two seconds on two cores)."""
        self.measured.append(Ceiling(_gemm_rate(self.size), *_memory_rates(self.array_bytes)))

    @property
    def ceiling(self) -> Ceiling:
        """The median of all measurements."""
        columns = zip(*map(dataclasses.astuple, self.measured), strict=True)
        return Ceiling(*map(statistics.median, columns))

    def figures(self) -> dict[str, Any]:
        """GFLOP/s and GB/s, with their spread over the run."""
        flops, read, copy = zip(*map(dataclasses.astuple, self.measured), strict=True)
        return {
            "gemm_gflops": spread([f / 1e9 for f in flops]),
            "read_gb_per_s": spread([r / 1e9 for r in read]),
            "copy_gb_per_s": spread([c / 1e9 for c in copy]),
        }

    def table(self) -> None:
        """Print them."""
        table("Ceiling of this machine, in this run", list(self.figures().items()))


def _median_seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _gemm_rate(size: int) -> float:
    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / _median_seconds(lambda: torch.mm(a, b, out=out), 7)


def _memory_rates(array_bytes: int) -> tuple[float, float]:
    source = torch.ones(array_bytes // 4)
    read = array_bytes / _median_seconds(source.sum, 5)
    target = torch.empty_like(source)
    return read, 2 * array_bytes / _median_seconds(lambda: target.copy_(source), 3)


def facts() -> dict[str, Any]:
    """What the figures were measured on."""
    import transformers

    return {
        "cpu": _cpu_name(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def peak_bytes() -> int:
    """The most memory that this process has held so far.

    Not `ru_maxrss` where it can be helped: on Linux a child starts with its parent's.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure three times and print."""
    args = parser(__doc__).parse_args()
    ceilings = Ceilings()
    for _ in range(3):
        ceilings.measure()
    machine = facts()
    table("Machine", list(machine.items()))
    ceilings.table()
    finish({"machine": machine, "ceiling": ceilings.figures()}, args.json)


if __name__ == "__main__":
    main()
