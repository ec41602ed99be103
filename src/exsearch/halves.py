"""A batch that fails is tried again by halves, so that only the culprits fail."""

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
        work: Takes some of the items and gives one result each, or raises for all of them.
        items: Any number.
        failure: The errors that are caught.
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
