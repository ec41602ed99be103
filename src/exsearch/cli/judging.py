"""The command with which persons judge what was searched and answered: `judge`.

It reads options and prints; the work is done in `judging` and `serving`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exsearch.cli.options import COUNT, PATH, common
from exsearch.cli.output import tell
from exsearch.progress import Bars

if TYPE_CHECKING:
    from exsearch.judging.study import Study

KINDS = ("query", "passage", "evidence", "answer")

JUDGE_EXAMPLES = """\b
Examples:
  exsearch judge test-rag test-searcher --sample 60 --judgements judged.jsonl
  exsearch judge --judgements judged.jsonl --judge Ada --kind answer
  exsearch judge --judgements judged.jsonl --summary
"""


@click.command(epilog=JUDGE_EXAMPLES)
@click.argument("places", nargs=-1, type=PATH, metavar="[RUN|EVALUATION]...")
@click.option(
    "--judgements",
    "file",
    type=PATH,
    default=Path("judgements.jsonl"),
    metavar="FILE",
    help="File that judgements are added to; it remembers what is judged.",
)
@click.option("--judge", "name", default="", metavar="NAME", help="Who judges; the page asks else.")
@click.option(
    "--sample", type=COUNT, metavar="N", help="Trajectories of each method; all by default."
)
@click.option("--seed", type=click.IntRange(0), help="Decides the sample and the order; 0 if new.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Ask of these only; may be repeated.",
)
@click.option("--summary", is_flag=True, help="Print rates and agreement, and serve no page.")
@click.option("--export", type=PATH, metavar="OUT", help="Write judgements with what they are of.")
@click.option("--port", type=click.IntRange(0, 65535), default=8002, help="0 takes a free one.")
@common
def judge(
    places: tuple[Path, ...],
    file: Path,
    name: str,
    sample: int | None,
    seed: int | None,
    kinds: tuple[str, ...],
    summary: bool,
    export: Path | None,
    port: int,
    as_json: bool,
    bars: Bars,
) -> None:
    """Judge searches and answers by reading them.

    Serves a page on this machine until stopped. It shows one query, passage, record or answer after
    the other, in random order, and not which method it is of. Each judgement is kept at once; the
    same command goes on later, for the same judge or another one.
    """
    from exsearch.http_server import JUDGE_PACKAGES, check_installed

    check_installed("judge", JUDGE_PACKAGES, "judge")
    from exsearch.judging.study import Study, checked_name

    try:
        name = name and checked_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--judge") from None
    study = Study(file, places, sample=sample, seed=seed)
    if not (summary or export):
        _serve(study, name, kinds or KINDS, port, as_json)
        return
    values: dict[str, Any] = {}
    lines: list[str] = []
    if export:
        values["exported"] = _export(study, export)
        lines.append(f"{export}: {values['exported']} judgements")
    if summary:
        from exsearch.judging.summary import summarise
        from exsearch.show.judging import summary_text

        values |= summarise(study)
        lines.append(summary_text(values))
    tell(as_json, values, *lines)


def _export(study: Study, file: Path) -> int:
    """Write the judgements of a study, each with what it is of; gives their number."""
    from exsearch.errors import ConfigError
    from exsearch.runs import make_folder, write_atomic

    if file.exists() and file.samefile(study.file):
        raise ConfigError(f"{file}: has the judgements themselves; name another file to export to")
    rows = [*study.exported()]
    make_folder(file.absolute().parent)
    write_atomic(file, "".join(f"{json.dumps(row)}\n" for row in rows))
    return len(rows)


def _serve(study: Study, name: str, kinds: Sequence[str], port: int, as_json: bool) -> None:
    """Serve the page until the command is stopped."""
    from exsearch.http_server import address_of, listen
    from exsearch.judging.items import Kind
    from exsearch.runs import locked
    from exsearch.serving.judging import make_judge_app
    from exsearch.serving.saved import serve_saved

    asked = [Kind(kind) for kind in kinds]
    count = sum(item.kind in asked for item in study.items.values())
    with locked(study.file.absolute().parent, study.file.name):
        listener = listen("127.0.0.1", port)
        address = address_of(listener)
        said = f"{count} things are to be judged at {address}; judgements go to {study.file}"
        tell(as_json, {"address": address, "items": count, "judgements": study.file}, said)
        serve_saved(make_judge_app(study, name, asked), listener)
