"""The commands for a new machine: `quickstart` runs the main job, `doctor` says what is missing.

They read options and print; the work is done in the modules of these names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import PATH, common, recipe_model_options, recipe_overrides, set_option
from exsearch.cli.output import tell
from exsearch.progress import Bars
from exsearch.terminal import safe_lines

QUICKSTART_EXAMPLES = """\b
Examples:
  exsearch quickstart
  exsearch quickstart --out try --size small
"""


@click.command(epilog=QUICKSTART_EXAMPLES)
@click.option("--out", type=PATH, default="quickstart", metavar="DIR", help="Folder to write.")
@click.option(
    "--size",
    type=click.Choice(["full", "medium", "small"]),
    help="How much of the sample is taken; by default what this machine does in ten minutes.",
)
@recipe_model_options
@set_option
@common
def quickstart(out: Path, size: str | None, as_json: bool, bars: Bars, **options: Any) -> None:
    """Train a small searcher on the packaged sample.

    Asks the untrained model without search, warms up, runs one GEM iteration, evaluates again and
    answers one question.

    Run again, the same command goes on where it stopped.
    """
    from exsearch.quickstart import run

    results = run(
        out,
        size=size,
        overrides=recipe_overrides(options),
        say=lambda line: click.echo(safe_lines(line), err=as_json),
        bars=bars,
    )
    tell(as_json, results)


@click.command()
@common
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, bars: Bars) -> None:
    """Check this machine and installation.

    Leaves with exit code 1 where something fails.
    """
    from exsearch.doctor import examine

    checks = examine()
    failed = any(check.status == "fail" for check in checks)
    values = {"ok": not failed, "checks": [check.plain() for check in checks]}
    tell(as_json, values, *(check.line() for check in checks))
    ctx.exit(1 if failed else 0)
