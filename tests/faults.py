"""Faults of the disk, real ones: a command runs in a process of its own, and one write fails.

A server process imports everything once and forks for each command, so that hundreds of faults take
seconds. In the fork, every operation that changes the disk below a folder is counted; the one with
the wished number is where the process is killed, halfway through if it is a write, or where the
disk is full from then on (ENOSPC), or fails that once (EIO).
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNNAMED = "open-unnamed"  # a temporary file in a folder; `tempfile` gives it a name if that fails
WRITES = (
    "open",
    "write",
    "mkdir",
    "posix_fallocate",
    "serialize",
    UNNAMED,
)  # what a full disk refuses
CLEANING = ("unlink", "rmdir", "remove")  # what a full disk allows, and a failing one may leave


@dataclass
class Outcome:
    """How a command ended: its exit code (or minus a signal), what it said, what it did."""

    code: int
    said: str
    done: list[str]


class Disk:
    """Counts what is done below a folder, and lets the fault happen at its number."""

    def __init__(self, root: str, fault: str, number: int, log: Any):
        self.root, self.fault, self.number, self.log = root, fault, number, log
        self.count = 0

    def touch(self, what: str, place: Any, half: Callable[[], object] = lambda: None) -> None:
        """An operation is about to be done: count it if it is below the root, or spoil it."""
        path = self._path(place)
        if not (path + "/").startswith(self.root + "/"):
            return
        self.count += 1
        os.write(self.log, f"{what} {os.path.relpath(path, self.root)}\n".encode())
        if self.count < self.number or not self.number:
            return
        if self.fault == "kill":
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "ENOSPC" and what in WRITES:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        elif self.fault == "EIO" and self.count == self.number:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    @staticmethod
    def _path(place: Any) -> str:
        if isinstance(place, int):
            return os.readlink(f"/proc/self/fd/{place}")
        return os.path.abspath(os.fsdecode(place))

    def install(self) -> None:
        """Put the counting between Python and the system, for all that is imported, too."""
        for name in ("fsync", "mkdir", "truncate", "posix_fallocate", "unlink", "rmdir", "remove"):
            self._wrap(name, 0)
        for name in ("rename", "replace"):
            self._wrap(name, 1)
        self._wrap_os_open()
        self._wrap_open()
        folders = importlib.import_module("exsearch.runs.folders")
        exchange = folders._exchange

        def exchanged(one: Path, other: Path) -> bool:
            self.touch("exchange", other)
            return exchange(one, other)

        folders._exchange = exchanged
        if tensors := sys.modules.get("safetensors.torch"):
            self._wrap_tensors(tensors)

    def _wrap(self, name: str, which: int) -> None:
        real = getattr(os, name)

        def wrapped(*args: Any, **more: Any) -> Any:
            place = args[which]
            folder = more.get("dir_fd")
            if folder is not None and not isinstance(place, int):
                place = os.path.join(self._path(folder), os.fsdecode(place))
            self.touch(name, place)
            return real(*args, **more)

        setattr(os, name, wrapped)
        if real in os.supports_dir_fd:
            os.supports_dir_fd.add(wrapped)
        if real in os.supports_fd:
            os.supports_fd.add(wrapped)

    def _wrap_os_open(self) -> None:
        real = os.open

        def opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & os.O_CREAT:
                self.touch("open", path)
            return real(path, flags, *args, **more)

        os.open = opened

    def _wrap_open(self) -> None:
        real, disk = io.open, self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                part = memoryview(data).cast("B")
                disk.touch(
                    "write", self.fileno(), lambda: io.FileIO.write(self, part[: len(part) // 2])
                )
                return super().write(data)

        def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
                   errors: str | None = None, newline: str | None = None, closefd: bool = True,
                   opener: Any = None) -> Any:  # fmt: skip
            if not set(mode) & set("wax+") or isinstance(file, int):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            disk.touch(UNNAMED if os.path.isdir(file) else "open", file)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            whole = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return whole if "b" in mode else io.TextIOWrapper(whole, encoding, errors, newline)

        io.open = builtins.open = opened

    def _wrap_tensors(self, module: Any) -> None:
        from safetensors import SafetensorError

        real = module.serialize_file

        def serialized(tensors: Any, filename: Any, *args: Any, **more: Any) -> None:
            def half() -> None:
                real(tensors, filename, *args, **more)
                os.truncate(filename, os.path.getsize(filename) // 2)

            try:
                self.touch("serialize", filename, half)
            except OSError as error:  # as safetensors says it
                said = f"I/O error: {error.strerror} (os error {error.errno})"
                raise SafetensorError(f"Error while serializing: {said}") from None
            real(tensors, filename, *args, **more)

        module.serialize_file = serialized


def _child(job: dict[str, Any], said: int, log: int) -> None:
    from exsearch.cli import main

    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["exsearch", *job["args"]]
    Disk(job["root"], job["fault"], job["number"], log).install()
    code = 70
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    from exsearch.cli.failures import quieten_libraries

    quieten_libraries()
    for module in json.loads(sys.argv[1]):
        importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        files = [os.memfd_create(name) for name in ("said", "log")]
        child = os.fork()
        if not child:
            _child(job, *files)
        _, status = os.waitpid(child, 0)
        said, log = (os.pread(file, 1 << 24, 0).decode() for file in files)
        for file in files:
            os.close(file)
        answer = [os.waitstatus_to_exitcode(status), said, log.splitlines()]
        print(json.dumps(answer), flush=True)  # noqa: T201


Command = Callable[..., Outcome]


@contextmanager
def commands(root: Path, modules: Sequence[str] = ()) -> Iterator[Command]:
    """Runs `exsearch` with arguments, counting what it does below `root`; spoils one operation.

    Args:
        root: The folder whose content counts.
        modules: What the commands import, so that it is imported once.
    """
    start = [sys.executable, __file__, json.dumps(["exsearch.cli", *modules])]
    with subprocess.Popen(
        start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root.parent
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        ask, answer = server.stdin, server.stdout

        def run(*args: object, fault: str = "", number: int = 0) -> Outcome:
            job = {"args": [str(arg) for arg in args], "root": str(root)}
            ask.write(json.dumps({**job, "fault": fault, "number": number}) + "\n")
            ask.flush()
            return Outcome(*json.loads(answer.readline()))

        yield run
        ask.close()


if __name__ == "__main__":
    _serve()
