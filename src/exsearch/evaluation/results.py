"""A result is what one cell of an experiment answered, without any text of a data set.

Rows hold ids, spans, scores and the model's own words; the texts are in the index and the question
file. So results can be published, and compared, where the data may not be copied.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exsearch.data.json_lines import read_objects
from exsearch.methods.format import one_line, word_spans
from exsearch.records import Evidence, Passage, Question, Trajectory
from exsearch.runs import write_atomic

ROWS_FILE = "predictions.jsonl.gz"
RESULT_FILE = "result.json"
QUESTION = "{question}"  # stands for the text of the question in a query
_TEXTS = ("question", "answers", "queries", "evidence")  # of a row of an evaluation


def result_row(row: Mapping[str, Any], trajectory: Trajectory, part: str) -> dict[str, Any]:
    """A row of an evaluation with ids in place of texts.

    Args:
        row: What `evaluate.row` gives.
        trajectory: The trajectory that it was made from.
        part: The name of the question file, which comes before the question's id.
    """
    kept = {name: value for name, value in row.items() if name not in _TEXTS}
    asked = one_line(trajectory.question.question)
    searches = [
        {
            "query": step.query.replace(asked, QUESTION) if asked else step.query,
            "passages": [passage.id for passage in step.passages],
            "evidence": evidence_spans(step.evidence, step.passages),
        }
        for step in trajectory.steps
    ]
    id_, hops = f"{part}/{row['id']}", hop_count(trajectory.question)
    return {**kept, "id": id_, "part": part, "hops": hops, "searches": searches}


def hop_count(question: Question) -> int | None:
    """The number of facts that answer a question, as its data set names them; None if it doesn't.

    Args:
        question: A question, with the sub-questions or the supporting passages that are known.
    """
    return len(question.decomposition or ()) or len(question.supporting) or None


def evidence_spans(evidence: Evidence | None, passages: Iterable[Passage]) -> list[Any] | None:
    """Where a fact stands: `[passage id, start, end]`, of the first passage that it was taken from.

    Start and end are null where the passage does not have it word by word; None without evidence.

    Args:
        evidence: The fact that was recorded.
        passages: The passages that the search found.
    """
    if evidence is None:
        return None
    of = {passage.id: passage for passage in passages}
    wanted = [one_line(evidence.text[slice(*span)]) for span in word_spans(evidence.text)]
    for id_ in evidence.passage_ids:
        if id_ in of and (span := _span(of[id_].text, wanted)):
            return [id_, *span]
    return [next(iter(evidence.passage_ids), None), None, None]


def _span(text: str, wanted: list[str]) -> tuple[int, int] | None:
    """Where words stand in a text one after the other; the last may end within a word of it."""
    spans = word_spans(text)
    words = [one_line(text[start:end]) for start, end in spans]
    count = len(wanted)
    for first in range(len(words) - count + 1 if count else 0):
        if words[first : first + count] == wanted:
            return spans[first][0], spans[first + count - 1][1]
    return None


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
