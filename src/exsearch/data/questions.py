"""A question file is JSON lines: one question a line, with its gold answers where they are known.

It does not read the official formats of the benchmarks (`formats.py` converts those), nor passages.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from exsearch.data.json_lines import Fields, read_objects
from exsearch.errors import DataError
from exsearch.records import Hop, Question


def load_questions(path: Path | str, limit: int | None = None) -> list[Question]:
    """The questions of a `.jsonl` or `.jsonl.gz` file, in their order, the first `limit` of them.

    A line is `{"id", "question"}` with the optional `answers` (a list; a single text may be given
    as `answer` instead), `supporting` (passage ids), `decomposition` (a list of `{question, answer,
    answer_short?, support_id?}`) and `dataset`. Other fields are passed over.

    Args:
        path: The question file.
        limit: The number of questions to read, from the first on; None reads all.

    Raises:
        DataError: the file is missing, unreadable or has no question; a line is of another form; an
            id comes twice. The message names file, line, field and what was expected.
        ValueError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected 1 or more, or None for all questions")
    path = Path(path)
    questions = list(islice(_read(path), limit))
    if not questions:
        raise DataError('no question in it; expected lines of {"id", "question"}', file=path)
    return questions


def _read(path: Path) -> Iterator[Question]:
    lines: dict[str, int] = {}
    for number, values in read_objects(path, "question file"):
        question = _question(Fields(values, path, number))
        if question.id in lines:
            message = f'id "{question.id}" is also on line {lines[question.id]}; ids must differ'
            raise DataError(message, file=path, line=number)
        lines[question.id] = number
        yield question


def _question(fields: Fields) -> Question:
    return Question(
        id=fields.id(),
        question=fields.text("question"),
        answers=_answers(fields),
        supporting=fields.texts("supporting"),
        decomposition=tuple(_hop(hop) for hop in fields.objects("decomposition")),
        dataset=fields.optional_text("dataset"),
    )


def _answers(fields: Fields) -> tuple[str, ...]:
    """`answers`, or else `answer`: one text, or a list as NQ-open has it."""
    if fields.values.get("answers") is not None:
        return fields.texts("answers")
    if isinstance(fields.values.get("answer"), list):
        return fields.texts("answer")
    answer = fields.optional_text("answer")
    return () if answer is None else (answer,)


def _hop(fields: Fields) -> Hop:
    return Hop(
        question=fields.text("question"),
        answer=fields.text("answer", blank=True),
        answer_short=fields.optional_text("answer_short"),
        support_id=fields.optional_text("support_id"),
    )
