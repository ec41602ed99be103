"""A run's folder holds one folder a stage; this module names what is in them.

    run/            metrics.jsonl, best.json
        warm_up/    or start/, where there is no warm-up
        iteration-01/, iteration-02/, …

It writes none of the files, and reads none but manifests.

Glossary:
    stage  A part of a run that leaves a model, which is then measured: `warm_up` or `start`, then
           each iteration. `start` has no model of its own: it is the one that the run began with.
"""

from __future__ import annotations

from pathlib import Path

from exsearch.errors import RunError
from exsearch.models.settings import BEST_FILE, RECIPE_FILE
from exsearch.runs import is_complete, make_folder
from exsearch.trajectories import TRAJECTORIES_FILE

METRICS_FILE = "metrics.jsonl"
TAUGHT_FILE = "teacher.jsonl"
START, WARM_UP = "start", "warm_up"


def iteration_name(iteration: int) -> str:
    """The name of an iteration's stage; iterations are counted from 1."""
    return f"iteration-{iteration:02d}"


def check_run(folder: Path) -> None:
    """Make sure that a folder is a run's, which may have measured nothing yet.

    Raises:
        RunError: it is none.
    """
    if not any((folder / name).is_file() for name in (METRICS_FILE, RECIPE_FILE)):
        raise RunError(f"{folder}: no run; name a folder that `exsearch train` wrote")


class Stage:
    """The files and folders that one stage leaves behind.

    Args:
        folder: The folder of the stage, which is made where it is missing.

    Attributes:
        trajectories: The file of the trajectories that the M-step learns from.
        taught: The file of all trajectories that a teacher has finished, kept or not.
        probe: The file of the trajectories on which the objective was estimated.
        dev: The folder of the evaluation on the dev questions.
        checkpoint: The folder of the model and its optimizer in the middle of the M-step.
        model: The folder of the model after the M-step.
    """

    def __init__(self, folder: Path):
        make_folder(folder)
        self.trajectories = folder / TRAJECTORIES_FILE
        self.taught = folder / TAUGHT_FILE
        self.probe = folder / "probe.jsonl"
        self.dev = folder / "dev"
        self.checkpoint = folder / "checkpoint"
        self.model = folder / "model"


class RunFolder:
    """A training run's folder.

    Args:
        folder: The folder of the run.

    Attributes:
        metrics: The file of the journal.
        best: The file that says which stage is the best, once the run is finished.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.metrics = folder / METRICS_FILE
        self.best = folder / BEST_FILE

    @property
    def has_learned(self) -> bool:
        """True where an M-step has left something behind: a stage's model or checkpoint."""
        places = [*self.folder.glob("*/model"), *self.folder.glob("*/checkpoint")]
        return any(is_complete(place) for place in places)

    def stage(self, name: str) -> Stage:
        """The stage with this name."""
        return Stage(self.folder / name)
