"""A record is what flows between the stages: question, passage, step, call, trajectory.

All are frozen dataclasses that travel as JSON. What can be derived is a property, never a field.
This package does not read files, call models, or import anything heavy.
"""

from __future__ import annotations

from exsearch.records.as_json import SCHEMA_VERSION, from_json, to_json
from exsearch.records.question import Hop, Passage, Question, refuse_text, split_contents
from exsearch.records.trajectory import (
    Call,
    CallKind,
    Evidence,
    Spans,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
    log_sum_exp,
)

__all__ = [
    "SCHEMA_VERSION",
    "Call",
    "CallKind",
    "Evidence",
    "Hop",
    "Passage",
    "Question",
    "Spans",
    "Step",
    "StopReason",
    "Trajectory",
    "WeightedTrajectory",
    "from_json",
    "log_sum_exp",
    "refuse_text",
    "split_contents",
    "to_json",
]
