"""A training run is a recipe carried out in a folder, to its end or on from where it stopped.

It opens what the recipe names and hands it to the loop; it samples and trains nothing itself.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exsearch.config import (
    first_difference,
    load_config,
    parse_config,
    set_value,
    to_plain,
    user_path,
)
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions, tell_unanswered
from exsearch.engines import check_engine, open_engine
from exsearch.errors import ConfigError, MissingExtraError
from exsearch.hosts import host_of, is_named
from exsearch.jobs.alarms import ring
from exsearch.jobs.provenance import (
    ENVIRONMENT_FILE,
    below,
    refuse_others,
    settle,
    written_down,
)
from exsearch.jobs.teacher import open_teacher
from exsearch.jobs.track import TRACKING, start_tracker
from exsearch.models.settings import RECIPE_FILE, resolve_model
from exsearch.progress import Bars
from exsearch.retrievers import build_index, is_address, open_retriever
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import guarded
from exsearch.retrievers.servers.address import secret_name
from exsearch.runs import is_complete, locked, make_folder, sha256_file
from exsearch.tracking.trackers import find_tracker
from exsearch.training.recipe import DataConfig, Recipe, RetrieverConfig
from exsearch.training.stages import START, TAUGHT_FILE, WARM_UP, RunFolder

logger = logging.getLogger(__name__)


def train(
    recipe_file: Path,
    *,
    overrides: tuple[str, ...] = (),
    out: Path | None = None,
    hosts: Sequence[str] = (),
    confirm: Callable[[str], bool] = lambda question: False,
    trackers: Sequence[str] = (),
    bars: Bars | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Run a recipe to its end, or on from where it stopped.

    Args:
        recipe_file: A recipe in TOML; the paths in it start at its own folder.
        overrides: Values that replace the recipe's, each as `key.sub=value`.
        out: The run's folder; None takes `runs/<the recipe's name>`.
        hosts: The hosts that the recipe may have asked, by name; those in `overrides` need none.
        confirm: A function that is asked about any other host, with a question for a person.
        trackers: The names of trackers that are sent the figures.
        bars: Opens the progress bars; None shows them.

    Returns:
        The run's folder, and the content of its `best.json`.

    Raises:
        ExSearchError: whatever stands in the way, in one line.
    """
    bars = bars or Bars()
    recipe = load_config(Recipe, recipe_file, overrides)
    check_engine(recipe.model, to_train=True)
    for name in trackers:
        find_tracker(name)
    _check_hosts(recipe, recipe_file, overrides, hosts, confirm)
    try:
        from exsearch.training.loop import Loop
    except ImportError as error:
        raise MissingExtraError("training", "local", str(error)) from None
    folder, base = out or Path("runs") / recipe.name, recipe_file.parent
    files = _data_files(recipe.data, base)
    warm_up, teacher = recipe.warm_up, recipe.teacher
    if warm_up.file:
        files["warm_up"] = [base / user_path(warm_up.file)]
        warm_up = dataclasses.replace(warm_up, file=str(files["warm_up"][0]))
    questions = {
        role: load_questions(files[role][0]) if files[role] else [] for role in ("train", "dev")
    }
    named = {f"{role} {path.name}": path for role, paths in files.items() for path in paths}
    hashes = {name: sha256_file(path) for name, path in named.items() if path.is_file()}
    settings: dict[str, Any] = {"recipe": to_plain(recipe), "data_sha256": hashes}
    retriever = _named_retriever(recipe.retriever, base, hosts)
    if retriever:
        settings["index"] = retriever.identity()
    refuse_others_in_run(folder)
    with locked(folder):
        begun = _has_results(folder) and not _mended(folder, settings)
        environment_file = folder / ENVIRONMENT_FILE
        settle(folder / RECIPE_FILE, settings, environment_file, begun=begun, today=_today)
        for name in trackers:
            start_tracker(folder, name)
        for role, asked in questions.items():
            if files[role]:
                tell_unanswered(asked, files[role][0], f"they are left out of {role}")
        engine = open_engine(recipe.model)
        if not engine.trains:
            raise ConfigError(f"model.engine: {recipe.model.engine!r} has no weights to train")
        loop = Loop(
            dataclasses.replace(recipe, warm_up=warm_up),
            folder,
            train=questions["train"],
            dev=questions["dev"],
            retriever=retriever or _own_retriever(recipe.retriever, folder, files["corpus"], bars),
            engine=engine,
            start=resolve_model(recipe.model.name),
            device=engine.device,
            open_teacher=(lambda: open_teacher(teacher)) if teacher else None,
            on_round=functools.partial(ring, folder) if recipe.gem.alarms else None,
            bars=bars,
        )
        return folder, loop.run()


