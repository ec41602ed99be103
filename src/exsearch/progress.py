"""A progress bar tells a person how far long work is, with its rate and the remaining time.

Bars stand on standard error. What is counted is decided where the work is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class Bars:
    """Opens progress bars, or silent ones.

    Args:
        shown: False hides all of them.
    """

    def __init__(self, shown: bool = True):
        self.shown = shown

    @contextlib.contextmanager
    def open(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Any]:
        """A bar with `update(count)`, as tqdm's.

        Args:
            name: What is being done.
            total: How much there is to do; None where that shows only later.
            unit: What is counted, in the singular.
            done: How much was done before.
        """
        from tqdm import tqdm

        with tqdm(
            total=total,
            desc=name,
            unit=f" {unit}",
            initial=done,
            disable=not self.shown,
            mininterval=1,
        ) as bar:
            yield bar
