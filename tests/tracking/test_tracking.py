"""Figures reach a tracker once each, and whatever becomes of the tracker, training goes on."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.errors import ConfigError, MissingExtraError, RunError
from exsearch.jobs import track as job
from exsearch.jobs.track import track
from exsearch.jobs.train import train
from exsearch.progress import Bars
from exsearch.runs import locked, read_jsonl
from exsearch.show.watch import watch
from exsearch.tracking import trackers
from exsearch.tracking.follow import follow
from exsearch.tracking.points import STAGE, STEP, Point, Points

SILENT = Bars(False)
EVENTS = [
    {"stage": "warm_up", "event": "step", "step": 1, "steps": 2, "loss": 3.0, "time": 10.0},
    {"stage": "warm_up", "event": "step", "step": 2, "steps": 2, "loss": 2.0, "time": 14.0},
    {
        "stage": "warm_up",
        "event": "dev",
        "step": None,
        "n": 4,
        "em": 0.5,
        "time": 20.0,
        "ci95": {"em": [0.1, 0.9]},
        "groups": {"yes/no": {"em": None, "f1": 0.25}},
    },
    {"stage": "iteration-01", "event": "step", "step": 1, "optimizer_steps": 9, "loss": 1.0},
    {"stage": "iteration-01", "event": "dev", "step": None, "em": 0.75, "weights_exact": True},
]


def written(run: Path, events: list[dict[str, Any]] = EVENTS) -> Path:
    """A run with this journal."""
    run.mkdir(parents=True, exist_ok=True)
    recipe = {"m_step": {"learning_rate": 0.1}, "data": {"train": "../secret/train.jsonl"}}
    recipe["model"] = {"name": "/home/ann/models/tiny", "base_url": "http://ann.example"}
    (run / "recipe.json").write_text(json.dumps({"recipe": recipe}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return run


class Kept:
    """A tracker that keeps what it is sent."""

    def __init__(self, *opened: Any):
        self.opened, self.points, self.closed = opened, [], False

    def log(self, point: Point) -> None:
        self.points.append(point)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """What was opened as the tracker `kept`."""
    found: list[Kept] = []

    def open_kept(*opened: Any) -> Kept:
        found.append(Kept(*opened))
        return found[-1]

    monkeypatch.setitem(trackers.TRACKERS, "kept", open_kept)
    return found


def test_a_journal_becomes_points_by_hand() -> None:
    points = Points()
    made = [points.of(event) for event in EVENTS]
    assert all(made)
    assert [(p.axis, p.at) for p in made if p] == [
        *((STEP, 1), (STEP, 2), (STAGE, 0), (STEP, 3), (STAGE, 1))
    ]
    assert made[0] and made[0].values == {"step/steps": 2.0, "step/loss": 3.0}
    assert made[2] and made[2].values == {
        "dev/n": 4.0,
        "dev/em": 0.5,
        "dev/em_low": 0.1,
        "dev/em_high": 0.9,
        "dev/groups/yes/no/f1": 0.25,
    }
    assert made[4] and made[4].values == {"dev/em": 0.75}  # a truth is no figure
    assert points.of({"stage": "a", "event": "b", "words": "c", "time": 1.0}) is None


def test_what_was_sent_is_not_sent_again(tmp_path: Path, kept: list[Kept]) -> None:
    run = written(tmp_path / "run", EVENTS[:3])
    assert track(run, "kept", bars=SILENT)["events"] == 3
    written(run)
    again = track(run, "kept", project="p", name="n", bars=SILENT)
    assert (again["events"], again["before"]) == (2, 3)
    assert [p.at for p in kept[0].points] == [1, 2, 0]
    assert [p.at for p in kept[1].points] == [3, 1]  # counted on from the steps before
    (project, name, settings, _, id_), (*_, before) = kept[1].opened, kept[0].opened
    assert (project, name, id_) == ("p", "n", before) and all(one.closed for one in kept)
    assert settings == {"m_step.learning_rate": 0.1, "model.name": "tiny"}  # and no place


def test_a_journal_is_followed_until_nobody_works_on_the_run(tmp_path: Path) -> None:
    run = written(tmp_path / "run", EVENTS[:1])
    journal = run / "metrics.jsonl"
    line = json.dumps(EVENTS[1])

    def write(text: str) -> None:
        with journal.open("a") as file:
            file.write(text)

    turns: list[Callable[[], object]] = [
        lambda: write(line[:20]),  # torn: a write under way
        lambda: write(line[20:] + "\n"),
    ]
    with locked(run):
        looks = follow(run, lambda: turns.pop(0)())
        assert [len(next(looks)) for _ in range(3)] == [1, 0, 1]
    assert [*follow(run)] == [EVENTS[:2]]
    turns.append(lambda: None)
    assert [len(events) for events in looks] == [0]  # the last look, after the lock fell


def test_a_damaged_journal_is_told_with_its_line(tmp_path: Path, kept: list[Kept]) -> None:
    run = written(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("[]\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl:6: damaged"):
        track(run, "kept", bars=SILENT)


def test_what_a_tracker_raises_is_one_line_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[Kept]
) -> None:
    run = written(tmp_path / "run")

    class Failing(Kept):
        def log(self, point: Point) -> None:
            raise ConnectionError("no route\nto the host")

    monkeypatch.setitem(trackers.TRACKERS, "failing", Failing)
    said = CliRunner().invoke(cli, ["track", str(run), "--to", "failing", "-q"])
    assert said.exit_code == 7
    assert said.stderr.strip() == (
        "exsearch: error: failing fails (ConnectionError: no route); "
        f"`exsearch track {run} --to failing` sends the rest"
    )
    monkeypatch.setitem(trackers.TRACKERS, "failing", Kept)
    assert track(run, "failing", bars=SILENT)["events"] == 5


def test_wrong_places_and_names_are_told(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="no tracker 'tensorbord'; did you mean tensorboard"):
        track(written(tmp_path / "run"), "tensorbord")
    (tmp_path / "empty").mkdir()
    monkeypatch.setitem(trackers.TRACKERS, "kept", Kept)
    for look in (lambda: track(tmp_path / "empty", "kept"), lambda: [*watch(tmp_path / "empty")]):
        with pytest.raises(RunError, match="no run; name a folder that `exsearch train` wrote"):
            look()
    monkeypatch.setattr(Kept, "package", "not_installed_anywhere", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'exsearch\[kept\]'"):
        track(tmp_path / "run", "kept")


def test_a_run_is_watched_by_its_steps(tmp_path: Path) -> None:
    run = written(tmp_path / "run", EVENTS[:1])
    with locked(run):
        events, text = next(watch(run))
        assert len(events) == 1 and "now: warm_up, learning, step 1 of 2 (last line" in text
    written(run, EVENTS[:2])
    with locked(run):
        assert "step 2 of 2, 4.0 s a step, 0:00:00 left of them" in next(watch(run))[1]
    looks = [*watch(run)]
    assert "nobody trains it now; run `exsearch train` again" in looks[-1][1]
    told = CliRunner().invoke(cli, ["show", str(run), "--watch", "--json"])
    assert [json.loads(line) for line in told.stdout.splitlines()] == EVENTS[:2]
    refused = CliRunner().invoke(cli, ["show", str(run), "--watch", "--page"])
    assert refused.exit_code == 2 and "--watch shows a run's figures" in refused.stderr


# --- while a run is trained -----------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """A warm-up of a few steps."""
    file = tmp_path / "r.toml"
    file.write_text(
        f'name = "r"\n[model]\nname = "{tiny_model_folder}"\ndevice = "cpu"\n'
        "[method]\npassages = 2\n[warm_up]\nexamples = 6\nquestions_per_step = 1\n"
        "[gem]\niterations = 0\ndev_questions = 2\n"
    )
    return file


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen]]:
    """The processes of trackers; what is left of them is killed at the end."""
    found: list[subprocess.Popen] = []
    really = subprocess.Popen

    def popen(*args: Any, **options: Any) -> subprocess.Popen:
        found.append(really(*args, **options))
        return found[-1]

    monkeypatch.setattr(job.subprocess, "Popen", popen)
    yield found
    for process in found:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a folder."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard_follows_a_run_to_its_end(recipe: Path, tmp_path: Path, started) -> None:
    pytest.importorskip("tensorboard")
    run, _ = train(recipe, out=tmp_path / "run", trackers=["tensorboard"], bars=SILENT)
    assert started[0].wait(timeout=60) == 0  # it ends by itself
    events = [*read_jsonl(run / "metrics.jsonl")]
    found = scalars(run / "tracking" / "tensorboard")
    dev = [e["em"] for e in events if e["event"] == "dev"]
    assert found["dev/em"] == [*enumerate(pytest.approx(em) for em in dev)]
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert [loss for _, loss in found["step/loss"]] == pytest.approx(losses)
    assert [at for at, _ in found["step/loss"]] == [*range(1, len(losses) + 1)]


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_a_tracker_that_is_killed_or_hangs_stops_no_run(
    harm: signal.Signals, recipe: Path, tmp_path: Path, started, monkeypatch, caplog
) -> None:
    pytest.importorskip("tensorboard")
    plain, best = train(recipe, out=tmp_path / "plain", bars=SILENT)
    start = job.start_tracker

    def harmed(run: Path, to: str) -> None:
        start(run, to)
        os.kill(started[-1].pid, harm)

    monkeypatch.setattr("exsearch.jobs.train.start_tracker", harmed)
    with caplog.at_level(logging.WARNING, "exsearch"):
        run, found = train(recipe, out=tmp_path / "run", trackers=["tensorboard"], bars=SILENT)
    assert (run / "tracking" / "tensorboard.log").exists()
    assert (found["stage"], found["dev"]["f1"]) == (best["stage"], best["dev"]["f1"])
    weights = [each / "warm_up" / "model" / "model.safetensors" for each in (plain, run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    if harm == signal.SIGKILL:
        for _ in range(100):
            if "tensorboard ended with -9" in caplog.text:
                break
            time.sleep(0.05)
        assert f"`exsearch track {run} --to tensorboard` sends the rest" in caplog.text
        assert track(run, "tensorboard", bars=SILENT)["events"] > 3  # nothing is lost
        assert "dev/em" in scalars(run / "tracking" / "tensorboard")


def test_a_tracker_that_is_not_there_is_told_before_a_run_begins(recipe: Path, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no tracker 'nobody'"):
        train(recipe, out=tmp_path / "run", trackers=["nobody"], bars=SILENT)
    assert not (tmp_path / "run").exists()
