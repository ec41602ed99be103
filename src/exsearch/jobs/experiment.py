"""An experiment is a list of cells, each a method or a trained model on the same questions.

Cells are done one after the other, the most important first; what stands in the results is not done
again. Training and evaluating are other jobs'.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from exsearch.config import first_difference, load_config, to_plain, user_path
from exsearch.engines.config import ModelConfig
from exsearch.errors import ConfigError, RunError
from exsearch.evaluation.compare import System
from exsearch.evaluation.evaluate import PREDICTIONS_FILE, summarise
from exsearch.evaluation.metrics import all_metrics
from exsearch.evaluation.results import RESULT_FILE, result_row, write_result
from exsearch.evaluation.significance import mean_interval
from exsearch.jobs.evaluate import evaluate
from exsearch.jobs.inputs import Asking, ExampleSource, content_hash, question_file
from exsearch.jobs.provenance import environment
from exsearch.jobs.train import train
from exsearch.json_files import read_json
from exsearch.methods import open_method
from exsearch.models.settings import RECIPE_FILE, model_settings
from exsearch.progress import Bars
from exsearch.retrievers import is_address, open_retriever
from exsearch.runs import locked, read_jsonl
from exsearch.training.figures import training_cost
from exsearch.training.stages import METRICS_FILE, WARM_UP
from exsearch.trajectories import TRAJECTORIES_FILE, read_trajectories

logger = logging.getLogger(__name__)
_MAIN = ("method", "all ", "tokens", "learned")  # heads of the columns of a short table begin so
_MANY_HOPS = 3  # from so many on, questions have a column of their own


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of questions, of which the first ones are asked.

    Attributes:
        file: The question file.
        limit: The number of questions; 0 asks all.
        index: The index that is searched for them; empty takes the cell's.
    """

    file: str
    limit: int = 0
    index: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of an experiment's table.

    Attributes:
        name: The name of the row; it names the cell's folders.
        recipe: The recipe of the run that is trained first; empty for none.
        settings: Settings that replace the recipe's, by name, such as `"e_step.weighting"`. In a
            text `{work}` stands for the experiment's folder of runs, `{seed}` for the seed: the run
            of an earlier cell is `{work}/<cell>.{seed}/run`.
        model: The model, where nothing is trained; `{work}` and `{seed}` stand for what they do in
            `settings`.
        engine: The engine that runs it.
        method: A method's name and settings; empty takes the one that the model was trained by.
        stage: The stage of the run that is evaluated, such as `warm_up`; empty takes the best.
        examples: The number of solved questions that are shown to an untrained model.
        index: Another index than the experiment's.
        seeds: The seeds, each of which is a run and an evaluation.
        annotations: What the row learned from beside answers, for the table.
        minutes: What a seed takes, for the estimate until it is known.
    """

    name: str
    recipe: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: str = "smollm2-135m"
    engine: str = "transformers"
    method: dict[str, Any] = dataclasses.field(default_factory=dict)
    stage: str = ""
    examples: int = 0
    index: str = ""
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    annotations: str = ""
    minutes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A list of cells and what they are measured on.

    Attributes:
        parts: The question files by name; a question's id gets the name before it.
        cells: The cells, most important first.
        index: The index that all search.
        examples_from: The question file that worked examples come from.
        results: The folder for what is kept.
        work: The folder for runs and evaluations.

    Raises:
        ConfigError: two cells of one name, or a name that is no folder's.
    """

    parts: dict[str, Part]
    cells: list[Cell]
    index: str
    examples_from: str = ""
    results: str = "results"
    work: str = "runs"

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        for name in names:
            if not name or not all(sign.isalnum() or sign in "-_" for sign in name):
                raise ConfigError(f"cells: {name!r} is no name; use letters, digits, - and _")
            if names.count(name) > 1:
                raise ConfigError(f"cells: two are called {name!r}")


