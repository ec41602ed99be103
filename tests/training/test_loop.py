"""A run can be killed anywhere: run again, it ends with the same bits as one left alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_world import METHOD, SECTIONS, annotate, save_files, save_small_model
from transformers import AutoModelForCausalLM

from exsearch.cli.failures import stopped_after, stopped_by_signals
from exsearch.engines import load_engine
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import ConfigError, RunError, TrainingError
from exsearch.jobs import train as train_job
from exsearch.models.settings import model_settings, resolve_model
from exsearch.progress import Bars
from exsearch.records import Question, StopReason
from exsearch.runs import is_complete, lines, locked, verify_folder
from exsearch.training import loop as loop_module
from exsearch.training.e_step import EStepConfig
from exsearch.training.figures import e_step_figures, objectives, paired_gain
from exsearch.training.journal import Journal
from exsearch.training.loop import Loop, window
from exsearch.training.recipe import GemConfig, Recipe, TeacherConfig, WarmUpConfig
from exsearch.trajectories import WeightedFile, read_trajectories

RECIPE = f"""
name = "small"
seed = 3
[model]
device = "cpu"
{SECTIONS}[warm_up]
examples = 6
questions_per_step = 2
learning_rate = 1e-4
[e_step]
questions = 6
samples = 2
chunk = 2
[m_step]
learning_rate = 1e-4
questions_per_step = 2
[gem]
iterations = 2
dev_questions = 4
probe_questions = 2
probe_samples = 2
checkpoint_seconds = 0.0
"""
STAGES = ("warm_up", "iteration-01", "iteration-02")


@pytest.fixture(scope="session")
def recipe(world, tmp_path_factory) -> Path:
    """A recipe over the small world; `--set model.name` says from which model."""
    folder = tmp_path_factory.mktemp("recipe")
    save_files(world, annotate(world, random.Random(0)), folder, train=40)
    file = folder / "small.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="session")
def train(recipe, fluent_folder):
    """Run the recipe in a folder, with overrides."""

    def train(out: Path, *overrides: str, model: Path = fluent_folder) -> dict[str, Any]:
        settings = (f"model.name={model}", *overrides)
        return train_job.train(recipe, overrides=settings, out=out, bars=Bars(False))[1]

    return train


@pytest.fixture(scope="session")
def undisturbed(train, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder)
    return folder


TIMES = ("sampling_seconds", "scoring_seconds", "turn_seconds")


def results(folder: Path) -> dict[str, str]:
    """SHA-256 of all weights and trajectories of a run, and the loss of every step."""
    files = [*folder.glob("*/model/model.safetensors"), *folder.glob("*/*.jsonl")]
    found = {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    for event in events(folder):
        if event["event"] == "step":
            figures = [event[k] for k in ("loss", "grad_norm", "learning_rate", "tokens")]
            found[f"{event['stage']} step {event['step']}"] = repr(figures)
        if event["event"] in ("m_step", "dev", "objective", "e_step", "probe"):
            other = ("time", "seconds", "resumed_at_step", *TIMES)
            figures = {k: v for k, v in event.items() if k not in other}
            found[f"{event['stage']} {event['event']}"] = repr(figures)
    return found


def events(folder: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


# --- a whole run ---


def test_a_whole_run(undisturbed):
    best = json.loads((undisturbed / "best.json").read_text())
    assert best["stage"] in STAGES
    assert best["dev"]["n"] == 4
    names = [(e["stage"], e["event"], e["step"]) for e in events(undisturbed)]
    assert len(set(names)) == len(names)
    expected = [("warm_up", "data", None), ("warm_up", "pool", None)]
    for stage in STAGES:
        if stage != "warm_up":
            expected.append((stage, "e_step", None))
        expected += [(stage, "step", n) for n in (1, 2, 3)]
        expected += [(stage, name, None) for name in ("m_step", "dev", "probe", "objective")]
    assert names == expected
    for stage in STAGES:
        verify_folder(undisturbed / stage / "model")
        assert not (undisturbed / stage / "checkpoint").exists()
    for event in events(undisturbed):
        if event["event"] == "step":
            assert 0 < event["loss"] < 1e6
            assert 0 < event["grad_norm"] < 1e6
        if event["event"] == "e_step":
            assert (event["questions"], event["trajectories"]) == (6, 12)
            assert 1 <= event["effective_sample_size"] <= 2
            assert event["weights_exact"] is True
        if event["event"] == "objective":
            assert (event["questions"], event["held_out"]) == (2, 2)
            assert (event["gain"] is None) == (event["stage"] == "warm_up")
    probed, dev = (
        [e for e in events(undisturbed) if e["event"] == event] for event in ("objective", "dev")
    )
    for before, after in itertools.pairwise(probed):
        assert after["gain"]["difference"] == pytest.approx(after["mean"] - before["mean"])
    assert dev[0]["gain"] is None
    for before, after in itertools.pairwise(dev):
        gain = after["gain"]
        assert gain["difference"] == pytest.approx(after["f1"] - before["f1"])
        assert (gain["metric"], gain["n"]) == ("f1", 4)
        assert gain["ci95"][0] <= gain["difference"] <= gain["ci95"][1]


def test_dev_is_greedy(undisturbed):
    """No reply is drawn anew at temperature 1, however malformed."""
    for stage in STAGES:
        for t in read_trajectories(undisturbed / stage / "dev" / "trajectories.jsonl"):
            assert t.truncated_sampling and not t.retries


def test_a_malformed_reply_on_dev_is_not_drawn_anew(train, tmp_path):
    """A model that knows no format: with retries each of its replies would be drawn twice."""
    save_small_model(tmp_path / "random", seed=5)
    most = ("warm_up.examples=0", "gem.iterations=0", "gem.probe_questions=0")
    best = train(tmp_path / "run", *most, model=tmp_path / "random")
    assert best["dev"]["malformed_share"] + best["dev"]["stop_reasons"].get("max_tokens", 0) > 0
    assert best["dev"]["retries"] == 0


def test_the_probe_says_how_much_of_it_was_learned_from(train, tmp_path):
    """A round of all questions takes the probe's as well."""
    train(tmp_path / "run", "e_step.questions=0", "gem.iterations=1", "gem.dev_questions=1")
    found = {e["stage"]: e["held_out"] for e in events(tmp_path / "run") if "held_out" in e}
    assert found == {"warm_up": 2, "iteration-01": 0}


