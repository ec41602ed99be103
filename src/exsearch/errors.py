"""Every error that a user can cause, as one tree.

An error is one line that says what was wrong, with the place and the value, and what to do about
it. The command line prints that line and leaves with `exit_code`; a traceback comes only with
`--debug`.

    ExSearchError
    ├── ConfigError          a recipe or an option that can't be used            exit 2
    ├── DataError            a question, corpus or prediction file; has file and line   exit 3
    ├── IndexDamagedError    an index that is missing, incomplete or altered     exit 4
    ├── ModelError           a model that can't be found or loaded               exit 5
    ├── MissingExtraError    an optional dependency is not installed             exit 6
    ├── RunError             a run folder that can't be used                     exit 7
    ├── RetrieverError       a search that failed                                exit 8
    ├── EngineError          a generation or a score that failed                 exit 9
    ├── TrainingError        a loss that is not finite, too many failed samples  exit 10
    └── ModelServerError     a model server that can't be used at all            exit 12

It does not hold bad rollouts: those are data (`records.StopReason`).
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Generator
from pathlib import Path


class ExSearchError(Exception):
    """The root of the tree: one line for people, one exit code for scripts."""

    exit_code = 1


class ConfigError(ExSearchError):
    """A recipe or an option has an unknown key or an unusable value."""

    exit_code = 2


class DataError(ExSearchError):
    """A file of questions, passages or predictions can't be read.

    Args:
        message: What is wrong, and what to do.
        file: The file, put before the message; None where it is not known.
        line: The number of the line, from 1; None where it is not about one line.
    """

    exit_code = 3

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None):
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + message)
        self.file = file
        self.line = line


class IndexDamagedError(ExSearchError):
    """An index folder is missing, incomplete, or not what its manifest says."""

    exit_code = 4


class ModelError(ExSearchError):
    """A model can't be found, loaded, or used as asked."""

    exit_code = 5


class MissingExtraError(ExSearchError):
    """A feature needs packages of an extra that is not installed.

    Args:
        feature: The name of the feature.
        extra: The name of the extra, such as `local`.
        cause: The message of the failed import; empty where there is none.
    """

    exit_code = 6

    def __init__(self, feature: str, extra: str, cause: str = ""):
        detail = f" ({cause})" if cause else ""
        super().__init__(f"{feature} needs more packages{detail}: pip install 'exsearch[{extra}]'")
        self.extra = extra


class RunError(ExSearchError):
    """A run folder is in use, damaged, or belongs to another recipe."""

    exit_code = 7


class RetrieverError(ExSearchError):
    """A search failed; the trajectory that asked for it is left out of training."""

    exit_code = 8


class EngineError(ExSearchError):
    """A generation or a score failed."""

    exit_code = 9


class TrainingError(ExSearchError):
    """Training can't go on: a loss or a gradient is not finite, or too many samples failed."""

    exit_code = 10


class ModelServerError(ExSearchError):
    """Nothing can be had from a model server: it is down, or refuses the key or every request.

    Not an `EngineError`, which ends one trajectory: this ends the command, before a server that
    went away makes wrong answers of all the questions that are left.
    """

    exit_code = 12


@contextlib.contextmanager
def model_errors(name: str, remedy: str) -> Generator[None]:
    """One line for whatever the libraries raise on a model that they can't load.

    Args:
        name: The model's folder or name.
        remedy: What to do about it.

    Raises:
        ModelError: the block raised anything but an error of our own.
    """
    try:
        yield
    except ExSearchError:
        raise
    except Exception as error:
        said = str(error)
        reason = textwrap.shorten(said if " " in said else repr(error), 300, placeholder=" …")
        raise ModelError(f"can't load the model {name!r}: {reason}; {remedy}") from error