@dataclasses.dataclass(frozen=True)
class Task:
    """A cell with one seed.

    Attributes:
        cell: The cell.
        seed: The seed.
    """

    cell: Cell
    seed: int

    @property
    def key(self) -> str:
        """The name of its folders."""
        return f"{self.cell.name}.{self.seed}"


def tasks(experiment: Experiment) -> list[Task]:
    """All cells with their seeds: in the order of the list, the first seed of all before others."""
    most = max((len(cell.seeds) for cell in experiment.cells), default=0)
    return [
        Task(cell, cell.seeds[n])
        for n in range(most)
        for cell in experiment.cells
        if n < len(cell.seeds)
    ]


def remaining_minutes(experiment: Experiment, base: Path) -> tuple[int, float]:
    """The number of tasks that are not done, and what they will take.

    What a cell took with another seed counts before what its list says.
    """
    known: dict[str, float] = {}
    waiting: list[Task] = []
    for task in tasks(experiment):
        file = base / user_path(experiment.results) / task.key / RESULT_FILE
        if file.is_file():
            known[task.cell.name] = read_json(file, RunError, seconds=float)["seconds"] / 60
        else:
            waiting.append(task)
    return len(waiting), sum(known.get(t.cell.name, t.cell.minutes) for t in waiting)


def run_experiment(
    file: Path,
    *,
    only: Sequence[str] = (),
    minutes: float | None = None,
    bars: Bars | None = None,
) -> Iterator[str]:
    """Do the cells that are not done, and give the key of each as it is finished.

    Args:
        file: The list in TOML; the paths in it start at its own folder.
        only: The cells that are done, by name, or by name and seed as in `posterior.0`; all where
            it is empty.
        minutes: After so many, no further cell is begun; None sets no limit.
        bars: Opens the progress bars; None shows them.

    Raises:
        RunError: a result was made with other settings than the list now has.
        ExSearchError: whatever stands in the way of a cell.
    """
    bars, base = bars or Bars(), file.parent
    experiment = load_config(Experiment, file)
    keys = {name for task in tasks(experiment) for name in (task.cell.name, task.key)}
    if unknown := [name for name in only if name not in keys]:
        known = ", ".join(cell.name for cell in experiment.cells)
        raise ConfigError(f"{file}: no cell is called {unknown[0]!r}; there are {known}")
    began = time.monotonic()
    for task in tasks(experiment):
        if only and not {task.cell.name, task.key} & set(only):
            continue
        folder = base / user_path(experiment.results) / task.key
        settings = _settings(experiment, task, base)
        if (folder / RESULT_FILE).is_file():
            _check_same(folder, settings)
            continue
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            return
        with locked(folder):
            _do(experiment, task, base, folder, settings, bars)
        yield task.key


def _settings(experiment: Experiment, task: Task, base: Path) -> dict[str, Any]:
    """What determines a cell's result, by content."""
    cell = to_plain(task.cell)
    for name in ("seeds", "annotations", "minutes"):
        del cell[name]
    files = {
        name: {
            "sha256": content_hash(question_file(_file(base, part.file))),
            "limit": part.limit,
            "index": open_retriever(_file(base, _index(experiment, task.cell, part))).identity(),
        }
        for name, part in experiment.parts.items()
    }
    recipe = content_hash(base / user_path(task.cell.recipe)) if task.cell.recipe else None
    return {
        "cell": cell,
        "seed": task.seed,
        "parts": files,
        "recipe_sha256": recipe,
    }


def _index(experiment: Experiment, cell: Cell, part: Part) -> str:
    return part.index or cell.index or experiment.index


def _check_same(folder: Path, settings: dict[str, Any]) -> None:
    before = read_json(folder / RESULT_FILE, RunError, settings=dict)["settings"]
    difference = first_difference(before, json.loads(json.dumps(settings)))
    if difference:
        raise RunError(
            f"{folder}: made with other settings: {difference}; give the cell another name, undo "
            "the change, or move the folder away"
        )


