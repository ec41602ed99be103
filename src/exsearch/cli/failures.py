"""A failure on the command line is one line that says what to do, and an exit code.

Exit codes are those of `errors`, and: 1 anything unforeseen, 2 wrong usage, 11 the disk is full or
fails, 128 + the signal's number where one stopped it (130 for Ctrl-C). A traceback comes with
`--debug` only.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click

from exsearch.errors import ExSearchError
from exsearch.terminal import safe, safe_lines

DISK_EXIT_CODE = 11
DEBUG = "exsearch.debug"  # in a context's `meta`

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Ordered(click.Group):
    """A group whose commands are listed in the order in which they were added: that of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(self.commands)


class Commands(Ordered):
    """The group of all commands, with the one place where exceptions end."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Read the command line.

        Raises:
            ClickException: it can't be used.
        """
        for number, arg in enumerate(args, start=1):
            if arg.encode(errors="ignore").decode() != arg:
                raise _NotText(f"argument {number} is not UTF-8 text: {arg!r}")
        with _told_plainly():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a failure of it becomes a line and an exit code."""
        quieten_libraries()
        try:
            with stopped_by_signals(), _told_plainly():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except KeyboardInterrupt as stop:
            # on a line of its own: Ctrl-C may have cut a progress bar in two
            click.echo("\nexsearch: stopped; run the same command again to go on", err=True)
            code = 128 + getattr(stop, "number", signal.SIGINT)
        except Exception as error:
            if ctx.meta.get(DEBUG):
                click.echo(safe_lines(traceback.format_exc()), err=True, nl=False)
            message, code = told(error)
            click.echo(f"exsearch: error: {safe(message)}", err=True)
        ctx.exit(code)


class _NotText(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"exsearch: error: {self.message}", err=True)


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Have a wrong usage quote nothing that a terminal would obey, such as a file's name."""
    try:
        yield
    except click.UsageError as error:
        said = error.format_message()
        if safe_lines(said) == said:
            raise
        raise click.UsageError(safe(said), error.ctx) from None


class Stopped(KeyboardInterrupt):
    """A signal asks to stop, and is obeyed as Ctrl-C is; `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end what runs here as Ctrl-C does; one that is ignored stays so."""
    found = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        found = []  # only the main thread has handlers
    for number in found:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in found:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def stopped_after(minutes: float | None) -> Iterator[None]:
    """Have what runs here end after so many minutes as Ctrl-C does; None sets no limit."""
    if minutes is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def told(error: Exception) -> tuple[str, int]:
    """What an exception means to a user, and the exit code."""
    # safetensors and tokenizers say it in errors of their own
    in_words = next((code for code in _DISK if os.strerror(code) in str(error)), None)
    code = getattr(error, "errno", None) or in_words
    if code in _DISK:
        place = getattr(error, "filename", None)
        where = f" at {place}" if place else ""
        message = f"the disk is full or fails{where} ({os.strerror(code)})"
        message += "; make room, or mend it, and run the same command again to go on"
        return message, DISK_EXIT_CODE
    if isinstance(error, ExSearchError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}", 1
    what = f"{type(error).__name__}: {error}"
    return f"unforeseen: {what}; `--debug` shows where, for a report", 1


def quieten_libraries() -> None:
    """Keep other packages' bars and warnings off the terminal; what a user has set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # or each retry of a download has a line
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # peft reads an attribute that transformers is about to rename; the user can't avoid it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


class _Echo(logging.Handler):
    """Log lines on standard error, above a progress bar that may stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        line = f"exsearch: {record.levelname.lower()}: {safe(record.getMessage())}"
        tqdm.write(line, file=sys.stderr)


def start_logging(level: int) -> None:
    """Show this package's log lines from `level` on."""
    logger = logging.getLogger("exsearch")
    logger.setLevel(level)
    logger.handlers = [_Echo()]
