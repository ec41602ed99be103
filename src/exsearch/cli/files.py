"""The commands that read and write files and ask no model: `index`, `data`, `show`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import click

from exsearch.cli.failures import Ordered
from exsearch.cli.options import COUNT, PATH, common
from exsearch.cli.output import tell
from exsearch.data import FETCHED, FORMATS
from exsearch.progress import Bars

INDEX_EXAMPLES = """\b
Examples:
  exsearch index corpus.jsonl.gz --out index
  exsearch index notes/ manual.md --out index
  exsearch index de.jsonl --out index --option language=german
  exsearch index new.jsonl --add --out index
  exsearch index --remove old-ids.txt --out index
"""

FETCH_EXAMPLES = """\b
Examples:
  exsearch data fetch hotpotqa --out data
  exsearch data fetch hotpotqa 2wikimultihopqa musique --out data
"""

CONVERT_EXAMPLES = """\b
Examples:
  exsearch data convert --format hotpotqa hotpot_train_v1.1.json --out hotpotqa
  exsearch data convert --format 2wikimultihopqa train.json dev.json id_aliases.json --out 2wiki
  exsearch data convert --format beir scifact/ --out scifact-converted
"""

MERGE_EXAMPLES = """\b
Examples:
  exsearch data merge hotpotqa 2wikimultihopqa musique nq --out data/four-sets
"""

SHOW_EXAMPLES = """\b
Examples:
  exsearch show runs/mine
  exsearch show runs/mine --watch
  exsearch show runs/mine/iteration-01/trajectories.jsonl --id test-0001
  exsearch show test-2 --page --against test-1
"""


@click.command(epilog=INDEX_EXAMPLES)
@click.argument("corpus", nargs=-1, type=PATH, metavar="[CORPUS...]")
@click.option("--out", type=PATH, metavar="INDEX", help="Folder to write.")
@click.option("--add", is_flag=True, help="Add the corpus to the index that stands there.")
@click.option(
    "--remove",
    type=click.File("r", "utf-8-sig", "replace"),
    metavar="IDS",
    help="A file of ids, one a line: remove these passages from the index that stands there.",
)
@click.option("--to", "address", metavar="URL", help="A search server to fill instead.")
@click.option(
    "--kind",
    metavar="KIND",
    help="The kind of a folder: bm25 (default), dense, or one that a package adds.",
)
@click.option(
    "--option",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the kind's own, such as title_weight=1; may be repeated.",
)
@common
def index(
    corpus: tuple[Path, ...],
    out: Path | None,
    add: bool,
    remove: TextIO | None,
    address: str | None,
    kind: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    bars: Bars,
) -> None:
    """Index a corpus for searching, or change an index.

    A corpus is .jsonl, .csv or .tsv files of {"id", "title", "text"}, also as .gz, .bz2 or .zst,
    .parquet files of these columns, or folders of .txt, .md, .markdown, .rst, .html and .pdf files.
    """
    from exsearch.config import set_value
    from exsearch.data.corpus import read_corpus
    from exsearch.retrievers import build_index, is_address, update_index
    from exsearch.retrievers.base import Indexable

    if (out is None) == (address is None):
        raise click.UsageError("give the folder to write (--out) or the server to fill (--to)")
    if address and not is_address(address):
        raise click.UsageError(f"--to {address}: expected an address, such as http://localhost")
    if not corpus and (add or not remove):
        raise click.UsageError("name the corpus: files or folders of passages")
    if remove and corpus and not add:
        raise click.UsageError(
            "--remove changes an index: give --add, too, to add the corpus to it"
        )
    if (add or remove) and (kind or settings):
        raise click.UsageError("an index keeps its kind and settings; build it anew to change them")
    values: dict[str, Any] = {}
    for text in settings:
        set_value(values, text, "--option", "title_weight=1")
    place, read = address or out or "", Indexable(read_corpus(corpus) if corpus else ())
    if add or remove:
        ids = [line.strip() for line in remove or () if line.strip()]
        passages = update_index(read, place, remove=ids, progress=bars.shown)
    else:
        passages = build_index(read, place, kind=kind, settings=values, progress=bars.shown)
    said = f"{passages} passages are indexed in {place}"
    tell(as_json, {"index": place, "passages": passages, "left_out": read.left_out}, said)


@click.group(cls=Ordered)
def data() -> None:
    """Prepare data sets."""


@data.command(epilog=FETCH_EXAMPLES)
@click.argument("names", nargs=-1, required=True, type=click.Choice(FETCHED), metavar="NAME...")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder of the data sets.")
@common
def fetch(names: tuple[str, ...], out: Path, as_json: bool, bars: Bars) -> None:
    """Fetch data sets from their homes on the web, and convert them.

    NAME is hotpotqa, 2wikimultihopqa, musique or nq-open; each becomes a folder in DIR. The
    official files are compared with the hashes of the published ones, and kept in the cache.
    """
    from exsearch.data.fetching import fetch as fetch_files

    found: dict[str, Any] = {}
    lines: list[str] = []
    for name in dict.fromkeys(names):
        found[name] = summary = fetch_files(name, out / name, bars=bars)
        lines += [
            f"{name}: {summary['licence']}, {summary['page']}",
            *_written(out / name, summary),
        ]
    tell(as_json, {"out": out, "data": found}, *lines)


@data.command(epilog=CONVERT_EXAMPLES)
@click.option(
    "--format",
    "name",
    required=True,
    type=click.Choice(FORMATS),
    help="The official format of the sources.",
)
@click.argument("sources", nargs=-1, required=True, type=PATH, metavar="SRC...")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@common
def convert(name: str, sources: tuple[Path, ...], out: Path, as_json: bool, bars: Bars) -> None:
    """Convert a benchmark's official files into question files and one corpus."""
    from exsearch.data.formats import convert as convert_files

    summary = convert_files(name, sources, out, bars=bars)
    tell(as_json, {"out": out, **summary}, *_written(out, summary))


