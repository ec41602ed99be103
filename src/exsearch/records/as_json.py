"""A record is one line of JSON with its schema version, and older versions are still read.

It opens no file; `trajectories` does.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from exsearch.json_files import parse_json
from exsearch.records.question import Passage
from exsearch.records.trajectory import Call, Trajectory, WeightedTrajectory

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA_VERSION = 2

Record = TypeVar("Record")


@cache
def _adapter(record_type: type[Any]) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter  # 80 ms that `exsearch --help` need not pay

    for kind in (Passage, Call, Trajectory, WeightedTrajectory):
        # -inf is a legal score and must survive JSON, which has no number for it.
        kind.__pydantic_config__ = ConfigDict(ser_json_inf_nan="strings", extra="ignore")  # pyright: ignore[reportAttributeAccessIssue]
    return TypeAdapter(record_type)


def to_json(record: Any) -> str:
    """One line of JSON for a record, with its schema version."""
    record_type = cast("type[Any]", type(record))
    fields = _adapter(record_type).dump_json(record).decode()
    fields = fields.replace(',"url":""', "")  # in no text of JSON stand such quotes
    return f'{{"schema_version":{SCHEMA_VERSION},{fields[1:]}'


def from_json(record_type: type[Record], line: str | bytes) -> Record:
    """The record in one line of JSON, also of an older schema version.

    Args:
        record_type: The class of the record.
        line: The JSON, as `to_json` wrote it.

    Raises:
        ValueError: not JSON, a missing or mistyped field, or a schema version newer than this one.
    """
    value: Any = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    fields = cast("dict[str, Any]", value)
    version = fields.pop("schema_version", 0)
    if not isinstance(version, int):
        raise ValueError(f"schema version {version!r} is not a number")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"schema version {version} is newer than {SCHEMA_VERSION}: update exsearch"
        )
    if version == 0:
        _evidence_from_version_0(fields.get("trajectory", fields))
    return _adapter(record_type).validate_python(fields)


def _evidence_from_version_0(trajectory: Any) -> None:
    """Version 0 kept a step's evidence as plain text, without the passages that it came from."""
    match trajectory:
        case {"steps": [*steps]}:
            for step in steps:
                match step:
                    case {"evidence": str(text)}:
                        step["evidence"] = {"text": text, "passage_ids": []}
                    case _:
                        pass
        case _:
            pass
