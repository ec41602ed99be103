"""A benchmark item is one question of an official file, with its passages, turned into ours.

Those whose passages stand elsewhere are in `question_sets`. It does not read or write files, but
for 2WikiMultihopQA's aliases (`formats.py` does).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exsearch.data.answers import accepted_answers, near_name
from exsearch.data.json_lines import Fields, clean, read_objects
from exsearch.records import Passage

NO_GOLD = "questions written without `supporting`: a gold passage is not in the file"
NO_TEXT = "passages without text left out"
NO_ANSWER = "unanswerable questions left out"
UNANSWERED = "questions written without an answer: their source has none"


@dataclasses.dataclass(frozen=True)
class Converted:
    """A benchmark item in our form.

    Attributes:
        question: The question as one JSON object; None where it is left out.
        passages: The passages that come with the question.
        notes: What was left out or is incomplete; the notes of all items are counted.
    """

    question: dict[str, Any] | None
    passages: tuple[Passage, ...] = ()
    notes: tuple[str, ...] = ()


def from_hotpotqa(item: Fields) -> Converted:
    """Convert an item of HotpotQA.

    It has `_id, question, answer, supporting_facts [[title, i]], context [[title, [text]]]`. The
    test files have neither answer nor supporting facts.

    Raises:
        DataError: a field is missing or of another type.
    """
    return _with_context(item, accepted_answers(item), "hotpotqa", "hp")


def from_2wikimultihopqa(item: Fields, aliases: Mapping[str, tuple[str, ...]]) -> Converted:
    """Convert an item of 2WikiMultihopQA.

    It has the fields of HotpotQA, `evidences` triples and `answer_id`.

    Args:
        item: The item of the official file.
        aliases: Other names by Wikidata id (`read_aliases`); those of the answer are accepted, too.

    Raises:
        DataError: a field is missing or of another type.
    """
    accepted = accepted_answers(item)
    others = aliases.get(item.optional_text("answer_id") or "", ())
    accepted = tuple(dict.fromkeys((*accepted, *others))) if accepted else ()
    converted = _with_context(item, accepted, "2wikimultihopqa", "2w")
    evidences = item.items("evidences")
    if converted.question is not None and evidences:
        converted.question["evidences"] = evidences
    return converted


def _with_context(item: Fields, answers: tuple[str, ...], dataset: str, prefix: str) -> Converted:
    """What HotpotQA and 2WikiMultihopQA share: passages as lists of sentences, gold by title."""
    by_title: dict[str, Passage] = {}
    passages, notes = [], []
    for title, sentences in (_pair(item, "context", entry) for entry in item.items("context")):
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            item.fail("context", f"a list of texts after the title {title!r}")
        text = " ".join(s.strip() for s in sentences if s.strip())
        if not text:
            notes.append(NO_TEXT)
            continue
        passages.append(_passage(prefix, title, text))
        by_title.setdefault(title, passages[-1])
    facts = item.items("supporting_facts")
    titles = list(dict.fromkeys(_pair(item, "supporting_facts", fact)[0] for fact in facts))
    supporting = [by_title[title].id for title in titles if title in by_title]
    if len(supporting) < len(titles):
        supporting = []
        notes.append(NO_GOLD)
    question = _question(item, item.id("_id"), answers, supporting, dataset)
    return Converted(question, tuple(passages), (*notes, *unanswered(item, answers)))


def read_aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Read 2WikiMultihopQA's `id_aliases.json`, in truth JSON lines: other names by Wikidata id.

    Raises:
        DataError: the file can't be read, or a field is missing or of another type.
    """
    aliases = {}
    for line, values in read_objects(path, "alias file"):
        fields = Fields(values, path, line)
        aliases[fields.id("Q_id")] = fields.texts("aliases") + fields.texts("demonyms")
    return aliases


def from_musique(item: Fields) -> Converted:
    """Convert an item of MuSiQue.

    It has `id, question, answer, answer_aliases, paragraphs, question_decomposition`; in the test
    file the paragraphs only. MuSiQue-Full's unanswerable questions are left out.

    Raises:
        DataError: a field is missing or of another type.
    """
    if item.values.get("answerable") is False:
        return Converted(None, notes=(NO_ANSWER,))
    by_index: dict[int, Passage | None] = {}
    gold: list[Passage | None] = []
    for entry in item.objects("paragraphs"):
        index = entry.values.get("idx")
        if not isinstance(index, int):
            entry.fail("idx", "a whole number")
        title, text = (entry.text(name, blank=True) for name in ("title", "paragraph_text"))
        by_index[index] = _passage("mq", title, text) if text.strip() else None
        if entry.values.get("is_supporting") is True:
            gold.append(by_index[index])
    accepted = tuple(dict.fromkeys(accepted_answers(item)))
    supporting = [] if None in gold else list(dict.fromkeys(p.id for p in gold if p))
    question = _question(item, item.id(), accepted, supporting, "musique")
    hops = [_hop(entry, by_index) for entry in item.objects("question_decomposition")]
    if hops:
        question["decomposition"] = hops
    passages = tuple(passage for passage in by_index.values() if passage)
    notes = [NO_TEXT] * (len(by_index) - len(passages)) + [NO_GOLD] * (None in gold)
    return Converted(question, passages, (*notes, *unanswered(item, accepted)))


def unanswered(item: Fields, answers: tuple[str, ...]) -> tuple[str, ...]:
    """The note on an item without answers; it names the field that may be meant for them."""
    if answers:
        return ()
    near = near_name(item.values)
    return (f"{UNANSWERED}, but a field {near!r}" if near else UNANSWERED,)


def _question(
    item: Fields, question_id: str, answers: tuple[str, ...], supporting: list[str], dataset: str
) -> dict[str, Any]:
    question: dict[str, Any] = {"id": question_id, "question": item.text("question")}
    question |= {"answers": list(answers)} if answers else {}
    question |= {"supporting": supporting} if supporting else {}
    for name in ("type", "level"):
        value = item.optional_text(name)
        question |= {name: value} if value else {}
    return {**question, "dataset": dataset}


def _hop(entry: Fields, by_index: Mapping[int, Passage | None]) -> dict[str, Any]:
    hop: dict[str, Any] = {
        "question": entry.text("question"),
        "answer": entry.text("answer", blank=True),
    }
    index = entry.values.get("paragraph_support_idx")
    if index is None:
        return hop
    if not isinstance(index, int) or index not in by_index:
        entry.fail("paragraph_support_idx", "the idx of one of the paragraphs")
    support = by_index[index]
    return {**hop, "support_id": support.id} if support else hop


def _pair(item: Fields, name: str, entry: Any) -> tuple[str, Any]:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
        item.fail(name, "a list of pairs that begin with a title")
    return clean(entry[0]), entry[1]


def _passage(prefix: str, title: str, text: str) -> Passage:
    text = clean(text)
    digest = hashlib.blake2b(f"{title}\0{text}".encode(), digest_size=8).hexdigest()
    return Passage(id=f"{prefix}-{digest}", title=title, text=text)
