"""The accepted answers of a question stand in public files under several names; all are read here.

It opens no file, and does not judge whether an answer is right.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping
from typing import Any

from exsearch.data.json_lines import Fields, clean

# Ours; FlashRAG's; PopQA's; most benchmarks'; KILT's. The first that holds an answer counts.
ANSWER_NAMES = ("answers", "golden_answers", "possible_answers", "answer", "output")
_ALIASES = "answer_aliases"  # MuSiQue's: further answers, beside those under another name
# What may be meant for answers, besides any name that looks like one of the above.
_KIN = ("gold", "target", "label", "reference", "ground_truth", "solution")
_NO_KIN = ("id", "ids", "type", "start", "end", "able", "count", "url")


def accepted_answers(fields: Fields) -> tuple[str, ...]:
    """The accepted answers of an item, in their order; empty where it has none.

    Under `answer` a single text will do, elsewhere a list is expected: of texts, or of KILT's
    objects with an `answer`. SQuAD's `{"text": [...]}`, TriviaQA's `{"value", "aliases"}` and a
    text that spells a list (PopQA) are read, too.

    Args:
        fields: The item.

    Raises:
        DataError: a field of answers holds something else.
    """
    for name in ANSWER_NAMES:
        found = _texts(fields, name)
        if any(answer.strip() for answer in found):
            return (*found, *(a for a in fields.texts(_ALIASES) if a not in found))
    return ()


def near_name(values: Mapping[str, Any]) -> str | None:
    """The field of an item without answers that may be meant for them; None where there is none."""
    for name, value in values.items():
        plain = name.lower().replace("-", "_").replace(" ", "_")
        if not value or isinstance(value, bool) or name in ANSWER_NAMES or plain.endswith(_NO_KIN):
            continue
        alike = difflib.get_close_matches(plain, ANSWER_NAMES[:-1], n=1, cutoff=0.8)
        if alike or "answer" in plain or plain.rstrip("s") in _KIN:
            return name
    return None


def listed(name: str, value: Any) -> Any:
    """A field of a table, as a list where its text spells one, or stands for one by its name."""
    if not isinstance(value, str) or name not in ("supporting", *ANSWER_NAMES):
        return value
    found = list_in_text(value)
    return [value] if found is None else found


def list_in_text(text: str) -> list[str] | None:
    """The texts of a list that a text spells in JSON or in Python; None where it spells none."""
    if not text.lstrip().startswith("["):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return [clean(item) for item in value]
    return None


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    value = fields.values.get(name)
    inner = Fields({}, fields.path, fields.line, f"{fields.prefix}{name}.")
    match value:
        case str() if name == "answer":
            return (fields.text(name, blank=True),)
        case str() if (listed := list_in_text(value)) is not None:
            return tuple(listed)
        case {"text": [*_]}:
            inner.values = value
            return inner.texts("text")
        case {"value": str()}:
            inner.values = value
            return (inner.text("value", blank=True), *inner.texts("aliases"))
        case [*items] if any(isinstance(item, dict) and "answer" in item for item in items):
            found = (entry.optional_text("answer") for entry in fields.objects(name))
            return tuple(answer for answer in found if answer)
    # Instruction data have an `output` that is no list of answers.
    return () if name == "output" else fields.texts(name)
