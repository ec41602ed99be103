"""An evaluation of retrieval searches for a file of questions, or for what a searcher asked.

What its figures mean is `evaluation.retrieval`'s matter. It asks no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.config import user_path
from exsearch.data.questions import load_questions
from exsearch.errors import DataError, RetrieverError
from exsearch.evaluation.retrieval import Asked, compare, judge
from exsearch.evaluation.significance import mean_figures
from exsearch.jobs.inputs import question_file
from exsearch.jobs.provenance import ENVIRONMENT_FILE, below, refuse_others, settle
from exsearch.jobs.retrieve import Place, Searches
from exsearch.progress import Bars
from exsearch.records import Passage
from exsearch.retrievers.guarded import Found
from exsearch.runs import committed, in_chunks, locked, read_jsonl, sha256_file, write_atomic
from exsearch.trajectories import TRAJECTORIES_FILE, by_question, read_trajectories

JOB_FILE = "settings.json"  # what determines the evaluation
ROWS_FILE = "retrieval.jsonl"
AGAINST_FILE = "against.jsonl"
SUMMARY_FILE = "summary.json"


def evaluate_retrieval(
    file: Path,
    asked: Sequence[Asked],
    place: Place,
    folder: Path,
    *,
    against: Place | None = None,
    ks: Sequence[int] = (5, 20),
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Search for questions into a folder and judge what is found, or go on with that.

    It writes a row a question as it goes (`retrieval.jsonl`, and `against.jsonl` for the second
    place), then `summary.json`.

    Args:
        file: The file that the questions come from, which names them.
        asked: The questions with what is searched for.
        place: Where it is searched for.
        folder: The folder of the evaluation.
        against: Another place, for the paired difference on the same questions.
        ks: The numbers of passages that count.
        bars: Opens the progress bar; None shows one.

    Returns:
        `n`, the figures of `judge` by name as `mean_figures` gives them, `failed` (questions of
        which a search failed: what it would have found counts as missed), `searches`, `seconds`
        spent searching; and with another place `against`: its own figures in `figures`, and what
        `compare` gives in `compared`.

    Raises:
        DataError: no question has a supporting passage or an answer.
        RunError: the folder holds an evaluation with other settings, or something else.
        RetrieverError: all searches failed.
    """
    if not any(one.question.supporting or one.question.distinct_answers for one in asked):
        expected = "expected `supporting` passages or `answers` by which a search can be judged"
        raise DataError(f"no question says what should be found; {expected}", file=file)
    ks = sorted(set(ks))
    places = {ROWS_FILE: Searches(place, ks[-1])}
    if against:
        places[AGAINST_FILE] = Searches(against, ks[-1])
    settings: dict[str, Any] = {
        "questions": f"sha256:{sha256_file(file)}",
        "n": len(asked),
        "k": ks,
        "chunk": place.chunk,
        "index": places[ROWS_FILE].identity,
        "against": places[AGAINST_FILE].identity if against else None,
    }
    refuse_others(folder / JOB_FILE, settings, below(folder))
    with locked(folder):
        done = {name: committed(folder / name, "questions") for name in places}
        begun = any(done.values())
        settle(folder / JOB_FILE, settings, folder / ENVIRONMENT_FILE, begun=begun)
        total = len(asked) * len(places)
        opened = (bars or Bars()).open("search", total, "question", sum(done.values()))
        figures, rows = [], []
        with opened as bar:
            for name, searches in places.items():
                searches.found = committed(folder / name, "found")
                figures.append(_search_all(asked, searches, ks, folder / name, place.chunk, bar))
                rows.append(list(read_jsonl(folder / name, id=str, values=dict)))
        summary = figures[0]
        if against:
            summary["against"] = {"figures": figures[1], "compared": compare(*rows)}
        write_atomic(folder / SUMMARY_FILE, json.dumps(summary, indent=1))
    return summary


def asked_of(questions: str, limit: int | None = None) -> tuple[Path, list[Asked]]:
    """A question file, `sample:test` and its like too, and its questions."""
    file = question_file(questions)
    return file, [Asked(question) for question in load_questions(file, limit)]


def asked_by(trajectories: str, limit: int | None = None) -> tuple[Path, list[Asked]]:
    """A file of trajectories, or a folder with one, and the queries that were searched for.

    Raises:
        DataError: the file can't be read, or has no search.
    """
    file = user_path(trajectories)
    file = file / TRAJECTORIES_FILE if file.is_dir() else file
    asked = []
    for group in by_question(read_trajectories(file))[:limit]:
        samples = tuple(tuple(step.query for step in trajectory.steps) for trajectory in group)
        asked.append(Asked(group[0].question, samples))
    if not any(sample for one in asked for sample in one.samples):
        raise DataError("no trajectory has a search", file=file)
    return file, asked


def _search_all(
    asked: Sequence[Asked], searches: Searches, ks: Sequence[int], file: Path, chunk: int, bar: Any
) -> dict[str, Any]:
    """Search for all questions into a file of rows, and give the figures of them."""

    def work(some: Sequence[Asked]) -> tuple[Iterator[str], dict[str, Any]]:
        queries = [query for one in some for sample in one.searches for query in sample]
        before, start = searches.found, time.monotonic()
        results = searches.search(queries, len(some))
        seconds = time.monotonic() - start
        each = iter(results)
        found = [[[next(each) for _ in sample] for sample in one.searches] for one in some]
        bar.update(len(some))
        facts = {"questions": len(some), "searches": len(queries), "seconds": round(seconds, 4)}
        return _rows(some, found, ks), {**facts, "found": searches.found - before}

    chunks = in_chunks(asked, chunk, file, work)
    rows = list(read_jsonl(file, id=str, values=dict, error=str))
    names = dict.fromkeys(name for row in rows for name in row["values"])
    return {
        "n": len(rows),
        **mean_figures({name: [row["values"].get(name) for row in rows] for name in names}),
        "failed": sum(bool(row["error"]) for row in rows),
        "searches": sum(c["searches"] for c in chunks),
        "seconds": round(sum(c["seconds"] for c in chunks), 4),
    }


def _rows(
    some: Sequence[Asked], found: Sequence[Sequence[Sequence[Found]]], ks: Sequence[int]
) -> Iterator[str]:
    """A line of JSON a question: what was searched for, the ids that were found, the figures."""
    lists = [[[_passages(f) for f in sample] for sample in samples] for samples in found]
    judged = judge(some, lists, ks)
    for one, samples, passages, values in zip(some, found, lists, judged, strict=True):
        errors = [f for sample in samples for f in sample if isinstance(f, RetrieverError)]
        row = {
            "id": one.question.id,
            "question": one.question.question,
            "queries": one.samples,
            "found": [[[p.id for p in ranking] for ranking in sample] for sample in passages],
            "values": values,
            "error": str(errors[0]) if errors else "",
        }
        yield json.dumps(row, ensure_ascii=False)


def _passages(found: Found) -> list[Passage]:
    return [] if isinstance(found, RetrieverError) else found
