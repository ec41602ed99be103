"""A job is the whole work of one command in one folder: training, an evaluation, a set of rollouts.

A job writes down what determines it, so that the same command goes on after a stop and another one
is refused. It does not print, and what it runs is built elsewhere (`build`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from exsearch.asking import (
    Asking,
    Showing,
    asked_questions,
    identity,
    questions_hash,
    worked,
)
from exsearch.build import (
    RECIPE_FILE,
    check_trainable,
    load_retriever,
    open_engine,
    resolve_model,
)
from exsearch.config import load_config, to_plain
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.engines.base import Sampling
from exsearch.errors import ConfigError, DataError, MissingExtraError
from exsearch.evaluation.evaluate import CHUNK
from exsearch.evaluation.evaluate import evaluate as evaluate_questions
from exsearch.evaluation.metrics import Rules
from exsearch.provenance import ENVIRONMENT_FILE, settle
from exsearch.retrievers.base import Retriever
from exsearch.runs import is_complete, locked, read_jsonl, sha256_file
from exsearch.training.recipe import DataConfig, EStepConfig, Recipe

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
EVALUATION_CHUNKS = "trajectories.chunks"


def train(
    recipe_file: Path,
    *,
    overrides: tuple[str, ...] = (),
    out: Path | None = None,
    progress: bool = True,
) -> tuple[Path, dict[str, Any]]:
    """Run a recipe to its end, or on from where it stopped.

    Returns:
        The run's folder and what its `best.json` says.

    Raises:
        ExSearchError: whatever stands in the way, in one line.
    """
    recipe = load_config(Recipe, recipe_file, overrides)
    check_trainable(recipe.model)
    try:
        from exsearch.training.loop import Loop
    except ImportError as error:
        raise MissingExtraError("training", "local", str(error)) from None
    folder = out or Path("runs") / recipe.name
    data = _data_files(recipe.data, recipe_file.parent)
    warm_up = recipe.warm_up
    if warm_up.file:
        data["warm_up"] = [recipe_file.parent / Path(warm_up.file).expanduser()]
        warm_up = dataclasses.replace(warm_up, file=str(data["warm_up"][0]))
    train_questions = load_questions(data["train"][0])
    dev = load_questions(data["dev"][0])
    with locked(folder):
        hashes = {
            f"{role} {path.name}": sha256_file(path)
            for role, files in data.items()
            for path in files
            if path.is_file()
        }
        now = {"recipe": to_plain(recipe), "data_sha256": hashes}
        settle(folder / RECIPE_FILE, now, folder / ENVIRONMENT_FILE, begun=_has_results(folder))
        engine = open_engine(recipe.model)
        retriever = _run_retriever(recipe, folder, data["corpus"], recipe_file.parent, progress)
        device = getattr(engine, "device", None)
        if device is None:  # of another package
            raise ConfigError(f"model.engine: {recipe.model.engine!r} has no weights to train")
        loop = Loop(
            dataclasses.replace(recipe, warm_up=warm_up),
            folder,
            train=train_questions,
            dev=dev,
            retriever=retriever,
            engine=engine,
            start=resolve_model(recipe.model.name),
            device=device,
            progress=progress,
        )
        return folder, loop.run()


def evaluate(
    asking: Asking,
    folder: Path,
    *,
    rules: Rules = "kilt",
    temperature: float = 0.0,
    retry_malformed: bool = True,
    showing: Showing | None = None,
    chunk: int = CHUNK,
    progress: bool = True,
) -> dict[str, Any]:
    """Answer a file of questions into a folder and score the answers, or go on with that.

    `chunk` questions are answered side by side: with fewer it takes longer, but the progress bar
    moves sooner.

    Returns:
        The figures, as `evaluation.evaluate.evaluate` gives them.

    Raises:
        RunError: the folder holds an evaluation with other settings.
        ExSearchError: whatever else stands in the way.
    """
    questions = asked_questions(asking)
    unanswered = [q.id for q in questions if not q.distinct_answers]
    if unanswered:
        raise DataError(
            f'question "{unanswered[0]}" has no answer ({len(unanswered)} such): only questions '
            "with answers can be evaluated; see `exsearch rollout`",
            file=asking.questions,
        )
    showing = showing or Showing()
    settings = {
        **identity(asking),
        "rules": rules,
        "temperature": temperature,
        "retry_malformed": retry_malformed,
        "worked_examples": showing.examples and [showing.examples, questions_hash(showing.source)],
    }
    if chunk != CHUNK:
        settings["chunk"] = chunk
    with locked(folder):
        chunks = folder / EVALUATION_CHUNKS
        begun = chunks.exists()
        settle(folder / SETTINGS_FILE, settings, folder / ENVIRONMENT_FILE, begun=begun)
        retriever = load_retriever(asking.index)
        engine = open_engine(asking.model)
        examples = worked(showing, retriever, engine, asking.agent)
        done = committed(chunks)
        with bar("evaluate", len(questions), "question", done, progress) as on_finished:
            return evaluate_questions(
                questions,
                engine,
                retriever,
                folder,
                agent=asking.agent,
                rules=rules,
                sampling=Sampling(temperature),
                seed=asking.seed,
                examples=examples,
                retry_malformed=retry_malformed,
                chunk=chunk,
                on_finished=on_finished,
            )


def rollout(
    asking: Asking, file: Path, config: EStepConfig, *, progress: bool = True
) -> dict[str, Any]:
    """Sample trajectories of a file of questions into JSON lines, weighed where answers are known.

    An engine that gives no token ids leaves nothing to weigh: all its trajectories are plain.

    Returns:
        Counts, and means over the weighed ones.

    Raises:
        RunError: the file was begun with other settings.
        ExSearchError: whatever else stands in the way.
    """
    from exsearch.training.e_step import sample_and_weigh

    questions = asked_questions(asking)
    settings = {**identity(asking), "sampling": to_plain(config)}
    commits = file.with_suffix(".chunks")
    with locked(file.parent, file.name):
        settings_file = file.with_suffix(".settings.json")
        environment_file = file.with_suffix(".environment.json")
        settle(settings_file, settings, environment_file, begun=commits.exists())
        retriever = load_retriever(asking.index)
        engine = open_engine(asking.model)
        if not engine.tokenizer.model_ids:
            logger.warning(
                "engine %s gives no token ids, so its trajectories are written without weights and "
                "can't be trained on; for that, sample with --engine transformers",
                asking.model.engine,
            )
        total = len(questions) * config.samples
        with bar("rollout", total, "trajectory", committed(commits), progress) as on_finished:
            chunks = sample_and_weigh(
                questions,
                engine,
                retriever,
                file,
                config,
                asking.agent,
                seed=asking.seed,
                iteration=0,
                on_finished=on_finished,
            )
    return {**rollout_figures(file), "failed": sum(c["failed"] for c in chunks)}


def rollout_figures(file: Path) -> dict[str, Any]:
    """Counts over a file of trajectories, with mean EM and weighted EM where answers are known."""
    from exsearch.evaluation.metrics import exact_match

    groups: dict[str, list[tuple[float, float]]] = {}
    counts: Counter[str] = Counter()
    for line in read_jsonl(file):
        trajectory = line.get("trajectory", line)
        counts[trajectory["stop_reason"]] += 1
        pairs = groups.setdefault(trajectory["question"]["id"], [])
        if "trajectory" in line:
            em = exact_match(trajectory["answer"], trajectory["question"]["answers"])
            pairs.append((line["weight"], em))
    samples = [pair for pairs in groups.values() for pair in pairs]
    signal = [pairs for pairs in groups.values() if any(weight for weight, _ in pairs)]
    weighted = [sum(w * em for w, em in pairs) / sum(w for w, _ in pairs) for pairs in signal]
    return {
        "questions": len(groups),
        "trajectories": sum(counts.values()),
        "weighed": len(samples),
        "em": sum(em for _, em in samples) / len(samples) if samples else None,
        "weighted_em": sum(weighted) / len(weighted) if weighted else None,
        "with_signal": len(signal),
        "stop_reasons": dict(counts),
    }


def _has_results(folder: Path) -> bool:
    """True where a run's folder holds more than what determines the run."""
    return any(
        file.is_file() and file.stat().st_size
        for place in folder.iterdir()
        if place.name not in (RECIPE_FILE, ENVIRONMENT_FILE) and not place.name.startswith(".")
        for file in (place, *place.rglob("*"))
    )