@data.command(epilog=MERGE_EXAMPLES)
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="SET...")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@common
def merge(folders: tuple[Path, ...], out: Path, as_json: bool, bars: Bars) -> None:
    """Merge data sets into one corpus and question files that point into it.

    Each SET is a folder with corpus.jsonl and train, dev or test.jsonl. A passage that several have
    is kept once.
    """
    from exsearch.data.merging import merge as merge_sets

    summary = merge_sets(folders, out, bars=bars)
    tell(as_json, {"out": out, **summary}, *_written(out, summary))


def _written(out: Path, summary: dict[str, Any]) -> list[str]:
    """What was written into the folder of a data set, for people."""
    return [
        *(f"{out / file}: {count} questions" for file, count in summary["questions"].items()),
        f"{out / 'corpus.jsonl'}: {summary['passages']} passages",
        *(f"{count} {note}" for note, count in summary["notes"].items()),
    ]


@click.command(epilog=SHOW_EXAMPLES)
@click.argument("place", type=PATH, metavar="RUN|TRAJECTORIES")
@click.option(
    "--id", "wanted", metavar="ID", help="One question (test-1) or one sample of it (test-1#0)."
)
@click.option("--limit", type=COUNT, metavar="N", help="The first N traces only.")
@click.option("--watch", is_flag=True, help="Show a run's figures anew while it is trained.")
@click.option("--page", is_flag=True, help="Show trajectories in the browser, until stopped.")
@click.option(
    "--against", type=PATH, metavar="OTHER", help="With --page: other trajectories beside them."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, help="With --page; 0 takes a free one."
)
@common
def show(
    place: Path,
    wanted: str | None,
    limit: int | None,
    watch: bool,
    page: bool,
    against: Path | None,
    port: int,
    as_json: bool,
    bars: Bars,
) -> None:
    """Show a run's figures, or trajectories.

    A run is a folder that `train` or `evaluate` wrote; trajectories are a file of them.
    """
    if watch and (page or wanted or limit or against):
        raise click.UsageError("--watch shows a run's figures: give it alone")
    if watch:
        _watch(place, as_json)
        return
    if page:
        _show_page(place, against, wanted, limit, port, as_json)
        return
    if against:
        raise click.UsageError("--against compares on the page: give --page, too")
    from exsearch.show.figures import folder_object, folder_text
    from exsearch.show.traces import find_traces, trace_object, trace_text

    if place.is_dir() and not wanted:
        tell(as_json, folder_object(place), folder_text(place))
        return
    traces = find_traces(place, wanted, limit)
    values = {"trajectories": [trace_object(trace) for trace in traces]}
    tell(as_json, values, "\n\n".join(trace_text(trace) for trace in traces))


def _watch(run: Path, as_json: bool) -> None:
    """Show a run's figures until nobody trains it any more; on a terminal in one place."""
    from exsearch.show.watch import watch

    told, in_place = "", sys.stdout.isatty()
    for number, (events, text) in enumerate(watch(run)):
        if as_json:
            for event in events:
                tell(True, event)
        elif text != told and (in_place or events or not number):
            click.clear()  # where there is a terminal
            tell(False, {}, *([text] if in_place else [text, ""]))
            told = text


def _show_page(
    place: Path,
    against: Path | None,
    wanted: str | None,
    limit: int | None,
    port: int,
    as_json: bool,
) -> None:
    """Serve a page of trajectories until the command is stopped."""
    from exsearch.errors import DataError
    from exsearch.http_server import address_of, check_installed, listen
    from exsearch.show.traces import find_traces

    check_installed("show --page")
    from exsearch.serving.saved import in_both, make_saved_app, serve_saved

    traces = find_traces(place, wanted, limit)
    columns, rows = [str(place)], [(trace,) for trace in traces]
    if against:
        columns.append(str(against))
        rows = in_both(traces, find_traces(against, wanted))
        if not rows:
            raise DataError(f"no question of it is in {place}, too", file=against)
    app = make_saved_app(" and ".join(columns), columns, rows)
    listener = listen("127.0.0.1", port)
    address = address_of(listener)
    said = f"{len(rows)} trajectories are shown at {address}"
    tell(as_json, {"address": address, "trajectories": len(rows)}, said)
    serve_saved(app, listener)