def test_another_runs_samples_are_weighed_in_place_of_drawing_them(train, undisturbed, tmp_path):
    """With the same weights the model after them is the same; with others the samples still are."""
    shared = f"e_step.samples_of={undisturbed}"
    train(tmp_path / "same", shared, "gem.iterations=1")
    first = Path("iteration-01")
    for name in ("trajectories.jsonl", "model/model.safetensors"):
        ours, theirs = tmp_path / "same" / first / name, undisturbed / first / name
        assert ours.read_bytes() == theirs.read_bytes(), name
    borrowed, drawn = (
        next(e for e in events(run) if (e["stage"], e["event"]) == (str(first), "e_step"))
        for run in (tmp_path / "same", undisturbed)
    )
    assert borrowed == {**drawn, "time": borrowed["time"], "samples_of": str(undisturbed)}

    train(tmp_path / "uniform", shared, "e_step.weighting=uniform")
    weights: dict[str, list[float]] = {}
    for name, weighed in ((tmp_path / "uniform", 0.5), (undisturbed, None)):
        items = list(WeightedFile(name / first / "trajectories.jsonl"))
        weights[str(name)] = [item.weight for item in items]
        assert weighed is None or {item.weight for item in items} <= {weighed, 1.0, 0.0}
    assert len({tuple(w) for w in weights.values()}) == 2
    second = [
        r / "iteration-02" / "trajectories.jsonl" for r in (tmp_path / "uniform", undisturbed)
    ]
    assert second[0].read_bytes() != second[1].read_bytes()  # drawn by a model of its own


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("seed=4", "otherwise: seed"),
        ("e_step.samples=3", "otherwise: e_step.samples"),
        ("warm_up.epochs=2", "otherwise: warm_up.epochs"),
        ("e_step.questions=5", "for other questions"),
        ("e_step.samples_of=nowhere", "has not finished its first E-step"),
    ],
)
def test_samples_that_the_run_would_not_have_drawn_are_refused(
    setting, what, train, undisturbed, tmp_path
):
    with pytest.raises(RunError, match=what):
        train(tmp_path / "run", f"e_step.samples_of={undisturbed}", setting, "gem.iterations=1")


