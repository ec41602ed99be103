"""A result is what one cell of an experiment answered, without any text of a data set.

Rows hold ids, spans, scores and the model's own words; the texts are in the index and the question
file. What the model copied of them is a span, too. So results can be published, and compared, where
the data may not be copied.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exsearch.agent.citations import copied
from exsearch.data.json_lines import read_objects
from exsearch.records import Evidence, Passage, Question, Trajectory
from exsearch.runs import write_atomic

ROWS_FILE = "predictions.jsonl.gz"
RESULT_FILE = "result.json"
COPIED = 8  # words that the model wrote as they stand in a text: from so many on it is a copy
_WORD = re.compile(r"\w+")
_TEXTS = ("question", "answers", "queries", "evidence")  # of a row of an evaluation


def result_row(row: Mapping[str, Any], trajectory: Trajectory, part: str) -> dict[str, Any]:
    """A row of an evaluation with ids in place of texts.

    Args:
        row: What `evaluate.row` gives.
        trajectory: The trajectory that it was made from.
        part: The name of the question file, which comes before the question's id.
    """
    kept = {name: value for name, value in row.items() if name not in _TEXTS}
    sources = {"question": trajectory.question.question}
    sources |= {p.id: f"{p.title}\n{p.text}" for p in trajectory.passages}
    searches = [
        {
            "query": without_copies(step.query, sources),
            "passages": [passage.id for passage in step.passages],
            "evidence": evidence_spans(step.evidence, step.passages),
        }
        for step in trajectory.steps
    ]
    kept["prediction"] = without_copies(row["prediction"], sources)
    id_, hops = f"{part}/{row['id']}", hop_count(trajectory.question)
    return {**kept, "id": id_, "part": part, "hops": hops, "searches": searches}


def hop_count(question: Question) -> int | None:
    """The number of facts that answer a question, as its data set names them; None if it doesn't.

    Args:
        question: A question, with the sub-questions or the supporting passages that are known.
    """
    return len(question.decomposition or ()) or len(question.supporting) or None


def without_copies(text: str, sources: Mapping[str, str]) -> str:
    """A text in which every run of `COPIED` words or more of a source is `{name:first:last}`.

    `first` and `last` are the numbers of words of the source, from 0; the longest run is taken at
    each place. A word is letters, digits and underscores, in lower case.

    Args:
        text: What the model wrote.
        sources: What it may have copied from, by name.
    """
    words = list(_WORD.finditer(text))
    said = [word[0].lower() for word in words]
    starts: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    of = {name: [w.lower() for w in _WORD.findall(source)] for name, source in sources.items()}
    for name, own in of.items():
        for n in range(len(own) - COPIED + 1):
            starts.setdefault(tuple(own[n : n + COPIED]), []).append((name, n))
    made, at, end = "", 0, 0
    while at < len(words):
        best = ("", 0, 0)
        for name, n in starts.get(tuple(said[at : at + COPIED]), ()):
            same = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(said[at:], of[name][n:], strict=False)
            )
            if (count := sum(1 for _ in same)) > best[2]:
                best = (name, n, count)
        name, n, count = best
        if count:
            made += f"{text[end : words[at].start()]}{{{name}:{n}:{n + count - 1}}}"
            at, end = at + count, words[at + count - 1].end()
        else:
            at += 1
    return made + text[end:]


def evidence_spans(evidence: Evidence | None, passages: Iterable[Passage]) -> list[Any] | None:
    """Where a fact stands: `[passage id, start, end]`, of the first passage that it was taken from.

    Start and end are null where the passage does not have its words one after the other, whatever
    their case and punctuation; None without evidence.

    Args:
        evidence: The fact that was recorded.
        passages: The passages that the search found.
    """
    if evidence is None:
        return None
    of = {passage.id: passage for passage in passages}
    for id_ in evidence.passage_ids:
        if id_ in of and (span := copied(evidence.text, of[id_].text)):
            return [id_, *span[:2]]
    return [next(iter(evidence.passage_ids), None), None, None]


def write_result(folder: Path, facts: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the result of a cell; `result.json` last, so that a folder with it is whole.

    Args:
        folder: The folder to write.
        facts: What determines the result, and its figures.
        rows: What `result_row` gives for each question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:  # the same bytes each time
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    write_atomic(folder / ROWS_FILE, packed.getvalue())
    write_atomic(folder / RESULT_FILE, json.dumps(facts, indent=1, ensure_ascii=False))


def read_result(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a result.

    Raises:
        DataError: the file is missing or damaged.
    """
    return (row for _, row in read_objects(folder / ROWS_FILE, "result"))