def _do(
    experiment: Experiment,
    task: Task,
    base: Path,
    folder: Path,
    settings: dict[str, Any],
    bars: Bars,
) -> None:
    """Train where the cell has a recipe, answer all parts, and write the result."""
    cell, work = task.cell, base / user_path(experiment.work) / task.key
    given = {"work": str(base / user_path(experiment.work)), "seed": str(task.seed)}
    model = _filled(cell.model, given)
    if cell.recipe:
        overrides = tuple(o for k, v in cell.settings.items() for o in _overrides(k, v, given))
        overrides = (*overrides, f"seed={task.seed}")
        recipe = base / user_path(cell.recipe)
        run, _ = train(recipe, overrides=overrides, out=work / "run", bars=bars)
        model = str(run / cell.stage / "model" if cell.stage else run)
    training = _training(Path(model))
    own = training[-1:] if cell.recipe else []
    config = ModelConfig(name=model, engine=cell.engine)
    plain = model_settings(model)
    if cell.engine != "scripted":
        config = dataclasses.replace(
            config,
            system_prompt=plain.system_prompt,
            chat_template_kwargs=plain.chat_template_kwargs,
        )
    method = open_method(cell.method) if cell.method else plain.method
    source = ExampleSource(cell.examples, _file(base, experiment.examples_from))
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for name, part in experiment.parts.items():
        asking = Asking(
            questions=_file(base, part.file),
            index=_file(base, _index(experiment, cell, part)),
            model=config,
            method=method,
            limit=part.limit or None,
            seed=task.seed,
        )
        logger.info("%s: %s", task.key, name)
        figures[name] = evaluate(asking, work / name, examples=source, bars=bars)
        trajectories = read_trajectories(work / name / TRAJECTORIES_FILE)
        answered = read_jsonl(work / name / PREDICTIONS_FILE, id=str)
        rows += [result_row(r, t, name) for r, t in zip(answered, trajectories, strict=True)]
    every = [row for name in figures for row in read_jsonl(work / name / PREDICTIONS_FILE, id=str)]
    facts = {
        "settings": settings,
        "annotations": cell.annotations,
        "figures": {**figures, "all": summarise(every, all_metrics())},
        "training": training,
        "seconds": round(sum(f["seconds"] for f in [*figures.values(), *own]), 3),
        "environment": environment(),
    }
    write_result(folder, facts, rows)


def _training(model: Path) -> list[dict[str, Any]]:
    """What the runs took that a model came from, the first one first; empty for none.

    Args:
        model: A run, or the model of one of its stages, for which later ones don't count.
    """
    # A name is no folder, and must not be looked for where the command was called.
    places = (model, *model.parents[:2]) if model.is_dir() else ()
    run = next((f for f in places if (f / METRICS_FILE).is_file()), None)
    if run is None:
        return []
    stage = model.parent.name if run != model else ""
    events = read_jsonl(run / METRICS_FILE, stage=str, event=str)
    after = {WARM_UP: ""}.get(stage, stage or "~")  # the last iteration that counts
    kept = (e for e in events if e["stage"] == WARM_UP or e["stage"] <= after)
    start = read_json(run / RECIPE_FILE, RunError, recipe=dict)["recipe"]["model"]["name"]
    return [*_training(Path(start)), {"run": run.parent.name, **training_cost(kept)}]