def _check_hosts(
    recipe: Recipe,
    file: Path,
    overrides: Sequence[str],
    hosts: Sequence[str],
    confirm: Callable[[str], bool],
) -> None:
    """Make sure that the user knows each host that the recipe would send something to."""
    given: dict[str, Any] = {}
    for override in overrides:
        set_value(given, override)
    model, teacher, index = recipe.model, recipe.teacher, recipe.retriever.index
    found = [("model.base_url", model.base_url, model.api_key_env)]
    if teacher and teacher.engine == "openai" and recipe.warm_up.source == "teacher":
        found.append(("teacher.base_url", teacher.base_url, teacher.api_key_env))
    if index and is_address(index):
        found.append(("retriever.index", index, secret_name(index)))
    for name, address, key in found:
        section, part = name.split(".")
        if not address or given.get(section, {}).get(part) == address:
            continue
        host = host_of(address)
        if not host:
            continue  # a file or a socket of this machine
        sent = f", and the key in {key} where one is set" if key else ""
        asks = f"{file} sends questions to {host} ({name}){sent}"
        if not is_named(host, hosts) and not confirm(f"{asks}. Go on?"):
            raise ConfigError(f"{asks}: if you know that host, name it: --allow-host {host}")


def refuse_others_in_run(folder: Path) -> None:
    """Make sure that a run writes only where it began, or where nothing is.

    An index, test results and what a teacher has finished may be there before it begins.

    Raises:
        RunError: something else stands there, or a link.
    """
    places = below(folder, "index", "test", "warm_up/teacher.jsonl")
    refuse_others(folder / RECIPE_FILE, ("recipe", "data_sha256"), places)


def _today(before: Any) -> Any:
    return {**before, "recipe": to_plain(parse_config(Recipe, before["recipe"]))}


def _mended(folder: Path, settings: dict[str, Any]) -> bool:
    """Let other settings into a run that has learned nothing; what the old ones made goes aside.

    What a teacher was paid for stays, where the student is to do the same.
    """
    run, file = RunFolder(folder), folder / RECIPE_FILE
    if run.has_learned or run.best.exists() or not file.exists():
        return False
    before = written_down(file, _today)
    difference = first_difference(before, json.loads(json.dumps(settings)))
    if not difference:
        return False
    taught = folder / WARM_UP / TAUGHT_FILE
    made = [run.metrics, folder / START, folder / WARM_UP, *folder.glob("iteration-*")]
    if _part(before, "data", "retriever") != _part(settings, "data", "retriever"):
        made.append(folder / "index")
    aside = next(f for n in itertools.count(1) if not (f := folder / f"before-{n:02d}").exists())
    for place in made:
        if place.exists():
            make_folder(aside)
            place.rename(aside / place.name)
    names = ("data", "retriever", "method", "teacher")
    if (aside / WARM_UP / TAUGHT_FILE).exists() and _part(before, *names) == _part(
        settings, *names
    ):
        make_folder(taught.parent)
        (aside / WARM_UP / TAUGHT_FILE).rename(taught)
    logger.warning("%s: learned nothing yet, so it begins anew: %s", folder, difference)
    if aside.exists():
        logger.warning("what it had made is put aside in %s", aside)
    return True


def _part(settings: dict[str, Any], *names: str) -> list[Any]:
    """These sections of a recipe as plain values, with the hashes of its data."""
    recipe = settings.get("recipe", {})
    values = [{**(recipe.get(name) or {}), "keep": ""} for name in names]
    return json.loads(json.dumps([*values, settings.get("data_sha256")]))


def _data_files(data: DataConfig, base: Path) -> dict[str, list[Path]]:
    def path(name: str, sample: str) -> Path:
        return sample_path(sample) if name == "sample" else base / user_path(name)

    return {
        "corpus": [path(name, "corpus") for name in data.corpus],
        "train": [path(data.train, "train")],
        "dev": [path(data.dev, "dev")] if data.dev else [],
    }


def _named_retriever(config: RetrieverConfig, base: Path, hosts: Sequence[str]) -> Retriever | None:
    """The retriever at the place that the recipe names."""
    if not config.index:
        return None
    place = config.index if is_address(config.index) else base / user_path(config.index)
    return guarded(open_retriever(place, cache=config.cache, hosts=hosts), config.timeout)


def _own_retriever(
    config: RetrieverConfig, folder: Path, corpus: Sequence[Path], bars: Bars
) -> Retriever:
    """The retriever over the run's own index, which is built first."""
    index = folder / "index"
    if not is_complete(index):
        build_index(
            read_corpus(corpus),
            index,
            kind=config.kind,
            settings=config.options,
            progress=bars.shown,
        )
    return guarded(open_retriever(index, cache=config.cache), config.timeout)


def _has_results(folder: Path) -> bool:
    """True where a run's folder holds more than what determines the run."""
    return any(
        file.is_file() and file.stat().st_size
        for place in folder.iterdir()
        if place.name not in (RECIPE_FILE, ENVIRONMENT_FILE, TRACKING)
        and not place.name.startswith(".")
        for file in (place, *place.rglob("*"))
    )
