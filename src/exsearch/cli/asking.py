"""The commands that ask a model: `ask` one question, `rollout` many for training.

They read options and print; the work is done in `searcher` and `jobs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import (
    COUNT,
    PATH,
    asking,
    common,
    index_option,
    limit_option,
    method_of,
    method_options,
    model_config,
    model_options,
    questions_option,
    temperature_option,
)
from exsearch.cli.output import tell
from exsearch.progress import Bars

ASK_EXAMPLES = """\b
Examples:
  exsearch ask "Who wrote the play about Peter Pan?" --index index
  exsearch ask "..." --index index --model runs/mine
  exsearch ask "..." --index index --model Qwen/Qwen2.5-3B-Instruct --max-steps 3 --json
  exsearch ask "..." --index index --engine openai --base-url http://localhost:8000/v1 --model NAME
"""

ROLLOUT_EXAMPLES = """\b
Examples:
  exsearch rollout --questions train.jsonl --index index --model runs/mine --samples 4 --out t.jsonl
  exsearch show t.jsonl
"""


@click.command(epilog=ASK_EXAMPLES)
@click.argument("question")
@index_option
@model_options
@method_options
@temperature_option(0.0)
@common
def ask(question: str, index: str, as_json: bool, bars: Bars, **options: Any) -> None:
    """Answer a question, with the sentences that say it.

    Each step is told on standard error as it happens; -q leaves that out. A fact without a
    number is in no passage that was found; a weak one stands there in other words.

    With --json: answer, evidence, claims (text, citations), steps, stop_reason, tokens.
    """
    from exsearch.agent.events import Event
    from exsearch.engines import open_engine
    from exsearch.engines.base import Sampling
    from exsearch.retrievers import open_retriever
    from exsearch.retrievers.guarded import guarded
    from exsearch.searcher import Searcher
    from exsearch.show.traces import answer_object, answer_text, event_text

    if not question.strip():
        raise click.UsageError("the question is blank")
    retriever = guarded(open_retriever(index), options["retriever_timeout"])
    searcher = Searcher(
        open_engine(model_config(options)),
        retriever,
        method=method_of(options),
        sampling=Sampling(options["temperature"]),
        seed=options["seed"],
    )

    def listen(event: Event) -> None:
        if bars.shown and not as_json and (text := event_text(event)):
            click.echo(text, err=True)

    future = searcher.submit(question, on_event=listen)
    try:
        trajectory = future.result().or_raise().trajectory
    finally:
        future.cancel()
    tell(as_json, answer_object(trajectory), answer_text(trajectory))


@click.command(epilog=ROLLOUT_EXAMPLES)
@questions_option
@index_option
@limit_option
@click.option("--samples", type=COUNT, default=1, metavar="K", help="Trajectories a question.")
@click.option("--out", required=True, type=PATH, metavar="FILE", help="JSON lines to write.")
@model_options
@method_options
@temperature_option(1.0)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Share of the likeliest tokens to draw from; below 1 weights are approximate.",
)
@click.option(
    "--weighting",
    type=click.Choice(["posterior", "likelihood", "uniform", "best", "correct"]),
    default="posterior",
    help="How a question's trajectories share its weight.",
)
@click.option(
    "--weight-temperature",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="τ of the weights, which is not the temperature of sampling.",
)
@click.option(
    "--chunk", type=COUNT, default=16, help="Questions sampled together and written as one."
)
@common
def rollout(out: Path, as_json: bool, bars: Bars, **options: Any) -> None:
    """Sample trajectories into a file, weighed.

    JSON lines, one a trajectory, with its weight where the question's answers are known.

    Run again, the same command goes on where it stopped.
    """
    from exsearch.jobs.rollout import rollout as run
    from exsearch.training.e_step import EStepConfig

    names = ("samples", "temperature", "top_p", "weighting", "weight_temperature", "chunk")
    config = EStepConfig(**{name: options[name] for name in names})
    figures = run(asking(options), out, config, bars=bars)
    tell(
        as_json,
        {"file": out, **figures},
        f"{figures['trajectories']} trajectories of {figures['questions']} questions "
        f"({figures['weighed']} weighed, {figures['failed']} failed) are in {out}",
    )
