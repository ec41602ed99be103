"""A progress bar tells a person how far long work is, with its rate and the remaining time.

Bars stand on standard error. It counts nothing itself: whoever does the work moves the bar.
"""

from __future__ import annotations

from typing import Any


class Bars:
    """Opens progress bars, or silent ones.

    Args:
        shown: False hides all of them.
    """

    def __init__(self, shown: bool = True):
        self.shown = shown

    def open(self, name: str, total: int | None, unit: str, done: int = 0) -> Any:
        """A tqdm bar, to be entered as a context; `update(count)` moves it on.

        Args:
            name: What is being done, shown before the bar.
            total: The number of units there are to do; None where that shows only later.
            unit: The name of what is counted, in the singular.
            done: The number of units that an earlier call has done.
        """
        from tqdm import tqdm

        return tqdm(
            total=total,
            desc=name,
            unit=f" {unit}",
            initial=done,
            unit_scale=unit == "B",  # bytes in kilobytes, megabytes, …
            disable=not self.shown,
            mininterval=1,
            miniters=0,  # only time counts: a bar that is told of nothing new still shows life
        )
