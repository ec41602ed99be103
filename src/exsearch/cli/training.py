"""The commands that train and measure: `train`, `evaluate`, `score`.

They read options and print; the work is done in `jobs` and `evaluation`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.failures import stopped_after
from exsearch.cli.options import (
    PATH,
    asking,
    common,
    index_option,
    limit_option,
    method_options,
    model_options,
    questions_option,
    recipe_model_options,
    recipe_overrides,
    set_option,
    temperature_option,
)
from exsearch.cli.output import confirmed, tell
from exsearch.progress import Bars
from exsearch.terminal import safe

TRAIN_EXAMPLES = """\b
Examples:
  exsearch train recipe.toml
  exsearch train recipe.toml --set m_step.learning_rate=1e-5 --set gem.iterations=3 --out runs/b
  exsearch train recipe.toml --track tensorboard
  exsearch train recipe.toml --minutes 50       # of a queue that gives an hour
  exsearch show runs/b
"""

TRACK_EXAMPLES = """\b
Examples:
  exsearch track runs/mine --to tensorboard
  WANDB_MODE=offline exsearch track runs/mine --to wandb --project searchers
  MLFLOW_TRACKING_URI=http://localhost:5000 exsearch track runs/mine --to mlflow
"""

EVALUATE_EXAMPLES = """\b
Examples:
  exsearch evaluate --questions test.jsonl --index index --model runs/mine --out test --limit 200
  exsearch evaluate --questions test.jsonl --index index --out untrained \\
      --worked-examples 3 --examples-from train.jsonl
  exsearch evaluate --questions test.jsonl --index index --method rag --out rag
  exsearch evaluate --questions test.jsonl --index index --out served \\
      --engine openai --base-url http://localhost:8000/v1 --model NAME
"""

EXPERIMENT_EXAMPLES = """\b
Examples:
  exsearch experiment results/plan.toml
  exsearch experiment results/plan.toml --dry-run
  exsearch experiment results/plan.toml --only rag --only direct --minutes 60
"""

COMPARE_EXAMPLES = """\b
Examples:
  exsearch compare ours rag direct
  exsearch compare ours-1,ours-2,ours-3 rag --metric f1 --group neither
"""

SCORE_EXAMPLES = """\b
Examples:
  exsearch score --questions test.jsonl --predictions predictions.jsonl --json
  exsearch score --questions test.jsonl --predictions new/predictions.jsonl \
      --against old/predictions.jsonl
"""

rules_option = click.option(
    "--rules",
    type=click.Choice(["kilt", "hotpotqa"]),
    default="kilt",
    help="hotpotqa: F1 is 0 where one side is yes, no or noanswer and the other differs.",
)


@click.command(epilog=TRAIN_EXAMPLES)
@click.argument("recipe", type=PATH, metavar="RECIPE.toml")
@recipe_model_options
@set_option
@click.option(
    "--out", type=PATH, metavar="DIR", help="The run's folder. Default: runs/<the recipe's name>."
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    envvar="EXSEARCH_ALLOW_HOST",
    metavar="HOST",
    help="A host that the recipe may send questions and a key to; may be repeated. Without it a "
    "terminal is asked. Also EXSEARCH_ALLOW_HOST.",
)
@click.option(
    "--track",
    "trackers",
    multiple=True,
    metavar="TRACKER",
    help="Send the figures to tensorboard, trackio, wandb or mlflow, too; may be repeated.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, 1e6, min_open=True),
    metavar="N",
    help="Stop after so many minutes, with what is done saved; the same command goes on.",
)
@common
def train(
    recipe: Path,
    out: Path | None,
    minutes: float | None,
    hosts: tuple[str, ...],
    trackers: tuple[str, ...],
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Train a searcher as a recipe says.

    Warm-up, if the recipe has it, then GEM.

    Run again, the same command goes on where it stopped.
    """
    from exsearch.jobs.train import train as run
    from exsearch.show.figures import folder_text

    overrides = recipe_overrides(options)
    with stopped_after(minutes):
        folder, best = run(
            recipe,
            overrides=overrides,
            out=out,
            hosts=hosts,
            confirm=confirmed,
            trackers=tuple(dict.fromkeys(trackers)),
            bars=bars,
        )
    hint = f"the best model is of {best['stage']}: --model {folder} takes it"
    tell(as_json, {"run": folder, **best}, folder_text(folder), hint)


@click.command(epilog=TRACK_EXAMPLES)
@click.argument("run", type=PATH, metavar="RUN")
@click.option(
    "--to",
    required=True,
    metavar="TRACKER",
    help="tensorboard, trackio, wandb, mlflow, or one that another package adds.",
)
@click.option("--project", default="exsearch", help="The name that several runs are found under.")
@click.option("--name", default="", help="The run's name. Default: its folder's.")
@common
def track(run: Path, to: str, project: str, name: str, as_json: bool, bars: Bars) -> None:
    """Send a run's figures to a tracker.

    While the run is trained, by whatever process, what comes is sent as it comes. Figures and
    settings are sent, no question, passage or place; those that were sent are not sent again.
    """
    from exsearch.jobs.track import track as send

    sent = send(run, to, project=project, name=name, bars=bars)
    before = f", {sent['before']} were before" if sent["before"] else ""
    tell(as_json, sent, f"{sent['events']} events are sent to {to}{before}")


