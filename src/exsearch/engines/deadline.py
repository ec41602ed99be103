"""A deadline ends a program that a stranger wrote, such as a chat template; it can't judge it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from exsearch.errors import ModelError


def within(seconds: float, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What a call returns or raises, if it ends in time; else it is broken off.

    Args:
        seconds: The time that it has.
        call: A function of plain Python; one in C is left to itself.
        args: What it is called with.
        named: What it is called with by name.

    Raises:
        TimeoutError: it did not end in time.
    """
    began: list[int] = []

    def run() -> Any:
        began.append(threading.get_ident())
        return call(*args, **named)

    future = _thread().submit(run)
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():  # the call's own
            raise
        _thread.cache_clear()  # another one serves from now on
        for number in began:
            error = ctypes.py_object(TimeoutError)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), error)
        raise TimeoutError(f"it did not end within {seconds:g} seconds") from None


@cache
def _thread() -> ThreadPoolExecutor:
    """One for all calls: a new one each time costs more than most calls."""
    return ThreadPoolExecutor(1, "deadline")


def refuse_powers(template: Any) -> None:
    """Refuse chat templates with the operator `**`, which no deadline can end.

    Args:
        template: The template, several of them by name, or None.

    Raises:
        ModelError: one has it.
    """
    from jinja2 import Environment

    texts = template.values() if isinstance(template, dict) else [template or ""]
    lex = Environment().lex
    if any(kind == "operator" and sign == "**" for t in texts for _, kind, sign in lex(t)):
        raise ModelError("the model's chat template raises to a power (**); take it out")
