"""The quick start is the main job, small, over the packaged sample and in one run folder.

It indexes, asks the packaged searcher without search and with it, warms it up on the sample, runs
one GEM iteration on answers alone, measures again and answers one question. Nothing here is new:
every part is what another command does, and what is done is passed over when it is run again. The
counts are in `recipes/quickstart.toml` and in `SIZES`, of which a machine gets one that it does in
minutes.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.engines import check_engine
from exsearch.errors import ConfigError, RunError
from exsearch.evaluation.metrics import exact_match, find_metric
from exsearch.jobs.evaluate import evaluate
from exsearch.jobs.inputs import Asking
from exsearch.jobs.train import refuse_others_in_run, train
from exsearch.json_files import read_json
from exsearch.methods import open_method
from exsearch.methods.base import Method
from exsearch.progress import Bars
from exsearch.retrievers import build_index
from exsearch.runs import is_complete, write_atomic
from exsearch.searcher import Searcher
from exsearch.show.figures import percent
from exsearch.show.tables import table
from exsearch.show.traces import trace_text
from exsearch.training.recipe import Recipe
from exsearch.training.stages import WARM_UP, RunFolder, iteration_name
from exsearch.trajectories import TRAJECTORIES_FILE, read_trajectories

RECIPE = Path(__file__).parent / "recipes" / "quickstart.toml"
CHUNK = 12  # test questions that are asked side by side
SIZE_FILE = Path("test") / "quickstart.json"  # in the folder of the run, which has this size


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of the sample the quick start takes.

    Attributes:
        work: GFLOP of products of matrices that take as long as the whole: the seconds that the
            full size took on two cores with AVX2 (`docs/experiments.md`) by their rate there, and
            for the others a rough share of that.
        test_questions: The number of test questions.
        overrides: Values that replace the recipe's, each as `key.sub=value`.
    """

    work: float
    test_questions: int
    overrides: tuple[str, ...] = ()


SIZES = {
    "full": Size(80_000, 24),
    "medium": Size(42_000, 12, ("warm_up.examples=40", "e_step.questions=6")),
    "small": Size(
        18_000,
        4,
        (
            "warm_up.examples=16",
            "e_step.questions=4",
            "e_step.samples=2",
            "gem.dev_questions=2",
        ),
    ),
}
LONGEST = 600  # seconds that a size which nobody asked for may take
ALONE, START, TRAINED = "without-search", "start", iteration_name(1)
STAGES = {
    ALONE: "the packaged searcher without search",
    START: "the packaged searcher",
    WARM_UP: "warmed up on the sample",
    TRAINED: "after one GEM round",
}


