"""A trajectory file is JSON lines of trajectories, weighted ones or plain, of any schema version.

They are read one at a time, and nowhere else: whoever reads such a file reads it here. A torn last
line (a write under way) is passed over. It judges no trajectory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, overload

from exsearch.errors import DataError
from exsearch.json_files import LongLineError, numbered_lines
from exsearch.records import Trajectory, WeightedTrajectory, from_json, to_json

TRAJECTORIES_FILE = "trajectories.jsonl"  # the usual name in a folder of results

Trace = Trajectory | WeightedTrajectory  # what one line of such a file holds
AnyTrace = TypeVar("AnyTrace", Trajectory, WeightedTrajectory, Trace)


def trajectory_of(trace: Trace) -> Trajectory:
    """The trajectory of a trace, without its weight where it has one."""
    return trace.trajectory if isinstance(trace, WeightedTrajectory) else trace


def by_question(traces: Iterable[AnyTrace]) -> list[list[AnyTrace]]:
    """Traces in groups of one question each, in the order of first appearance."""
    groups: dict[str, list[AnyTrace]] = {}
    for trace in traces:
        groups.setdefault(trajectory_of(trace).question.id, []).append(trace)
    return list(groups.values())


def to_lines(traces: Iterable[Trace]) -> Iterator[str]:
    """One line of JSON a trace, without the line break."""
    return map(to_json, traces)


def read_traces(file: Path) -> Iterator[Trace]:
    """The traces of a file, one after the other.

    Args:
        file: JSON lines of trajectories or weighted ones.

    Raises:
        DataError: the file can't be read, or a line is no trajectory.
    """
    try:
        with file.open("rb") as lines:
            for number, line in numbered_lines(lines):
                if not line.endswith(b"\n"):
                    return
                yield _parse(line, file, number)
    except (OSError, LongLineError) as error:
        raise _unreadable(file, error) from None


def read_trajectories(file: Path) -> Iterator[Trajectory]:
    """The trajectories of a file, one after the other, without weights.

    Raises:
        DataError: the file can't be read, or a line is no trajectory.
    """
    return map(trajectory_of, read_traces(file))


class WeightedFile(Sequence[WeightedTrajectory]):
    """The weighted trajectories of a file, each read when it is asked for.

    Only where its lines begin is held in memory, so more questions take hardly more of it.

    Args:
        file: JSON lines of weighted trajectories.

    Raises:
        DataError: no such file, or (when it is read) a line that is no weighted trajectory.
    """

    def __init__(self, file: Path):
        self._file, self._starts = file, [0]
        try:
            self._lines = file.open("rb")
            for _, line in numbered_lines(self._lines):
                if line.endswith(b"\n"):
                    self._starts.append(self._starts[-1] + len(line))
        except (OSError, LongLineError) as error:
            raise _unreadable(file, error) from None

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> WeightedTrajectory: ...

    @overload
    def __getitem__(self, index: slice) -> list[WeightedTrajectory]: ...

    def __getitem__(self, index: int | slice) -> WeightedTrajectory | list[WeightedTrajectory]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        self._lines.seek(self._starts[index])
        trace = _parse(self._lines.readline(), self._file, index + 1)
        if isinstance(trace, WeightedTrajectory):
            return trace
        raise DataError(
            "the trajectory has no weight: its question has no answers, its engine gives no token "
            "ids, or its method asked no model",
            file=self._file,
            line=index + 1,
        )

    def __del__(self) -> None:
        if lines := getattr(self, "_lines", None):
            lines.close()


def _parse(line: bytes, file: Path, number: int) -> Trace:
    kind = WeightedTrajectory if b'"trajectory":' in line[:60] else Trajectory
    try:
        return from_json(kind, line)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"not a trajectory ({reason})", file=file, line=number) from None


def _unreadable(file: Path, error: OSError | LongLineError) -> DataError:
    if isinstance(error, LongLineError):
        return DataError(str(error), file=file, line=error.line)
    return DataError(f"can't be read: {error.strerror}", file=file)