def committed(chunks: Path) -> int:
    """How many samples earlier calls have committed; see `runs.in_chunks`."""
    return sum(chunk["samples"] for chunk in read_jsonl(chunks))


@contextlib.contextmanager
def bar(
    name: str, total: int, unit: str, done: int, progress: bool
) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, with rate and remaining time; gives its `update`."""
    with tqdm(
        total=total, desc=name, unit=f" {unit}", initial=done, disable=not progress, mininterval=1
    ) as shown:

        def on_finished(count: int) -> None:
            shown.update(count)

        yield on_finished


def _data_files(data: DataConfig, base: Path) -> dict[str, list[Path]]:
    def path(name: str, sample: str) -> Path:
        return sample_path(sample) if name == "sample" else base / Path(name).expanduser()

    return {
        "corpus": [path(name, "corpus") for name in data.corpus],
        "train": [path(data.train, "train")],
        "dev": [path(data.dev, "dev")],
    }


def _run_retriever(
    recipe: Recipe, folder: Path, corpus: Sequence[Path], base: Path, progress: bool
) -> Retriever:
    if recipe.retriever.index:
        index = base / recipe.retriever.index
    else:
        index = folder / "index"
        if not is_complete(index):
            from exsearch.retrievers.bm25 import build_bm25

            build_bm25(read_corpus(corpus), index, progress=progress)
    return load_retriever(index, kind=recipe.retriever.kind, cache=recipe.retriever.cache)