def run(
    out: Path,
    *,
    size: str | None = None,
    overrides: tuple[str, ...] = (),
    say: Callable[[str], object] = lambda line: None,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Do the main job in the folder `out`, or go on with it.

    Args:
        out: The run's folder; the evaluations are in its folder `test`.
        size: The name of one of `SIZES`; None takes the one that was begun with, or the largest
            that this machine does within `LONGEST`.
        overrides: Values that replace the recipe's, each as `key.sub=value`.
        say: A function that is called with each line for a person.
        bars: Opens the progress bars; None shows them.

    Returns:
        The figures of each stage, the answered question and where everything is.
    """
    start, bars = time.perf_counter(), bars or Bars()
    # What is wrong with these shows before the machine is measured.
    check_engine(load_config(Recipe, RECIPE, overrides).model, to_train=True)
    refuse_others_in_run(out)
    chosen = _settled_size(out, size, say)
    overrides, count = (*SIZES[chosen].overrides, *overrides), SIZES[chosen].test_questions
    recipe = load_config(Recipe, RECIPE, overrides)
    index = out / "index"

    say(f"[1/6] index the packaged sample into {index}")
    if not is_complete(index):
        corpus, place = read_corpus([sample_path("corpus")]), recipe.retriever
        build_index(corpus, index, kind=place.kind, settings=place.options, progress=bars.shown)

    def measure(stage: str, name: str, method: Method = recipe.method) -> dict[str, Any]:
        model = dataclasses.replace(recipe.model, name=name)
        asking = Asking("sample:test", str(index), model, method, count, recipe.seed)
        return evaluate(asking, out / "test" / stage, chunk=CHUNK, bars=bars)

    say(f"[2/6] {count} test questions, {STAGES[ALONE]}")
    figures = {ALONE: measure(ALONE, recipe.model.name, open_method({"name": "direct"}))}
    say(f"[3/6] the same test questions, {STAGES[START]}")
    figures[START] = measure(START, recipe.model.name)
    say(
        f"[4/6] warm up on {recipe.warm_up.examples} train questions, then one GEM round on "
        f"{recipe.e_step.questions} others, {recipe.e_step.samples} samples each"
    )
    train(RECIPE, overrides=overrides, out=out, bars=bars)
    trained = {name: str(RunFolder(out).stage(name).model) for name in (WARM_UP, TRAINED)}
    say("[5/6] the test questions again, after each of the two")
    for stage, model in trained.items():
        figures[stage] = measure(stage, model)
    say("[6/6] one question, with its trace")
    question = _one_question(out)
    searcher = Searcher(trained[TRAINED], index, device=recipe.model.device)
    trajectory = searcher.ask(question).trajectory
    seconds = time.perf_counter() - start
    say(f"\n{trace_text(trajectory)}\n\n{_table(figures)}\n")
    say(_closing(out, seconds))
    return {
        "run": str(out),
        "index": str(index),
        "stages": figures,
        "question": question,
        "answer": trajectory.answer,
        "seconds": round(seconds, 1),
    }


def _settled_size(out: Path, asked: str | None, say: Callable[[str], object]) -> str:
    """The size of the run in `out`: the one that it was begun with, asked for, or fits.

    Raises:
        ConfigError: no such size.
        RunError: the run was begun with another one, or its file is damaged.
    """
    if asked not in (None, *SIZES):
        raise ConfigError(f"no size is called {asked!r}; there are {', '.join(SIZES)}")
    file = out / SIZE_FILE
    if file.is_file():
        remedy = "name another folder with --out"
        begun = read_json(file, RunError, remedy, size=str)["size"]
        if begun not in SIZES or asked not in (None, begun):
            raise RunError(f"{out}: begun with size {begun}; {remedy}")
        return begun
    rate = _product_rate()
    seconds = {name: size.work / rate for name, size in SIZES.items()}
    fits = next((name for name in SIZES if seconds[name] <= LONGEST), list(SIZES)[-1])
    size = asked or fits
    say(
        f"this machine multiplies matrices at {rate:.0f} GFLOP/s: size {size} takes about "
        f"{max(1, seconds[size] / 60):.0f} minutes (--size takes {', '.join(SIZES)})"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps({"size": size}))
    return size


def _product_rate() -> float:
    """GFLOP/s of this machine for products of float32 matrices; takes a second."""
    import torch

    a = torch.rand(1024, 1024)
    seconds = []
    for _ in range(25):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * len(a) ** 3 / statistics.median(seconds) / 1e9


def _one_question(out: Path) -> str:
    """A test question that was answered with evidence, preferably one answered right."""
    best = max(
        read_trajectories(out / "test" / TRAINED / TRAJECTORIES_FILE),
        key=lambda t: (exact_match(t.answer, t.question.answers), len(t.evidence), t.id),
    )
    return best.question.question


def _table(figures: dict[str, dict[str, Any]]) -> str:
    names = ("em", "f1", "union_recall")
    heads = [f"{find_metric(name).label} % [95 %]" for name in names]
    rows = [["test questions", "n", *heads, "malformed %"]]
    for stage, summary in figures.items():
        shown = [percent(summary, name) for name in names]
        malformed = f"{100 * summary['malformed_share']:.0f}"
        rows.append([STAGES[stage], str(summary["n"]), *shown, malformed])
    return table(rows)


def _closing(out: Path, seconds: float) -> str:
    return (
        f"took {seconds / 60:.1f} minutes. All is in {out}: index/, the trained models "
        "(warm_up/model, iteration-01/model), the trajectories that they learned from, and test/ "
        "with every answer.\n"
        f"  exsearch show {out}\n"
        f"  exsearch show {out}/iteration-01/trajectories.jsonl\n"
        f'  exsearch ask "Who wrote the play about Peter Pan?" --index {out}/index --model {out}'
    )
