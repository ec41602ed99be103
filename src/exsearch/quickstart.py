"""The quick start is the main job, small, over the packaged sample and in one run folder.

It indexes, measures, warms up, runs one GEM iteration, measures again and answers one question.
Nothing here is new: every part is what another command does, and what is done is passed over when
it is run again. The counts are in `recipes/quickstart.toml` and below.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.engines import check_engine
from exsearch.engines.config import ModelConfig
from exsearch.evaluation.metrics import exact_match, find_metric
from exsearch.jobs.evaluate import evaluate
from exsearch.jobs.inputs import Asking, ExampleSource
from exsearch.jobs.train import refuse_others_in_run, train
from exsearch.progress import Bars
from exsearch.retrievers import build_index
from exsearch.runs import is_complete
from exsearch.searcher import Searcher
from exsearch.show import percent, table, trace_text
from exsearch.training.recipe import Recipe
from exsearch.training.stages import WARM_UP, RunFolder, iteration_name
from exsearch.trajectories import TRAJECTORIES_FILE, read_trajectories

RECIPE = Path(__file__).parent / "recipes" / "quickstart.toml"
TEST_QUESTIONS = 24
CHUNK = 12  # test questions that are asked side by side
WORKED_EXAMPLES = 2  # for the untrained model, which does not know the format
SMALL = (
    "warm_up.examples=16",
    "e_step.questions=4",
    "e_step.samples=2",
    "gem.dev_questions=2",
)
SMALL_TEST_QUESTIONS = 4
UNTRAINED, TRAINED = "untrained", iteration_name(1)
STAGES = {UNTRAINED: "untrained", WARM_UP: "warmed up", TRAINED: "after one GEM round"}


def run(
    out: Path,
    *,
    small: bool = False,
    overrides: tuple[str, ...] = (),
    say: Callable[[str], object] = lambda line: None,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Do the main job in the folder `out`, or go on with it.

    Args:
        out: The run's folder; the evaluations are in its folder `test`.
        small: True takes a third of the questions or fewer.
        overrides: Values that replace the recipe's, each as `key.sub=value`.
        say: A function that is called with each line for a person.
        bars: Opens the progress bars; None shows them.

    Returns:
        The figures of each stage, the answered question and where everything is.
    """
    start, bars = time.perf_counter(), bars or Bars()
    overrides = (*(SMALL if small else ()), *overrides)
    recipe = load_config(Recipe, RECIPE, overrides)
    check_engine(recipe.model, to_train=True)
    refuse_others_in_run(out)
    count = SMALL_TEST_QUESTIONS if small else TEST_QUESTIONS
    index = out / "index"

    say(f"[1/6] index the packaged sample into {index}")
    if not is_complete(index):
        corpus, kind = read_corpus([sample_path("corpus")]), recipe.retriever.kind
        build_index(corpus, index, kind=kind, progress=bars.shown)
    say(f"[2/6] the untrained model, shown {WORKED_EXAMPLES} examples, on {count} test questions")
    figures = {UNTRAINED: _measure(out, UNTRAINED, recipe.model, recipe, count, bars)}
    say(
        f"[3/6] warm up on {recipe.warm_up.examples} questions, then one GEM round on "
        f"{recipe.e_step.questions} others, {recipe.e_step.samples} samples each"
    )
    train(RECIPE, overrides=overrides, out=out, bars=bars)
    for step, stage in enumerate((WARM_UP, TRAINED), start=4):
        say(f"[{step}/6] the same test questions, {STAGES[stage]}")
        trained = dataclasses.replace(recipe.model, name=_model(out, stage))
        figures[stage] = _measure(out, stage, trained, recipe, count, bars)
    say("[6/6] one question, with its trace")
    question = _one_question(out)
    searcher = Searcher(_model(out, TRAINED), index, device=recipe.model.device)
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


def _model(out: Path, stage: str) -> str:
    return str(RunFolder(out).stage(stage).model)


def _measure(
    out: Path, stage: str, model: ModelConfig, recipe: Recipe, count: int, bars: Bars
) -> dict[str, Any]:
    index = str(out / "index")
    asking = Asking("sample:test", index, model, recipe.method, count, recipe.seed)
    examples = ExampleSource(WORKED_EXAMPLES, "sample:train") if stage == UNTRAINED else None
    return evaluate(asking, out / "test" / stage, chunk=CHUNK, examples=examples, bars=bars)


def _one_question(out: Path) -> str:
    """A test question that was answered with evidence, preferably one answered right."""
    best = max(
        read_trajectories(out / "test" / TRAINED / TRAJECTORIES_FILE),
        key=lambda t: (exact_match(t.answer, t.question.answers), len(t.evidence), t.id),
    )
    return best.question.question


def _table(figures: dict[str, dict[str, Any]]) -> str:
    names = ("em", "f1", "recall_at_k")
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
        "(warm_up/model, iteration-01/model), the trajectories they learned from, and test/ with "
        "every answer.\n"
        f"  exsearch show {out}\n"
        f"  exsearch show {out}/iteration-01/trajectories.jsonl\n"
        f'  exsearch ask "Who wrote the play about Peter Pan?" --index {out}/index --model {out}'
    )
