"""A run's folder holds one folder a stage; this module names what is in them.

run/            metrics.jsonl, best.json
warm_up/      start/ where there is no warm-up; then iteration-01/, iteration-02/, …
"""

from __future__ import annotations

from pathlib import Path

from exsearch.models.settings import BEST_FILE
from exsearch.trajectories import TRAJECTORIES_FILE

METRICS_FILE = "metrics.jsonl"
START, WARM_UP = "start", "warm_up"


def iteration_name(iteration: int) -> str:
    """The stage of an iteration, counted from 1."""
    return f"iteration-{iteration:02d}"


class Stage:
    """What one stage leaves behind; its folder is made where it is missing.

    Attributes:
        trajectories: What the M-step learns from.
        taught: All that a teacher has finished, kept or not.
        probe: The trajectories on which the objective was estimated.
        dev: The evaluation on the dev questions.
        checkpoint: A model and its optimizer in the middle of the M-step.
        model: The model after the M-step.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.trajectories = folder / TRAJECTORIES_FILE
        self.taught = folder / "teacher.jsonl"
        self.probe = folder / "probe.jsonl"
        self.dev = folder / "dev"
        self.checkpoint = folder / "checkpoint"
        self.model = folder / "model"


class RunFolder:
    """A training run's folder.

    Attributes:
        metrics: The journal.
        best: What says which stage is the best, once the run is finished.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.metrics = folder / METRICS_FILE
        self.best = folder / BEST_FILE

    def stage(self, name: str) -> Stage:
        """The stage with this name."""
        return Stage(self.folder / name)
