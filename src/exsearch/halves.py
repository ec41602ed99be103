"""A batch that fails is tried again by halves, so that only the culprits fail.

It knows neither what the items are nor why they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Failure = TypeVar("Failure", bound=Exception)


def by_halves(
    work: Callable[[Sequence[Item]], Sequence[Result]],
    items: Sequence[Item],
    failure: type[Failure],
) -> list[Result | Failure]:
    """What `work` gives for each item, in their order; the error for an item that fails alone.

    Args:
        work: A function that gives one result for each of some items, or raises for all of them.
        items: The items; where there are none, `work` is not called.
        failure: The kind of error that is caught; any other ends the whole call.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except failure as error:
        if len(items) == 1:
            return [error]
    half = len(items) // 2
    return [*by_halves(work, items[:half], failure), *by_halves(work, items[half:], failure)]
