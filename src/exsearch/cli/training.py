"""The commands that train and measure: `train`, `evaluate`, `score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

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
from exsearch.cli.output import print_json

TRAIN_EXAMPLES = """\b
Examples:
  exsearch train recipe.toml
  exsearch train recipe.toml --set m_step.learning_rate=1e-5 --set gem.iterations=3 --out runs/b
  exsearch show runs/b
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
    show_default=True,
    help="hotpotqa: F1 is 0 where one side is yes, no or noanswer and the other differs.",
)


@click.command(epilog=TRAIN_EXAMPLES)
@click.argument("recipe", type=PATH, metavar="RECIPE.toml")
@recipe_model_options
@set_option
@click.option(
    "--out", type=PATH, metavar="DIR", help="The run's folder. Default: runs/<the recipe's name>."
)
@common
def train(recipe: Path, out: Path | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train a searcher as a recipe says.

    Warm-up, if the recipe has it, then GEM.

    Run again, the same command goes on where it stopped.
    """
    from exsearch.jobs.train import train as run
    from exsearch.progress import Bars
    from exsearch.show import folder_text

    overrides = recipe_overrides(options)
    folder, best = run(recipe, overrides=overrides, out=out, bars=Bars(not quiet))
    if as_json:
        print_json({"run": folder, **best})
        return
    click.echo(folder_text(folder))
    click.echo(f"the best model is of {best['stage']}: --model {folder} takes it")


@click.command(epilog=EVALUATE_EXAMPLES)
@questions_option
@index_option
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@limit_option
@model_options
@method_options
@temperature_option(0.0)
@rules_option
@click.option(
    "--retry/--no-retry",
    default=True,
    show_default=True,
    help="Sample a malformed generation once more.",
)
@click.option(
    "--worked-examples",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Show an untrained model N solved questions first.",
)
@click.option(
    "--examples-from", metavar="FILE", help="Question file with decompositions for those."
)
@common
def evaluate(
    out: Path,
    temperature: float,
    rules: Any,
    retry: bool,
    worked_examples: int,
    examples_from: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Answer a file of questions and score the answers.

    Writes trajectories.jsonl, predictions.jsonl (one line a question) and summary.json. Run again,
    the same command goes on where it stopped.
    """
    from exsearch.jobs.evaluate import evaluate as run
    from exsearch.jobs.inputs import ExampleSource
    from exsearch.progress import Bars
    from exsearch.show import summary_text

    if bool(worked_examples) != bool(examples_from):
        raise click.UsageError("--worked-examples N and --examples-from FILE go together")
    summary = run(
        asking(options),
        out,
        rules=rules,
        temperature=temperature,
        retry_malformed=retry,
        examples=ExampleSource(worked_examples, examples_from or ""),
        bars=Bars(not quiet),
    )
    if as_json:
        print_json({**summary, "out": out})
        return
    click.echo(summary_text(summary))
    click.echo(f"answers and traces are in {out}: exsearch show {out / 'trajectories.jsonl'}")


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
def score(
    questions: str,
    predictions: Path,
    against: Path | None,
    limit: int | None,
    rules: Any,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score any system's predictions.

    EM, F1 and accuracy over all questions, with 95 % intervals; a missing prediction is wrong.
    """
    from exsearch.data.questions import load_questions
    from exsearch.evaluation.score import (
        compare_predictions,
        load_predictions,
        score_predictions,
    )
    from exsearch.jobs.inputs import question_file
    from exsearch.show import comparison_text, summary_text

    asked = load_questions(question_file(questions), limit)
    ours = load_predictions(predictions)
    figures = {**score_predictions(asked, ours, rules), "rules": rules}
    if against:
        figures["against"] = compare_predictions(asked, ours, load_predictions(against), rules)
    if as_json:
        print_json(figures)
        return
    click.echo(summary_text(figures))
    if against:
        click.echo(f"\nagainst {against}, on the same questions\n")
        click.echo(comparison_text(figures["against"]))
