"""Trackers: the services and files that figures are sent to, each behind the same small protocol.

Another package adds one by an entry point in the group `exsearch.trackers`. Where a tracker is
reached, and with which key, its own package reads from the environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from exsearch.errors import MissingExtraError
from exsearch.plugins import find
from exsearch.tracking.points import STAGE, STEP, Point


class Tracker(Protocol):
    """A place that figures are sent to."""

    def log(self, point: Point) -> None:
        """Send some figures."""
        ...

    def close(self) -> None:
        """Send what still waits, and end."""
        ...


class Open(Protocol):
    """Opens a tracker."""

    def __call__(
        self, project: str, name: str, settings: Mapping[str, Any], folder: Path, id: str
    ) -> Tracker:
        """A tracker for one run.

        Args:
            project: The name that several runs are found under.
            name: The run's name.
            settings: The run's settings as flat values, such as `m_step.learning_rate`.
            folder: A folder that the tracker may write to.
            id: What tells the run from others of its name; the same when it is gone on with.
        """
        ...


class _TensorBoard:
    """Event files that `tensorboard --logdir runs` shows, written by TensorBoard's own writer."""

    package = "tensorboard"

    def __init__(self, project: str, name: str, settings: Mapping[str, Any], folder: Path, id: str):
        writers = importlib.import_module("tensorboard.summary")
        self._writer = writers.Writer(str(folder))

    def log(self, point: Point) -> None:
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.at, wall_time=point.time)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Weights & Biases, or its files on this disk where WANDB_MODE is offline."""

    package = "wandb"

    def __init__(self, project: str, name: str, settings: Mapping[str, Any], folder: Path, id: str):
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=project,
            name=name,
            id=id,
            resume="allow",
            config=dict(settings),
            dir=str(folder),
            settings=wandb.Settings(console="off", disable_code=True, disable_git=True),
        )
        for axis, pattern in ((STEP, "step/*"), (STAGE, "*")):
            self._run.define_metric(axis)
            self._run.define_metric(pattern, step_metric=axis)

    def log(self, point: Point) -> None:
        self._run.log({**point.values, point.axis: point.at})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """Trackio, on this disk or in the Space that TRACKIO_SPACE_ID names."""

    package = "trackio"

    def __init__(self, project: str, name: str, settings: Mapping[str, Any], folder: Path, id: str):
        trackio = importlib.import_module("trackio")
        self._run = trackio.init(
            project=project, name=f"{name}-{id}", config=dict(settings), resume="allow", embed=False
        )

    def log(self, point: Point) -> None:
        self._run.log({**point.values, point.axis: point.at})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """MLflow, at the server or the place that MLFLOW_TRACKING_URI names."""

    package = "mlflow"

    def __init__(self, project: str, name: str, settings: Mapping[str, Any], folder: Path, id: str):
        mlflow = importlib.import_module("mlflow")
        entities = importlib.import_module("mlflow.entities")
        self._client, self._metric = mlflow.MlflowClient(), entities.Metric
        mlflow.set_experiment(project)
        experiment = self._client.get_experiment_by_name(project).experiment_id
        known = self._client.search_runs([experiment], f"tags.exsearch_id = '{id}'")
        if known:
            self._id = known[0].info.run_id
            return
        made = self._client.create_run(experiment, run_name=name, tags={"exsearch_id": id})
        self._id = made.info.run_id
        parameters = [entities.Param(key, str(value)) for key, value in settings.items()]
        self._client.log_batch(self._id, params=parameters)

    def log(self, point: Point) -> None:
        milliseconds = int(1000 * point.time)
        metrics = [
            self._metric(_mlflow_name(name), value, milliseconds, point.at)
            for name, value in point.values.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[..., Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
    "mlflow": _MLflow,
}


def find_tracker(name: str) -> Open:
    """The function that opens a tracker, whose package is there.

    Args:
        name: Its name, such as `tensorboard`.

    Raises:
        ConfigError: no tracker has this name.
        MissingExtraError: its package is not installed.
    """
    found = find(TRACKERS, name, "tracker")
    package = getattr(found, "package", "")
    if package and importlib.util.find_spec(package) is None:
        raise MissingExtraError(f"the tracker {name}", name, f"no {package}")
    return found


def _mlflow_name(name: str) -> str:
    """A figure's name without the signs that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", name)
