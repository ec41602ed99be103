"""The commands that search and ask no model: `retrieve` and `evaluate-retrieval`.

They read options and print; the work is done in `jobs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exsearch.cli.options import COUNT, PATH, common, index_option, limit_option
from exsearch.cli.output import tell
from exsearch.progress import Bars

RETRIEVE_EXAMPLES = """\b
Examples:
  exsearch retrieve questions.jsonl --index index --k 5
  echo "Who wrote the play about Peter Pan?" | exsearch retrieve - --index index
  exsearch retrieve questions.jsonl --index index --k 100 --form trec --out bm25.run
  exsearch retrieve --index index --fetch s-0001
"""

EVALUATE_EXAMPLES = """\b
Examples:
  exsearch evaluate-retrieval --questions dev.jsonl --index index --out found
  exsearch evaluate-retrieval --questions dev.jsonl --index dense --against index --out flips
  exsearch evaluate-retrieval --trajectories test/trajectories.jsonl --index dense --out asked
"""

_chunk_option = click.option(
    "--chunk", type=COUNT, default=100, metavar="N", help="Searched for together, kept as one."
)


@click.command(epilog=RETRIEVE_EXAMPLES)
@click.argument("queries", required=False, type=PATH, metavar="[QUERIES]")
@index_option
@click.option("--k", type=COUNT, default=5, help="Passages a query.")
@click.option("--out", type=PATH, metavar="FILE", help="File to write. Default: standard output.")
@click.option(
    "--form",
    type=click.Choice(["text", "jsonl", "trec"]),
    help="How passages are written; trec is a run file. Default: text, or jsonl in a file.",
)
@click.option(
    "--fetch", "ids", multiple=True, metavar="ID", help="A passage by its id; may be repeated."
)
@limit_option
@_chunk_option
@common
def retrieve(
    queries: Path | None,
    index: str,
    k: int,
    out: Path | None,
    form: str | None,
    ids: tuple[str, ...],
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Find passages for queries.

    QUERIES is a question file, a file of JSON lines with "query", or of one query a line; - reads
    standard input. Run again, the same command with --out goes on where it stopped.
    """
    from exsearch.data.queries import STDIN, load_queries
    from exsearch.jobs.inputs import question_file
    from exsearch.jobs.retrieve import Place
    from exsearch.jobs.retrieve import retrieve as run

    place = Place(index, options["retriever_timeout"], options["chunk"])
    if (queries is None) == (not ids):
        raise click.UsageError("give the queries (a file, or -) or passages to --fetch")
    if queries is None:
        _fetch(place, ids, as_json)
        return
    file = queries if queries == STDIN else question_file(str(queries))
    asked = load_queries(file, options["limit"])
    if out is None and as_json:
        form = "jsonl"
    form = form or ("jsonl" if out else "text")
    lines, counts = run(asked, place, k, form, out, bars=bars)
    if out is None and as_json:
        import json

        tell(True, {**counts, "results": [json.loads(line) for line in lines]})
    elif out is None:
        tell(False, {}, *lines)
    else:
        failed = f", {counts['failed']} searches failed" if counts["failed"] else ""
        said = f"{counts['passages']} passages for {counts['queries']} queries are in {out}{failed}"
        tell(as_json, {"file": out, **counts}, said)


def _fetch(place: Any, ids: tuple[str, ...], as_json: bool) -> None:
    from exsearch.jobs.retrieve import passage_text

    passages = place.open().fetch(ids)
    values = [passage and {**passage.fields, "score": None} for passage in passages]
    lines = [
        passage_text(passage) if passage else f"{id_}  no such passage"
        for id_, passage in zip(ids, passages, strict=True)
    ]
    tell(as_json, {"passages": values}, *lines)


@click.command("evaluate-retrieval", epilog=EVALUATE_EXAMPLES)
@click.option(
    "--questions",
    metavar="FILE",
    help="Question file with supporting passages or answers; sample:dev and its like too.",
)
@click.option(
    "--trajectories",
    metavar="FILE",
    help="Trajectories, or a folder of them: what a searcher asked is searched for instead.",
)
@index_option
@click.option(
    "--against", metavar="INDEX", help="Another place, for the paired difference and the flips."
)
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@click.option(
    "--k", "ks", type=COUNT, multiple=True, default=(5, 20), help="Passages that count; repeat it."
)
@limit_option
@_chunk_option
@common
def evaluate_retrieval(
    questions: str | None,
    trajectories: str | None,
    index: str,
    against: str | None,
    out: Path,
    ks: tuple[int, ...],
    as_json: bool,
    bars: Bars,
    **options: Any,
) -> None:
    """Say how well a place finds what questions need.

    Recall of the supporting passages, all of them among the first k, MRR, nDCG, and whether an
    answer stands in a passage found, with 95 % intervals. Writes retrieval.jsonl (one line a
    question) and summary.json. Run again, the same command goes on where it stopped.
    """
    from exsearch.jobs.evaluate_retrieval import asked_by, asked_of
    from exsearch.jobs.evaluate_retrieval import evaluate_retrieval as run
    from exsearch.jobs.retrieve import Place
    from exsearch.show.figures import retrieval_text

    if (questions is None) == (trajectories is None):
        raise click.UsageError("give a file of --questions or of --trajectories")
    limit = options["limit"]
    file, asked = asked_of(questions, limit) if questions else asked_by(trajectories or "", limit)
    place, other = (
        Place(name, options["retriever_timeout"], options["chunk"]) if name else None
        for name in (index, against)
    )
    assert place
    summary = run(file, asked, place, out, against=other, ks=ks, bars=bars)
    texts = {one.question.id: one.question.question for one in asked}
    tell(as_json, {**summary, "out": out}, retrieval_text(summary, texts), f"rows are in {out}")