@click.command(epilog=EVALUATE_EXAMPLES)
@questions_option
@index_option
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@limit_option
@model_options
@method_options
@temperature_option(0.0)
@rules_option
@click.option("--retry/--no-retry", default=True, help="Sample a malformed generation once more.")
@click.option(
    "--worked-examples",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Show an untrained model N solved questions first.",
)
@click.option(
    "--examples-from", metavar="FILE", help="Question file that --worked-examples come from."
)
@common
def evaluate(out: Path, as_json: bool, bars: Bars, **options: Any) -> None:
    """Answer a file of questions and score the answers.

    Writes trajectories.jsonl, predictions.jsonl (one line a question) and summary.json. Run again,
    the same command goes on where it stopped.
    """
    from exsearch.jobs.evaluate import evaluate as run
    from exsearch.jobs.inputs import ExampleSource
    from exsearch.show.figures import summary_text
    from exsearch.trajectories import TRAJECTORIES_FILE

    count, source = options["worked_examples"], options["examples_from"]
    if bool(count) != bool(source):
        raise click.UsageError("--worked-examples N and --examples-from FILE go together")
    summary = run(
        asking(options),
        out,
        rules=options["rules"],
        temperature=options["temperature"],
        retry_malformed=options["retry"],
        examples=ExampleSource(count, source or ""),
        bars=bars,
    )
    hint = f"answers and traces are in {out}: exsearch show {out / TRAJECTORIES_FILE}"
    tell(as_json, {**summary, "out": out}, summary_text(summary), hint)


@click.command(epilog=SCORE_EXAMPLES)
@questions_option
@click.option(
    "--predictions",
    required=True,
    type=PATH,
    metavar="FILE",
    help='JSON lines of {"id", "prediction"}, of any system.',
)
@click.option(
    "--against",
    type=PATH,
    metavar="FILE",
    help="Another system's predictions, for the paired difference on the same questions.",
)
@limit_option
@rules_option
@common
def score(predictions: Path, against: Path | None, as_json: bool, **options: Any) -> None:
    """Score any system's predictions.

    EM, F1 and accuracy over all questions, with 95 % intervals; a missing prediction is wrong.
    """
    from exsearch.data.questions import load_questions
    from exsearch.evaluation.score import compare_predictions, load_predictions, score_predictions
    from exsearch.jobs.inputs import question_file
    from exsearch.show.figures import comparison_text, summary_text

    asked = load_questions(question_file(options["questions"]), options["limit"])
    ours, rules = load_predictions(predictions), options["rules"]
    figures = {**score_predictions(asked, ours, rules), "rules": rules}
    lines = [summary_text(figures)]
    if against:
        compared = compare_predictions(asked, ours, load_predictions(against), rules)
        figures["against"] = compared
        lines += [f"\nagainst {against}, on the same questions\n", comparison_text(compared)]
    tell(as_json, figures, *lines)


@click.command(epilog=COMPARE_EXAMPLES)
@click.argument("places", nargs=-1, required=True, metavar="EVALUATION EVALUATION...")
@click.option("--metric", default="em", help="Metric to compare by.")
@click.option(
    "--group",
    type=click.Choice(["in question", "yes/no", "neither"]),
    help="Questions of one group only. Default: all.",
)
@common
def compare(
    places: tuple[str, ...], metric: str, group: str | None, as_json: bool, **options: Any
) -> None:
    """Compare evaluations, question by question.

    The others are set beside the first one.

    Differences come with 95 % intervals, p-values by sign flips, and those of the whole family by
    Holm's rule. Folders joined by commas are seeds of one system.
    """
    from exsearch.config import user_path
    from exsearch.evaluation.compare import System, compare_systems
    from exsearch.show.figures import systems_text

    if len(places) < 2:
        raise click.UsageError("name two or more evaluations")
    systems = [System.read([user_path(f) for f in each.split(",") if f]) for each in places]
    found = compare_systems(systems, metric, group)
    tell(as_json, found, systems_text(found))


@click.command(epilog=EXPERIMENT_EXAMPLES)
@click.argument("file", type=PATH, metavar="LIST.toml")
@click.option("--only", multiple=True, metavar="CELL", help="This cell only; may be repeated.")
@click.option(
    "--minutes", type=click.FloatRange(0), help="Begin no further cell after so many minutes."
)
@click.option("--dry-run", is_flag=True, help="Say what is left and what it will take; do nothing.")
@click.option(
    "--into",
    type=PATH,
    metavar="PAGE.md",
    help="Write the table into a page, between its markers `results`; short: `main results`.",
)
@common
def experiment(
    file: Path,
    only: tuple[str, ...],
    minutes: float | None,
    dry_run: bool,
    into: Path | None,
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Run a list of methods on the same questions.

    Each cell of the list is trained, where it names a recipe, and evaluated.

    A finished cell stands in the list's results and is not done again, so the same command goes on
    after a stop. Results hold ids and figures, and no text of a data set.
    """
    from exsearch.config import load_config
    from exsearch.jobs.experiment import (
        Experiment,
        main_table,
        remaining_minutes,
        results_table,
        run_experiment,
    )
    from exsearch.show.tables import table, write_tables

    planned = load_config(Experiment, file)
    done: list[str] = []

    def left() -> tuple[int, float]:
        count, rest = remaining_minutes(planned, file.parent)
        click.echo(f"{count} cells are left, about {rest:.0f} minutes", err=True)
        return count, rest

    count, rest = left()
    if not dry_run:
        for key in run_experiment(file, only=only, minutes=minutes, bars=bars):
            click.echo(f"{safe(key)} is done", err=True)
            done.append(key)
            count, rest = left()
    rows = results_table(planned, file.parent)
    if into:
        write_tables(into, {"results": rows, "main results": main_table(planned, rows)})
    values = {"done": done, "left": count, "minutes": rest, "table": rows}
    tell(as_json, values, table(rows) if len(rows) > 1 else "no cell is done yet")
