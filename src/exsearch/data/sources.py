"""A source is a file that comes from outside; it is there, and is read as bytes, unpacked.

It does not know what the bytes mean.
"""

from __future__ import annotations

import bz2
import contextlib
import difflib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from exsearch.errors import DataError, MissingExtraError
from exsearch.json_files import LongLineError

PACKED = (".gz", ".bz2", ".zst")
BOM = b"\xef\xbb\xbf"


def plain_name(path: Path) -> str:
    """The name of a file without the ending that says how it is packed."""
    return path.name.removesuffix(path.suffix) if path.suffix in PACKED else path.name


def check_exists(path: Path, what: str) -> None:
    """Make sure that a file or folder is there.

    Args:
        path: The file or folder.
        what: What it should be, such as `corpus`, for messages.

    Raises:
        DataError: it is not there; the message says which name is nearest.
    """
    try:
        if path.exists():
            return
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise DataError(f"no such {what}: {error.strerror}", file=path) from None
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DataError(f"no such {what}: the folder {folder} does not exist", file=path)
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"check the name; it would be in {folder}"
    raise DataError(f"no such {what}; {hint}", file=path)


@contextlib.contextmanager
def open_source(path: Path, what: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, unpacked by its ending, with every fault as a `DataError`.

    Args:
        path: The file to open.
        what: What the file should be, such as `question file`, for messages.

    Raises:
        DataError: the file is missing, is a folder, can't be read, or is packed and damaged.
        MissingExtraError: a `.zst` file without the extra `files`.
    """
    check_exists(path, what)
    if path.is_dir():
        raise DataError(f"is a folder, expected a {what}", file=path)
    try:
        with _unpacked(path) as file:
            yield cast("IO[bytes]", file)
    except LongLineError as error:
        raise DataError(str(error), file=path, line=error.line) from None
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"can't be read: {error.strerror}", file=path) from error
        message = f"damaged {path.suffix.removeprefix('.')} file ({error}); fetch it again"
        raise DataError(message, file=path) from error


def _unpacked(path: Path) -> contextlib.AbstractContextManager[Any]:
    match path.suffix:
        case ".gz":
            return gzip.open(path)
        case ".bz2":
            return bz2.open(path)
        case ".zst":
            try:
                import pyarrow
            except ImportError as error:
                raise MissingExtraError("a .zst file", "files", str(error)) from None
            # Unlike the reader of `zstandard`, it says where a file was cut off.
            return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return path.open("rb")
