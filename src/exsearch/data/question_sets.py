"""A question set is a public file of questions whose passages stand elsewhere, turned into ours.

Items that come with passages are in `benchmarks`. It opens no file (`formats` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exsearch.data.answers import accepted_answers, list_in_text
from exsearch.data.benchmarks import Converted, unanswered
from exsearch.data.json_lines import Fields
from exsearch.errors import DataError
from exsearch.records import Passage

NO_PARAGRAPH = "questions written without `supporting`: their provenance names no paragraph"
MORE_GOLD = "questions with other sets of gold passages, of which the first is written"
UNJUDGED = "queries without a relevant passage left out"

_WIDEST = 100  # paragraphs that an answer of KILT may span


def from_plain(item: Fields, question_id: str, dataset: str) -> Converted:
    """Convert a question with its answers under any name that is read (`accepted_answers`).

    NQ-open's and WebQuestions' lines are so, DPR's tables of both, and Bamboogle's.

    Args:
        item: The item of the file.
        question_id: The id that the question gets where the item has none.
        dataset: The name of the data set.

    Raises:
        DataError: a field is missing or of another type; so in all these functions.
    """
    named = item.values.get("id") is not None or item.values.get("_id") is not None
    id_ = item.id() if named else question_id
    return _converted(item, id_, item.text("question"), accepted_answers(item), dataset)


def from_flashrag(item: Fields) -> Converted:
    """Convert an item of FlashRAG: `id, question, golden_answers`, and `metadata` with `type`."""
    answers = accepted_answers(item)
    metadata = item.object("metadata")
    more = {name: metadata.optional_text(name) for name in ("type", "level")}
    dataset = item.optional_text("dataset") or "flashrag"
    return _converted(item, item.id(), item.text("question"), answers, dataset, **more)


def from_popqa(item: Fields) -> Converted:
    """Convert a row of PopQA: `id, question, prop`, `possible_answers` as a list in a text."""
    spelled = item.text("possible_answers")
    answers = list_in_text(spelled)
    if answers is None:
        item.fail("possible_answers", "a list of texts in JSON")
    kind = item.optional_text("prop")
    return _converted(item, item.id(), item.text("question"), answers, "popqa", type=kind)


def from_triviaqa(item: Fields) -> Converted:
    """Convert an item of TriviaQA: `QuestionId, Question, Answer {Value, Aliases, HumanAnswers}`.

    Its `NormalizedAliases` are the same without case and punctuation, so they are not read. The
    test files have no answers.
    """
    answer, answers = item.object("Answer"), ()
    if answer.values:
        lists = (*answer.texts("Aliases"), *answer.texts("HumanAnswers"))
        answers = (answer.text("Value", blank=True), *lists)
    return _converted(item, item.id("QuestionId"), item.text("Question"), answers, "triviaqa")


def from_search_r1(item: Fields, question_id: str) -> Converted:
    """Convert a row of Search-R1: `data_source`, the answers at `reward_model.ground_truth.target`.

    The question and the id stand in the row, or in `extra_info` as `question`, `split` and `index`.

    Args:
        item: The row.
        question_id: The id that the question gets where the row has none.
    """
    info, source = item.object("extra_info"), item.text("data_source")
    truth = item.object("reward_model").object("ground_truth")
    asked = info if item.values.get("question") is None and info.values else item
    id_ = item.id() if item.values.get("id") is not None else ""
    if not id_ and info.values.get("index") is not None:
        id_ = f"{info.optional_text('split') or ''}-{info.id('index')}".removeprefix("-")
    # Files that hold several data sets number each of them anew.
    id_ = f"{source}-{id_}" if id_ else question_id
    answers = _texts(truth, "target") or accepted_answers(item)
    return _converted(item, id_, asked.text("question"), answers, source)


def from_kilt(item: Fields, dataset: str) -> Converted:
    """Convert an item of KILT: `id, input, output [{answer, provenance}]`.

    The passages that support an answer are called `<wikipedia_id>-<paragraph>`, as `kilt_passages`
    does. Each output is a way to answer, with all passages that it needs; the first that names
    some counts.
    """
    sets: list[list[str]] = []
    unnamed = False
    for output in item.objects("output"):
        spans = [_paragraphs(place) for place in output.objects("provenance")]
        unnamed |= [] in spans
        if spans and [] not in spans:
            sets.append(list(dict.fromkeys(id_ for span in spans for id_ in span)))
    notes = [NO_PARAGRAPH] * (unnamed and not sets) + [MORE_GOLD] * (len(sets) > 1)
    supporting = sets[0] if sets else []
    answers = tuple(dict.fromkeys(accepted_answers(item)))
    converted = _converted(
        item, item.id(), item.text("input"), answers, dataset, supporting=supporting
    )
    return Converted(converted.question, notes=(*notes, *converted.notes))


def _paragraphs(place: Fields) -> list[str]:
    """The ids of the paragraphs of one place of a provenance; none where it names a page only."""
    page, start = place.id("wikipedia_id"), place.values.get("start_paragraph_id")
    if start is None:
        return []
    end = place.values.get("end_paragraph_id", start)
    for name, value in (("start_paragraph_id", start), ("end_paragraph_id", end)):
        if type(value) is not int or not 0 <= value - start < _WIDEST:
            place.fail(name, f"a whole number, with at most {_WIDEST} paragraphs from the start on")
    return [f"{page}-{number}" for number in range(start, end + 1)]


def kilt_passages(page: Fields) -> Iterator[Passage]:
    """The paragraphs of a page of KILT's knowledge source: `wikipedia_id, wikipedia_title, text`.

    Blank ones and the headings of sections are left out; the numbers are the source's, from 0.
    """
    id_, title = page.id("wikipedia_id"), page.text("wikipedia_title", blank=True)
    for number, text in enumerate(page.texts("text")):
        if text.strip() and not text.startswith("Section::::"):
            yield Passage(f"{id_}-{number}", title, text.strip())


def from_beir(queries: Mapping[str, Fields], judged: Iterable[Fields]) -> Iterator[Converted]:
    """The queries of BEIR that are judged (`_id, text`), with their relevant passages, in order.

    Args:
        queries: The queries by id.
        judged: The rows of one file of judgements: `query-id, corpus-id, score`.
    """
    relevant: dict[str, list[str]] = {}
    for row in judged:
        query, passage = row.id("query-id"), row.id("corpus-id")
        if query not in queries:
            raise DataError(
                f'no query has the id "{query}"; is queries.jsonl given?',
                file=row.path,
                line=row.line,
            )
        try:
            score = int(row.id("score"))
        except ValueError:
            row.fail("score", "a whole number")
        found = relevant.setdefault(query, [])
        if score > 0 and passage not in found:
            found.append(passage)
    for id_, supporting in relevant.items():
        item = queries[id_]
        answers = accepted_answers(item.object("metadata"))  # HotpotQA has them
        question = _converted(
            item, id_, item.text("text"), answers, "beir", supporting=supporting
        ).question
        yield Converted(question) if supporting else Converted(None, notes=(UNJUDGED,))


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    """A list of texts, or the one text that stands for it."""
    return (fields.text(name),) if isinstance(fields.values.get(name), str) else fields.texts(name)


def _converted(
    item: Fields, question_id: str, text: str, answers: Iterable[str], dataset: str, **more: Any
) -> Converted:
    accepted = tuple(dict.fromkeys(answer for answer in answers if answer.strip()))
    question: dict[str, Any] = {"id": question_id, "question": text, "answers": list(accepted)}
    question |= {name: value for name, value in more.items() if value}
    return Converted({**question, "dataset": dataset}, notes=unanswered(item, accepted))
