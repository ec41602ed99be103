"""The commands that ask a model: `ask` to get answers, `rollout` to sample for training.

They read options and print; the work is done in `searcher` and `jobs`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exsearch.cli.failures import Stopped
from exsearch.cli.options import (
    COUNT,
    PATH,
    abstain_option,
    asking,
    common,
    index_option,
    limit_option,
    method_of,
    method_options,
    model_config,
    model_options,
    place_of,
    place_option,
    questions_option,
    temperature_option,
)
from exsearch.cli.output import tell
from exsearch.errors import EngineError, RetrieverError
from exsearch.progress import Bars
from exsearch.terminal import safe

if TYPE_CHECKING:
    from exsearch.agent.events import Event
    from exsearch.jobs.answer import Asked
    from exsearch.searcher import Found, Searcher

ASK_EXAMPLES = """\b
Examples:
  exsearch ask "Who wrote the play about Peter Pan?" --index index
  exsearch ask "..." --docs notes
  exsearch ask "..." --index index --model runs/mine --abstain
  exsearch ask "..." --index index --model Qwen/Qwen2.5-3B-Instruct --max-steps 3 --json
  exsearch ask "..." --index index --engine openai --base-url http://localhost:8000/v1 --model NAME
  exsearch ask --chat --docs notes
  exsearch ask - --index index --out answers.jsonl < questions.txt
"""

ROLLOUT_EXAMPLES = """\b
Examples:
  exsearch rollout --questions train.jsonl --index index --model runs/mine --samples 4 --out t.jsonl
  exsearch show t.jsonl
"""


@click.command(epilog=ASK_EXAMPLES)
@click.argument("question", required=False)
@place_option
@click.option("--chat", is_flag=True, help="Keep asking at a prompt; an empty line ends it.")
@click.option(
    "--out", type=PATH, metavar="FILE", help="JSON lines to write, with - for the question."
)
@abstain_option
@model_options
@method_options
@temperature_option(0.0)
@common
def ask(question: str | None, as_json: bool, bars: Bars, **options: Any) -> None:
    """Answer a question, with the sentences that say it.

    Each step is told on standard error as it happens, with its seconds; -q leaves that out. A fact
    without a number is in no passage that was found; a weak one stands there in other words.

    With - for the question, one a line is read from standard input. They are answered side by side;
    run again with --out, the same command goes on where it stopped.

    With --json: answer, confidence, withheld, evidence, claims (text, citations), steps,
    stop_reason, degraded, tokens.
    """
    from exsearch.data.queries import STDIN, load_queries
    from exsearch.jobs.answer import Asked

    many = question == str(STDIN)
    if question is None and not options["chat"]:
        raise click.UsageError("Missing argument 'QUESTION': a text, - for many, or --chat")
    if question is not None and options["chat"]:
        raise click.UsageError("--chat asks for the questions itself; leave QUESTION out")
    if options["out"] and not many:
        raise click.UsageError("--out is for many questions: give - for QUESTION")
    if question is not None and not question.strip():
        raise click.UsageError("the question is blank")
    model, method = model_config(options), method_of(options)
    questions = load_queries(STDIN) if many else {}
    asked = Asked(
        place_of(options, bars),
        model,
        method,
        options["temperature"],
        options["seed"],
        options["abstain"],
        options["retriever_timeout"],
    )
    if many:
        _ask_many(questions, asked, options["out"], as_json, bars)
    elif options["chat"]:
        _chat(asked.searcher(), as_json, bars)
    else:
        _ask_one(str(question), asked.searcher(), as_json, bars)


def _ask_one(question: str, searcher: Searcher, as_json: bool, bars: Bars) -> None:
    """Answer one question, with its events as they happen."""
    from exsearch.jobs.answer import found_object
    from exsearch.show.traces import Told, answer_text, ending_text

    shown, told = bars.shown and not as_json, Told()

    def listen(event: Event) -> None:
        if shown and (text := told.line(event)):
            click.echo(text, err=True)

    future = searcher.submit(question, on_event=listen)
    try:
        found = future.result().or_raise()
    finally:
        future.cancel()
    if shown and (text := ending_text(found.trajectory)):
        click.echo(text, err=True)
    tell(as_json, found_object(found), answer_text(found.trajectory, found.abstain))


def _chat(searcher: Searcher, as_json: bool, bars: Bars) -> None:
    """Answer questions from a prompt until an empty line, Ctrl-D or Ctrl-C."""
    terminal = sys.stdin.isatty()
    if bars.shown:
        said = "each question is answered by itself; an empty line or Ctrl-D ends"
        click.echo(said, err=True)
    try:
        while True:
            if terminal:
                click.echo("? ", nl=False, err=True)
            question = sys.stdin.buffer.readline().decode(errors="replace").strip()
            if not question:
                return
            try:
                _ask_one(question, searcher, as_json, bars)
            except (RetrieverError, EngineError) as error:  # of this question alone
                click.echo(f"exsearch: error: {safe(str(error))}", err=True)
    except Stopped:
        raise
    except KeyboardInterrupt:
        click.echo("", err=True)


def _ask_many(
    questions: dict[str, str], asked: Asked, out: Path | None, as_json: bool, bars: Bars
) -> None:
    """Answer questions side by side, into a file or onto standard output."""
    from exsearch.jobs.answer import answer_into, answers, found_object
    from exsearch.show.traces import answer_text, ending_text

    if out is not None:
        counts = answer_into(out, questions, asked, bars=bars)
        failed = f" ({counts['failed']} failed)" if counts["failed"] else ""
        said = f"{counts['questions']} answers are in {out}{failed}"
        tell(as_json, {"file": out, **counts}, said)
        return
    results: list[dict[str, Any]] = []
    last: Found | None = None
    with bars.open("ask", len(questions), "question") as bar:
        for id_, last in answers(questions, asked.searcher(), bar):
            values = {"id": id_, "question": questions[id_], **found_object(last)}
            results.append(values if as_json else {"error": values["error"]})
            if not as_json:
                texts = [answer_text(last.trajectory, last.abstain), ending_text(last.trajectory)]
                with bar.external_write_mode():
                    tell(False, {}, questions[id_], *filter(None, texts), "")
    failed = sum(result["error"] is not None for result in results)
    if last is not None and failed == len(questions):
        last.or_raise()
    if as_json:
        tell(True, {"questions": len(questions), "failed": failed, "results": results})
    elif failed:
        click.echo(f"exsearch: {failed} of {len(questions)} questions failed", err=True)


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