def results_table(experiment: Experiment, base: Path, metric: str = "em") -> list[list[str]]:
    """What the results say, as the cells of a table with its heads, a line for each cell done.

    For each part the metric on the questions that can't be guessed, in percent; for all parts
    together the same, and on those of them that take three searches or more; and that on all
    questions. A question's value is the mean over seeds; their number has the standard deviation
    beside it where there are several. What training took is that of the first seed, with the runs
    that it began from. Minutes are the mean over seeds, of training and evaluation, without those
    runs.

    Args:
        experiment: The list.
        base: The folder of the list.
        metric: The name of the metric.

    Raises:
        RunError, DataError: a result is damaged.
    """
    rows: list[list[str]] = []
    counts: dict[str, int] = {}
    for cell in experiment.cells:
        kept = [base / user_path(experiment.results) / f"{cell.name}.{n}" for n in cell.seeds]
        done = [folder for folder in kept if (folder / RESULT_FILE).is_file()]
        if not done:
            continue
        system = System.read(done)
        first = system.seeds[0]
        neither = [id_ for id_, row in first.items() if row["group"] == "neither"]
        own = {p: [id_ for id_ in neither if first[id_]["part"] == p] for p in experiment.parts}
        counts = {part: len(ids) for part, ids in own.items()}
        long = [id_ for id_ in neither if (first[id_].get("hops") or 0) >= _MANY_HOPS]
        counts |= {"all neither": len(neither), f"{_MANY_HOPS}+ hops": len(long)}
        counts |= {"all questions": len(first)}
        results = [read_json(f / RESULT_FILE, RunError, training=list, seconds=float) for f in done]
        each = [fmean(float(row[metric]) for row in seed.values()) for seed in system.seeds]
        spread = f", {100 * stdev(each):.1f}" if len(each) > 1 else ""
        tokens = fmean(
            row["prompt_tokens"] + row["output_tokens"]
            for seed in system.seeds
            for row in seed.values()
        )
        rows.append(
            [
                cell.name,
                *(_mean(system.values(ids, metric)) for ids in own.values()),
                _mean(system.values(neither, metric), interval=True),
                _mean(system.values(long, metric)),
                _mean(system.values(list(first), metric), interval=True),
                f"{len(done)}{spread}",
                f"{tokens:.0f}",
                _told(results[0]["training"]),
                f"{fmean(result['seconds'] for result in results) / 60:.0f}",
                cell.annotations or "-",
            ]
        )
    heads = [f"{name} ({count})" for name, count in counts.items()]
    after = ["seeds, sd", "tokens a question", "steps, thousand tokens of training"]
    after += ["minutes a seed", "learned from"]
    return [["method", *heads, *after], *rows]


def main_table(experiment: Experiment, rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """A table of results without the columns of single parts, seeds and hops.

    Nor does it have the rows of sweeps: cells that ask another cell's model otherwise.

    Args:
        experiment: The list that was run.
        rows: What `results_table` gives.
    """
    again = {cell.name for cell in experiment.cells if "{seed}" in cell.model}
    kept = [n for n, head in enumerate(rows[0]) if head.startswith(_MAIN)]
    return [[row[n] for n in kept] for row in rows if row[0] not in again]


def _told(training: Sequence[dict[str, Any]]) -> str:
    """The optimizer steps, and the tokens that were trained on or sampled, of a chain of runs."""
    if not training:
        return "-"
    steps = sum(run["optimizer_steps"] for run in training)
    tokens = sum(run["trained_tokens"] + run["sampled_tokens"] for run in training)
    return f"{steps:.0f}, {tokens / 1000:.0f}"


def _mean(values: Sequence[float], *, interval: bool = False) -> str:
    """A mean in percent, with its 95 % interval where it is wanted."""
    if not values:
        return "-"
    low, high = mean_interval(values)
    beside = f" [{100 * low:.1f}, {100 * high:.1f}]" if interval else ""
    return f"{100 * fmean(values):.1f}{beside}"


def _overrides(name: str, value: Any, given: dict[str, str]) -> Iterator[str]:
    """A setting as `train` takes them, with the places in a text filled in.

    A section takes the place of the recipe's: it is emptied, and then filled key by key.
    """
    if isinstance(value, dict):
        yield f"{name}={{}}"
        for key, inner in value.items():
            yield from _overrides(f"{name}.{key}", inner, given)
        return
    value = _filled(value, given) if isinstance(value, str) else value
    yield f"{name}={json.dumps(value)}"


def _filled(text: str, given: dict[str, str]) -> str:
    for place, value in given.items():
        text = text.replace(f"{{{place}}}", value)
    return text


def _file(base: Path, name: str) -> str:
    """A file of the list, from its own folder; packaged samples and addresses keep their names."""
    if not name or is_address(name) or question_file(name) != user_path(name):
        return name
    return str(base / user_path(name))
