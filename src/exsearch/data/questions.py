"""A question file has one question a line or row, with its gold answers where they are known.

It does not read the official formats of the benchmarks (`formats.py` converts those), nor passages.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from exsearch.data.answers import ANSWER_NAMES, accepted_answers, listed, near_name
from exsearch.data.json_lines import Fields, read_objects
from exsearch.data.sources import plain_name
from exsearch.data.tables import TABLES, read_rows
from exsearch.errors import DataError
from exsearch.records import Hop, Question

logger = logging.getLogger(__name__)


def load_questions(path: Path | str, limit: int | None = None) -> list[Question]:
    """The questions of a file, in their order, the first `limit` of them.

    A line of a `.jsonl` file is `{"id", "question"}` with the optional `answers` (or another of
    `ANSWER_NAMES`), `supporting` (passage ids), `decomposition` (a list of `{question, answer,
    answer_short?, support_id?}`) and `dataset`. Other fields are passed over; one that looks like
    answers in a question without any is warned of.

    A `.csv` or `.tsv` file has the same names in its first line, or no names and two columns, the
    question and the answer; a list of answers stands in its field as JSON or Python writes it. A
    `.parquet` file has columns of these names, lists as such. Where no id is given, it is
    `<file>-<line>`. All but Parquet may be packed (`.gz`, `.bz2`, `.zst`).

    Args:
        path: The question file.
        limit: The number of questions to read, from the first on; None reads all.

    Raises:
        DataError: the file is missing, unreadable or has no question; a line is of another form; an
            id comes twice. The message names file, line, field and what was expected.
        MissingExtraError: a `.parquet` or `.zst` file without the extra `files`.
        ValueError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected 1 or more, or None for all questions")
    path = Path(path)
    near: Counter[str] = Counter()
    questions = list(islice(_read(path, near), limit))
    if not questions:
        raise DataError('no question in it; expected lines of {"id", "question"}', file=path)
    for name, count in near.items():
        logger.warning(
            "%s: a field %r, which is not read, stands in %d of the questions without an answer; "
            "answers stand under %s",
            *(path, name, count, " or ".join(ANSWER_NAMES[:-1])),
        )
    return questions


def tell_unanswered(questions: Sequence[Question], file: Path | str, so: str) -> None:
    """Warn of questions without an answer, where there are some.

    Args:
        questions: The questions of a file.
        file: The file, for the message.
        so: What follows for them, for the message.
    """
    missing = sum(not question.distinct_answers for question in questions)
    if missing:
        counts = f"{missing} of {len(questions)} questions have no answer"
        logger.warning("%s: %s: %s", file, counts, so)


def _read(path: Path, near: Counter[str]) -> Iterator[Question]:
    """The questions of a file; fields that may be meant for missing answers are counted."""
    lines: dict[str, int] = {}
    for number, values in _items(path):
        question = _question(Fields(values, path, number))
        if not question.answers and (name := near_name(values)):
            near[name] += 1
        if question.id in lines:
            message = f'id "{question.id}" is also on line {lines[question.id]}; ids must differ'
            raise DataError(message, file=path, line=number)
        lines[question.id] = number
        yield question


def _question(fields: Fields) -> Question:
    return Question(
        id=fields.id(),
        question=fields.text("question"),
        answers=accepted_answers(fields),
        supporting=fields.ids("supporting"),
        decomposition=tuple(_hop(hop) for hop in fields.objects("decomposition")),
        dataset=fields.optional_text("dataset"),
    )


def _items(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, or the rows of a table as such, each with its line."""
    plain = plain_name(path)
    if not plain.endswith(TABLES):
        yield from read_objects(path, "question file")
        return
    for number, row in read_rows(path, "question file", "question", ("question", "answer")):
        values = {name: listed(name, value) for name, value in row.items()}
        if values.get("id") is None and values.get("_id") is None:
            values["id"] = f"{plain.rpartition('.')[0]}-{number}"
        yield number, values


def _hop(fields: Fields) -> Hop:
    return Hop(
        question=fields.text("question"),
        answer=fields.text("answer", blank=True),
        answer_short=fields.optional_text("answer_short"),
        support_id=fields.id("support_id") if fields.values.get("support_id") is not None else None,
    )
