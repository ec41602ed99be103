"""A document is an HTML or PDF file, read as a title and a text.

The parsers (`document_parser.py`) work in a process of its own, with bounds of time and memory:
whatever a document does to it is one error line here. It does not cut texts into passages.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import IO, cast

from exsearch.data import document_parser
from exsearch.errors import DataError, MissingExtraError
from exsearch.json_files import MAX_LINE

LIBRARIES = {".html": "selectolax", ".htm": "selectolax", ".pdf": "pypdf"}
DOCUMENTS = tuple(LIBRARIES)


def readable() -> tuple[str, ...]:
    """The suffixes of documents whose library is installed."""
    return tuple(suffix for suffix, library in LIBRARIES.items() if find_spec(library))


class Documents(contextlib.AbstractContextManager["Documents"]):
    """Reads documents, with a process that is started for the first and ended with the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def read(self, file: Path) -> tuple[str, str]:
        """The title of a document, empty where it has none, and its visible text.

        Args:
            file: The document, with one of the suffixes `DOCUMENTS`.

        Raises:
            DataError: it is missing, encrypted, damaged or without text, or takes too much.
            MissingExtraError: without the extra `files`.
        """
        if file.suffix.lower() not in readable():
            raise MissingExtraError(f"a {file.suffix.lower()} file", "files")
        if self._process is None:
            command = [sys.executable, "-P", document_parser.__file__]
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
        line = self._ask(self._process, file)
        if not line.endswith(b"\n"):
            raise DataError(self._ended(line), file=file)
        found = json.loads(line)
        if "error" in found:
            raise DataError(found["error"], file=file)
        return found["title"], found["text"]

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], file: Path) -> bytes:
        asked = cast("IO[bytes]", process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has ended, which its output shows
            asked.write(json.dumps(str(file.absolute())).encode() + b"\n")
            asked.flush()
        return cast("IO[bytes]", process.stdout).readline(MAX_LINE)

    def _ended(self, line: bytes) -> str:
        """Why the process gave no whole answer; the next document gets another one."""
        process = cast("subprocess.Popen[bytes]", self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        code = process.returncode
        self.__exit__()
        if line:
            return f"has more than {MAX_LINE >> 20} MiB of text; divide it"
        if code == -24:  # SIGXCPU
            return f"takes more than {document_parser.SECONDS} seconds to read"
        return f"ended the process that read it (exit status {code}); save it anew"