def test_without_dev_questions_the_last_stage_counts(train, tmp_path):
    best = train(tmp_path / "run", "data.dev=", "gem.iterations=1", "gem.action_questions=2")
    assert best["stage"] == "iteration-01"
    assert (best["selected_by"], best["dev"]) == ("the last stage", None)


def test_another_metrics_name_of_before_chooses_the_best(train, tmp_path):
    settings = ("gem.select_by=answer_recall_at_k", "gem.iterations=0", "gem.probe_questions=0")
    best = train(tmp_path / "run", *settings)
    assert best["stage"] == "warm_up"
    assert best["selected_by"] == "dev union_answer_recall"


def test_the_run_is_a_model(undisturbed):
    best = json.loads((undisturbed / "best.json").read_text())
    assert resolve_model(undisturbed) == str(undisturbed / best["model"])
    assert model_settings(undisturbed).method == METHOD
    AutoModelForCausalLM.from_pretrained(undisturbed / best["model"])
    assert load_engine(undisturbed, device="cpu").tokenizer.encode("born")


def test_warm_up_and_iterations_use_different_questions(undisturbed):
    used = [
        {i.trajectory.question.id for i in WeightedFile(undisturbed / s / "trajectories.jsonl")}
        for s in STAGES
    ]
    assert [len(ids) for ids in used] == [6, 6, 6]
    assert len(set.union(*used)) == 18


class Windows(Loop):
    """A loop that notes what each round is given, and trains nothing."""

    def _m_step(self, name, items, config):
        self.taught = {item.trajectory.question.id for item in items}

    def _iterate(self, name, iteration, pool):
        self.pool = {q.id for q in pool}
        size = self.recipe.e_step.questions
        self.rounds = [*getattr(self, "rounds", []), window(pool, size, iteration)]


def half_known(world, annotated, chat: str) -> str:
    """A teacher that answers every other question right, by the small world's own format."""
    turn = chat.split("User: ")[-1]
    if "Query: " in turn:
        return f"[1] {turn.split('[1] ')[1].splitlines()[0].removeprefix(': ')}"
    _, fact, person = turn.split("Question: ")[1].split("\n")[0].split()
    if "Notes:\nnone" in turn:
        return f"Search: {fact} {person}"
    ids = [q.id for q in world.questions]
    number = ids.index(f"{fact}-{person.removeprefix('Person')}")
    return f" {annotated[number].answers[0] if number % 2 else 'Nowhere'}"  # the frame is forced


@pytest.mark.parametrize("source", ["decomposition", "teacher"])
def test_what_warm_up_passed_over_has_its_natural_share_in_every_window(
    source, world, world_retriever, fluent_folder, tmp_path
):
    """Half of the questions give warm-up nothing, and no round takes them before the others."""
    annotated = annotate(world, random.Random(0))
    train = annotated
    if source == "decomposition":
        pairs = enumerate(annotated)
        train = [q if n % 2 else dataclasses.replace(q, decomposition=()) for n, q in pairs]
    gives = {q.id for q in annotated[1::2]}
    engine = load_engine(fluent_folder, device="cpu")
    warm_up = WarmUpConfig(examples=20, source=source)
    gem = GemConfig(iterations=4, dev_questions=0, probe_questions=8)
    teacher = TeacherConfig(model="scripted", engine="scripted", temperature=0.0)
    shares, runs = [0.0] * gem.iterations, 12
    for seed in range(runs):
        recipe = Recipe(
            "r", seed, method=METHOD, warm_up=warm_up, gem=gem, teacher=teacher,
            e_step=EStepConfig(questions=12),
        )  # fmt: skip
        loop = Windows(
            recipe,
            tmp_path / str(seed),
            train=train,
            dev=[],
            retriever=world_retriever,
            engine=engine,
            start=fluent_folder,
            device=engine.device,
            open_teacher=lambda: ScriptedEngine(functools.partial(half_known, world, annotated)),
            bars=Bars(False),
        )
        loop._measure = lambda *names: None
        loop.run()
        assert loop.taught <= gives and len(loop.taught) == 20
        asked = [q.id for questions in loop.rounds for q in questions]
        assert len(set(asked)) == 48 and not loop.taught & set(asked)
        (pool,) = [e for e in events(tmp_path / str(seed)) if e["event"] == "pool"]
        assert pool["questions"] == 60
        assert pool["passed_over"] >= 10
        order = [q.id for q in loop.train]
        passed_over = set(order[: max(map(order.index, loop.taught))]) - loop.taught
        assert not passed_over & gives
        natural = len(passed_over) / len(loop.pool)
        for n, questions in enumerate(loop.rounds):
            shares[n] += (sum(q.id in passed_over for q in questions) / 12 - natural) / runs
    assert shares == pytest.approx([0.0] * gem.iterations, abs=0.1)


