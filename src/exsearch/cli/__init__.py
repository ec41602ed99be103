"""The command line: one command for each job, all with the same options for the same things.

Commands import what they need when they run, so that `exsearch --help` loads none of it. They do no
work of their own: `jobs`, `searcher` and `show` do.
"""

from __future__ import annotations

import click

import exsearch
from exsearch.cli.asking import ask, rollout
from exsearch.cli.combining import combine, train_reranker
from exsearch.cli.diagnosing import diagnose
from exsearch.cli.failures import Commands
from exsearch.cli.files import data, index, show
from exsearch.cli.judging import judge
from exsearch.cli.machine import doctor, quickstart
from exsearch.cli.output import hold_streams
from exsearch.cli.reporting import report
from exsearch.cli.searching import evaluate_retrieval, retrieve
from exsearch.cli.serving import mcp, serve, serve_retriever
from exsearch.cli.training import compare, evaluate, experiment, score, track, train

EXAMPLES = """\b
Examples:
  exsearch quickstart
  exsearch index corpus.jsonl.gz --out index
  exsearch train recipe.toml
  exsearch evaluate --questions test.jsonl --index index --model runs/mine --out test
  exsearch ask "Who wrote the play about Peter Pan?" --index index --model runs/mine
"""


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, epilog=EXAMPLES, context_settings=SETTINGS)
@click.version_option(exsearch.__version__, package_name="exsearch")
def cli() -> None:
    """Language models that search, and that learn it from their own weighted trajectories.

    `exsearch COMMAND --help` has every option and examples.
    """


for command in (
    index,
    combine,
    retrieve,
    evaluate_retrieval,
    train_reranker,
    ask,
    rollout,
    train,
    track,
    evaluate,
    score,
    compare,
    experiment,
    data,
    show,
    diagnose,
    report,
    judge,
    serve,
    mcp,
    serve_retriever,
    quickstart,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run a command and leave with its exit code."""
    hold_streams()
    cli(prog_name="exsearch")
