"""A run's folder holds one folder a stage; this module names what is in them.

run/            metrics.jsonl, best.json
warm_up/      start/ where there is no warm-up; then iteration-01/, iteration-02/, …
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from exsearch.models.settings import BEST_FILE
from exsearch.trajectories import TRAJECTORIES_FILE

METRICS_FILE = "metrics.jsonl"
START, WARM_UP = "start", "warm_up"


def iteration_name(iteration: int) -> str:
    """The stage of an iteration, counted from 1."""
    return f"iteration-{iteration:02d}"


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one stage leaves behind."""

    folder: Path

    @property
    def trajectories(self) -> Path:
        """What the M-step learns from."""
        return self.folder / TRAJECTORIES_FILE

    @property
    def taught(self) -> Path:
        """All that a teacher has finished, kept or not."""
        return self.folder / "teacher.jsonl"

    @property
    def probe(self) -> Path:
        """The trajectories on which the objective was estimated."""
        return self.folder / "probe.jsonl"

    @property
    def dev(self) -> Path:
        """The evaluation on the dev questions."""
        return self.folder / "dev"

    @property
    def checkpoint(self) -> Path:
        """A model and its optimizer in the middle of the M-step."""
        return self.folder / "checkpoint"

    @property
    def model(self) -> Path:
        """The model after the M-step."""
        return self.folder / "model"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A training run's folder."""

    folder: Path

    @property
    def metrics(self) -> Path:
        """The journal."""
        return self.folder / METRICS_FILE

    @property
    def best(self) -> Path:
        """What says which stage is the best, once the run is finished."""
        return self.folder / BEST_FILE

    def stage(self, name: str) -> Stage:
        """A stage, whose folder then exists."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return Stage(folder)