def test_a_finished_run_is_left_alone(undisturbed, train, monkeypatch):
    before = results(undisturbed)
    monkeypatch.setattr(loop_module.Loop, "_iterate", None)  # training would fail
    assert train(undisturbed) == json.loads((undisturbed / "best.json").read_text())
    assert results(undisturbed) == before


# --- stopping and going on ---


class Killed(BaseException):
    """Stands for the process's end: nothing in the package may catch and swallow it."""


def until_finished(train, folder: Path, *overrides: str, most: int = 100) -> int:
    """Run again and again until a run comes to its end; how often it was killed."""
    for kills in range(most):
        try:
            train(folder, *overrides)
        except Killed:
            continue
        return kills
    raise AssertionError(f"still not finished after {most} starts")


def test_killed_after_every_event(train, undisturbed, tmp_path, monkeypatch):
    """Each process gets one event further than the last: every stage and step is a stop."""
    log = Journal.log

    def log_and_die(self: Journal, *args: Any, **values: Any) -> None:
        before = self.file.stat().st_size if self.file.exists() else 0
        log(self, *args, **values)
        if self.file.stat().st_size > before:
            raise Killed

    monkeypatch.setattr(Journal, "log", log_and_die)
    assert until_finished(train, tmp_path / "run") == len(events(undisturbed))
    assert results(tmp_path / "run") == results(undisturbed)


def test_killed_after_every_checkpoint_and_chunk(train, undisturbed, tmp_path, monkeypatch):
    kills = []

    def then_die(function):
        def wrapped(*args: Any, **settings: Any) -> Any:
            result = function(*args, **settings)
            kills.append(function.__name__)
            raise Killed
            return result

        return wrapped

    commit = lines.append_jsonl

    def commit_and_die(path: Path, new: Any) -> None:
        commit(path, new)
        if path.suffix == ".chunks":
            kills.append("chunk")
            raise Killed

    monkeypatch.setattr(loop_module, "save_training", then_die(loop_module.save_training))
    monkeypatch.setattr(loop_module, "save_model", then_die(loop_module.save_model))
    monkeypatch.setattr(lines, "append_jsonl", commit_and_die)
    until_finished(train, tmp_path / "run")
    # a stage saves after its first two steps, and is named after the third
    assert (kills.count("save_training"), kills.count("save_model")) == (6, 3)
    assert kills.count("chunk") == 2 * 3 + 3 * 1 + 3 * 1  # E-steps, dev, probes
    assert results(tmp_path / "run") == results(undisturbed)


def test_the_disk_is_tried_before_a_run_learns_and_not_again(train, tmp_path, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError("full")

    def die(*args: Any) -> None:
        raise Killed

    monkeypatch.setattr(loop_module, "save_drill", full)
    with pytest.raises(OSError, match="full"):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    monkeypatch.undo()
    monkeypatch.setattr(loop_module, "save_model", die)
    with pytest.raises(Killed):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / ".drill").exists()
    monkeypatch.setattr(loop_module, "save_drill", full)
    with pytest.raises(Killed):  # it goes on from the checkpoint that it has
        train(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM])
def test_a_stop_saves_the_step_under_way_first(train, undisturbed, tmp_path, monkeypatch, number):
    step = loop_module.m_step
    never = "gem.checkpoint_seconds=1e9"

    def interrupted(*args: Any, on_step: Any, **settings: Any) -> Any:
        def with_ctrl_c(figures: dict[str, float]) -> None:
            if figures["step"] == 2:
                signal.raise_signal(number)
            on_step(figures)

        return step(*args, on_step=with_ctrl_c, **settings)

    monkeypatch.setattr(loop_module, "m_step", interrupted)
    with pytest.raises(KeyboardInterrupt) as stop, stopped_by_signals(), stopped_after(600):
        handler = signal.getsignal(number)
        try:
            train(tmp_path / "run", never)
        finally:
            assert signal.getsignal(number) is handler
    assert getattr(stop.value, "number", signal.SIGINT) == number
    checkpoint = tmp_path / "run" / "warm_up" / "checkpoint"
    assert is_complete(checkpoint)
    assert json.loads((checkpoint / "training_state.json").read_text()) == {"step": 2}
    if number != signal.SIGINT:
        return  # it goes on from there as after Ctrl-C
    monkeypatch.undo()
    train(tmp_path / "run", never)
    (m_step,) = [
        e for e in events(tmp_path / "run") if (e["stage"], e["event"]) == ("warm_up", "m_step")
    ]
    assert m_step["resumed_at_step"] == 2
    assert results(tmp_path / "run") == results(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_random_kills(recipe, fluent_folder, tmp_path):
    """SIGKILL of a real process at random moments; at the end, the weights are the same bits."""

    def start(folder: Path) -> subprocess.Popen[bytes]:
        code = "from exsearch.cli import main; main()"
        command = ["train", str(recipe), "--set", f"model.name={fluent_folder}"]
        return subprocess.Popen(
            [sys.executable, "-c", code, *command, "--out", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )

    def finish(process: subprocess.Popen[bytes]) -> None:
        _, err = process.communicate()
        assert process.returncode == 0, err.decode()[-2000:]

    began = time.monotonic()
    process = start(tmp_path / "undisturbed")
    while not (tmp_path / "undisturbed" / "recipe.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    loading = time.monotonic() - began
    finish(process)
    working = time.monotonic() - began - loading
    expected = results(tmp_path / "undisturbed")
    draw, kills, finished = random.Random(0), 0, 0
    while kills < 20:
        folder = tmp_path / f"killed-{finished}"
        process = start(folder)
        try:
            process.communicate(timeout=loading + draw.random() * working / 3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0
            assert results(folder) == expected
            finished += 1
    folder = tmp_path / f"killed-{finished}"
    finish(start(folder))
    assert results(folder) == expected
    left = [p for p in folder.rglob(".*") if p.is_dir()]
    assert not left  # the half-written models of killed processes are cleared away
    print(f"\n20 kills over {finished + 1} runs of {working:.0f} s")  # noqa: T201


def test_a_run_of_an_older_version_goes_on_in_its_own_order(
    train, undisturbed, tmp_path, monkeypatch, caplog
):
    """It logged no pool. Its rounds keep their questions, and one line says so."""
    iterate = Loop._iterate
    monkeypatch.setattr(Loop, "_reshuffled", lambda self: self.train)
    monkeypatch.setattr(Loop, "_iterate", None)
    with pytest.raises(TypeError):
        train(tmp_path / "run")
    monkeypatch.undo()
    orders = []

    def watched(self: Loop, name: str, iteration: int, pool: Any) -> None:
        orders.append([q.id for q in pool])
        assert not {q.id for q in pool} & self._learned or iteration > 1
        expected = [q.id for q in self.train if q.id in orders[-1]]
        assert orders[-1] == expected  # as they were shuffled once
        iterate(self, name, iteration, pool)

    monkeypatch.setattr(Loop, "_iterate", watched)
    train(tmp_path / "run")
    assert [len(order) for order in orders] == [34, 34]
    said = [r.message for r in caplog.records if "older version" in r.message]
    assert len(said) == 1 and "name another --out" in said[0]


# --- other settings ---


def test_another_recipe_in_the_same_folder_is_refused(undisturbed, train):
    with pytest.raises(RunError, match=r"m_step\.learning_rate was 0\.0001, is now 1e-05"):
        train(undisturbed, "m_step.learning_rate=1e-5")


def test_two_processes_on_one_run_are_refused(undisturbed, train):
    with locked(undisturbed), pytest.raises(RunError, match="another process is working"):
        train(undisturbed)


def test_only_malformed_trajectories_stop_the_run(train, tmp_path):
    save_small_model(tmp_path / "random", seed=5)
    with pytest.raises(TrainingError, match="no sampled trajectory reached an answer"):
        train(tmp_path / "run", "warm_up.examples=0", model=tmp_path / "random")
    assert not (tmp_path / "run" / "best.json").exists()
    # It can be mended in place, as it says: nothing was learned yet.
    folder, index = tmp_path / "run", (tmp_path / "run" / "index").stat().st_ino
    best = train(folder, "warm_up.examples=2", "gem.iterations=0", model=tmp_path / "random")
    assert best["stage"] == "warm_up"
    assert {e["stage"] for e in events(folder)} == {"warm_up"}
    assert (folder / "before-01" / "iteration-01" / "trajectories.jsonl").stat().st_size
    assert (folder / "index").stat().st_ino == index
    with pytest.raises(
        RunError, match=r"begun with other settings: recipe\.warm_up\.examples was 2"
    ):
        train(folder, "warm_up.examples=3", "gem.iterations=0", model=tmp_path / "random")


@pytest.mark.parametrize("missing", ["retriever", "gem.patience", "warm_up.lora_alpha"])
def test_a_key_that_an_older_recipe_had_not_makes_no_difference(
    undisturbed, train, tmp_path, missing
):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    settings = json.loads((folder / "recipe.json").read_text())
    *sections, key = missing.split(".")
    values = settings["recipe"]
    for section in sections:
        values = values[section]
    del values[key]
    (folder / "recipe.json").write_text(json.dumps(settings))
    assert train(folder)["stage"] in STAGES
    with pytest.raises(RunError, match=r"retriever\.cache was 100000, is now 7"):
        train(folder, "retriever.cache=7")


def test_warm_up_that_leaves_no_question_is_refused(train, tmp_path):
    with pytest.raises(ConfigError, match="warm-up used all 40 train questions"):
        train(tmp_path / "run", "warm_up.examples=1000")


def test_only_kept_models_stay_and_a_finished_run_needs_no_other(train, tmp_path):
    folder = tmp_path / "run"
    best = train(folder, "gem.keep_models=false", "gem.probe_questions=0")
    kept = {stage for stage in STAGES if (folder / stage / "model").exists()}
    assert kept == {best["stage"], STAGES[-1]}
    assert train(folder, "gem.keep_models=false", "gem.probe_questions=0") == best
    assert {stage for stage in STAGES if (folder / stage / "model").exists()} == kept


def test_alarms_are_looked_for_after_each_round_unless_turned_off(train, tmp_path, monkeypatch):
    rung: list[str] = []
    monkeypatch.setattr(train_job, "ring", lambda folder, stage: rung.append(stage))
    short = ("gem.iterations=1", "gem.probe_questions=0")
    train(tmp_path / "on", *short)
    train(tmp_path / "off", *short, "gem.alarms=false")
    assert rung == ["iteration-01"]


def test_an_adapter_keeps_the_model_that_it_stands_on(train, tmp_path):
    folder = tmp_path / "run"
    lora = ("m_step.lora_rank=2", "gem.keep_models=false", "gem.probe_questions=0")
    train(folder, *lora)
    for stage in STAGES[1:]:
        if (folder / stage / "model").exists():
            assert (folder / stage / "model" / "adapter_config.json").exists()
            load_engine(folder / stage / "model", device="cpu")
    assert (folder / STAGES[-1] / "model").exists()
    assert is_complete(folder / "warm_up" / "model")


def test_patience_ends_a_run_that_no_longer_gets_better(train, tmp_path, monkeypatch):
    scores = iter([0.5, 0.4, 0.3, 0.2])
    evaluate = loop_module.evaluate

    def worse(*args: Any, **settings: Any) -> dict[str, Any]:
        return {**evaluate(*args, **settings), "f1": next(scores)}

    monkeypatch.setattr(loop_module, "evaluate", worse)
    best = train(tmp_path / "run", "gem.iterations=3", "gem.patience=1", "gem.probe_questions=0")
    assert best["stage"] == "warm_up"
    assert not (tmp_path / "run" / "iteration-02").exists()


def test_without_training_the_best_is_what_it_began_with(train, tmp_path, fluent_folder):
    best = train(tmp_path / "run", "warm_up.examples=0", "gem.iterations=0")
    assert (best["stage"], best["model"]) == ("start", str(fluent_folder))
    assert resolve_model(tmp_path / "run") == str(fluent_folder)


# --- small parts ---


def test_windows_go_round_the_pool():
    pool = [Question(str(n), "?") for n in range(5)]
    ids = ["".join(q.id for q in window(pool, 2, i)) for i in (1, 2, 3, 4)]
    assert ids == ["01", "23", "40", "12"]
    assert len(window(pool, 99, 2)) == 5


def test_e_step_figures_by_hand(weighted):
    def item(question, sample, weight, score, **fields):
        made = weighted(
            ([5, 6], [3, 9, 2]), question=Question(question, "?", ("Paris",)), sample=sample,
            weight=weight, **fields,
        )  # fmt: skip
        scores = () if score == -math.inf else (score,)
        return dataclasses.replace(made, answer_log_probs=scores)

    malformed = {"stop_reason": StopReason.MALFORMED, "answer": "", "answer_start": None}
    items = [
        item("a", 0, 0.75, math.log(0.75)),
        item("a", 1, 0.25, math.log(0.25), answer="London"),
        item("b", 0, 0.0, -math.inf, **malformed),
        item("b", 1, 0.0, -math.inf, **malformed),
    ]
    figures = e_step_figures(items, EStepConfig())
    assert (figures["questions"], figures["trajectories"]) == (2, 4)
    assert figures["effective_sample_size"] == pytest.approx(1 / (0.75**2 + 0.25**2))
    assert figures["share_without_signal"] == 0.5
    assert figures["em"] == 0.25
    assert figures["weighted_em"] == 0.75
    # question a: log(1/2 · (3/4 + 1/4)) = log 1/2; question b: the floor of -20
    assert figures["objective"] == pytest.approx((math.log(0.5) - 20) / 2)
    assert figures["stop_reasons"] == {"answered": 2, "malformed": 2}
    assert figures["mean_best_answer_log_prob"] == pytest.approx(math.log(0.75))
    assert (figures["output_tokens"], figures["prompt_tokens"]) == (12, 8)


def test_the_objective_is_corrected_for_the_proposal(weighted):
    """By hand: p(z) is half of q(z) for one sample of two, and the same for the other."""
    call = ([5, 6], [3, 9, 2])  # one token of z
    score = {"answers": ((1, 2),), "shares": [0.5]}
    items = [
        weighted(call, **score, log_probs=-1.0, proposal_log_probs=-1.0 + math.log(2)),
        weighted(call, **score, sample=1),
    ]
    expected = math.log((0.5 * 0.5 + 0.5) / 2)
    for corrected in (True, False):  # it is an estimate of p(y*|x), whatever the weights are
        config = EStepConfig(proposal_correction=corrected)
        assert e_step_figures(items, config)["objective"] == pytest.approx(expected)
    assert objectives(items) == {"q": pytest.approx(expected)}


def test_a_gain_is_paired():
    """The questions differ by far more than the stages do."""
    before = {"a": -9.0, "b": -1.0, "c": -4.0, "only here": 0.0}
    mean, error = paired_gain({"a": -8.5, "b": -0.5, "c": -3.8}, before)
    assert mean == pytest.approx(0.4)
    assert error == pytest.approx(0.1)


def test_weights_are_exact_where_every_record_says_so(weighted):
    def exact(*items, corrected=True, **settings):
        config = EStepConfig(proposal_correction=corrected, **settings)
        return e_step_figures(items, config)["weights_exact"]

    call = ([5, 6], [3, 9, 2])
    plain = weighted(call)
    other = weighted(call, proposal_log_probs=-1.5)
    assert exact(plain) and exact(plain, corrected=False)
    assert exact(plain, other)
    assert not exact(plain, other, corrected=False)
    # Whatever the records say, other figures than the method's weights are not exact.
    for weighting in ("likelihood", "uniform", "best", "correct"):
        assert not exact(plain, weighting=weighting)
    assert not exact(plain, weight_temperature=0.5)
    assert not exact(plain, length_normalized=True)
    assert not exact(plain, temperature=0.0, samples=1)  # greedy, of a model that is always sure
    for change in ({"retries": 1}, {"truncated_sampling": True}):
        item = dataclasses.replace(
            other, trajectory=dataclasses.replace(other.trajectory, **change)
        )
        assert not exact(plain, item)
