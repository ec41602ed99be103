"""A format is how a data set is distributed; converting gives questions and a corpus.

What an item of each means is in `benchmarks` and `question_sets`. It does not download anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from exsearch.data import FORMATS, question_sets
from exsearch.data.answers import listed
from exsearch.data.benchmarks import (
    NO_GOLD,
    NO_TEXT,
    Converted,
    from_2wikimultihopqa,
    from_hotpotqa,
    from_musique,
    read_aliases,
)
from exsearch.data.corpus import read_corpus
from exsearch.data.json_array import read_array
from exsearch.data.json_lines import Fields, clean, read_objects
from exsearch.data.sources import plain_name
from exsearch.data.tables import TABLES, read_parquet, read_rows
from exsearch.errors import ConfigError, DataError
from exsearch.progress import Bars
from exsearch.records import Passage, refuse_text
from exsearch.runs import new_folder, refuse_other_content, sha256_file
from exsearch.terminal import safe

Item = TypeVar("Item")

SUMMARY = "conversion.json"
_CORPUS = "corpus.jsonl"


@dataclasses.dataclass(frozen=True)
class _Format:
    """How the sources of a format are read.

    Attributes:
        questions: Gives the questions of a file, by what `read_helpers` returned.
        helper: The name of files that go with those of questions; empty where there are none.
        read_helpers: Reads these files.
        is_corpus: Whether a file holds passages.
        passages: Gives the passages of such files.
    """

    questions: Callable[[Path, Any], Iterator[Converted]]
    helper: str = ""
    read_helpers: Callable[[Sequence[Path]], Any] = lambda files: None
    is_corpus: Callable[[Path], bool] = lambda file: False
    passages: Callable[[Sequence[Path]], Iterator[Passage]] = read_corpus


def convert(
    format: str,
    sources: Sequence[Path | str],
    out_folder: Path | str,
    *,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Convert official files into a folder of question files and one corpus, whole or not at all.

    Each source of questions becomes `<its name>.jsonl`. The distinct passages that come with
    questions (by title and text) become `corpus.jsonl`, with ids made from their content, so that
    they stay the same from run to run; the passages of a source that is a corpus keep their ids.
    For 2WikiMultihopQA, `id_aliases.json` may be among the sources; the aliases of an answer are
    then accepted too, as in the official evaluation. For BEIR, a folder may be given: its corpus,
    queries and judgements. A question whose gold passages are not all in its file (HotpotQA's
    fullwiki setting), or in the corpus that is given, is written without `supporting`.

    Args:
        format: The name of the format, one of `exsearch.data.FORMATS`.
        sources: The official files, packed or not.
        out_folder: The folder to write.
        bars: Opens the progress bars; None shows none.

    Returns:
        What was written, as also saved in `conversion.json`: questions a file, passages, and the
        counts of what was left out or is incomplete (`notes`).

    Raises:
        DataError: a source is missing or not of this format; it names file, line or item, field.
        ConfigError: an unknown format, or `out_folder` holds something else already.
    """
    out, bars = Path(out_folder), bars or Bars(False)
    refuse_text("sources", sources)
    if format not in FORMATS:
        raise ConfigError(f"no format is called {format!r}; there are {', '.join(FORMATS)}")
    refuse_other_content(out, SUMMARY, "converted data set")
    how = _FORMATS[format]
    files = [file for source in sources for file in _files(Path(source), format)]
    helpers = [file for file in files if plain_name(file) == how.helper]
    corpora = [file for file in files if file not in helpers and how.is_corpus(file)]
    targets = _targets([file for file in files if file not in (*helpers, *corpora)])
    held = how.read_helpers(helpers)
    gold = {i for f in targets for i in _gold(how.questions(f, held))} if corpora else None
    with new_folder(out) as folder:
        with (folder / _CORPUS).open("w", encoding="utf-8", newline="\n") as corpus:
            writer = _Writer(corpus)
            if gold is not None:
                writer.copy(_counted(how.passages(corpora), bars, "corpus", "passage"), gold)
            for file, target in targets.items():
                with (folder / target).open("w", encoding="utf-8", newline="\n") as lines:
                    questions = _counted(how.questions(file, held), bars, target, "question")
                    writer.write(lines, target, file, questions)
        if not writer.passages:
            (folder / _CORPUS).unlink()
        summary = {"format": format, **writer.summary()}
        summary["sources"] = {file.name: sha256_file(file) for file in files}
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _counted(items: Iterable[Item], bars: Bars, name: str, unit: str) -> Iterator[Item]:
    """The items, with a bar from the first one on: what can't be read shows none."""
    with contextlib.ExitStack() as stack:
        bar = None
        for item in items:
            if bar is None:
                bar = stack.enter_context(bars.open(safe(name), None, unit))
            yield item
            bar.update()


def _files(source: Path, format: str) -> list[Path]:
    """The files of a source: of BEIR it may be a folder."""
    if format != "beir" or not source.is_dir():
        return [source]
    inside = (*source.glob("*.jsonl*"), *source.glob("qrels/*.tsv*"))
    return sorted(f for f in inside if plain_name(f).endswith((".jsonl", ".tsv")))


def _gold(questions: Iterable[Converted]) -> Iterator[str]:
    for converted in questions:
        yield from (converted.question or {}).get("supporting", ())


def _targets(files: list[Path]) -> dict[Path, str]:
    """The name of the question file for each source."""
    if not files:
        raise DataError("no source file given that holds questions")
    targets: dict[Path, str] = {}
    for file in files:
        stem = _stem(file)
        name = f"{stem}.jsonl" if f"{stem}.jsonl" != _CORPUS else "corpus-questions.jsonl"
        if name in targets.values():
            raise DataError(f"two sources would both become {name}; rename one", file=file)
        targets[file] = name
    return targets


def _stem(file: Path) -> str:
    name = plain_name(file)
    for suffix in (".json", ".jsonl", *TABLES):
        name = name.removesuffix(suffix)
    return name


def _array(path: Path, field: str = "") -> Iterator[Fields]:
    for index, values in read_array(path, "question file", field):
        yield Fields(values, path, None, f"{field}[{index}].")


def _lines(path: Path) -> Iterator[Fields]:
    for line, values in read_objects(path, "question file"):
        yield Fields(values, path, line)


def _rows(path: Path, known: str = "question", unnamed: Sequence[str] = ()) -> Iterator[Fields]:
    """The rows of a table, the objects of an array (`.json`), or those of lines."""
    if plain_name(path).endswith(".json"):
        yield from _array(path)
    elif not plain_name(path).endswith(TABLES):
        yield from _lines(path)
    else:
        for row, values in read_rows(path, "question file", known, unnamed):
            yield Fields(values, path, row)


def _plain(dataset: str) -> _Format:
    """Questions and answers, in lines or, as DPR has them, in two columns without names."""

    def questions(path: Path, helpers: None) -> Iterator[Converted]:
        for item in _rows(path, unnamed=("question", "answer")):
            if plain_name(path).endswith(TABLES):
                item.values = {name: listed(name, v) for name, v in item.values.items()}
            yield question_sets.from_plain(item, f"{_stem(path)}-{item.line}", dataset)

    return _Format(questions)


def _bamboogle(path: Path, helpers: None) -> Iterator[Converted]:
    for number, item in enumerate(_rows(path, known="Question"), start=1):
        item.values = {name.lower(): value for name, value in item.values.items()}
        yield question_sets.from_plain(item, f"{_stem(path)}-{item.line or number}", "bamboogle")


def _search_r1(path: Path, helpers: None) -> Iterator[Converted]:
    for row, values in read_parquet(path, "question file"):
        item = Fields(values, path, row)
        yield question_sets.from_search_r1(item, f"{_stem(path)}-{row}")


def _kilt(path: Path, helpers: None) -> Iterator[Converted]:
    stem = _stem(path)
    dataset = stem.partition("-")[0] if stem.endswith("-kilt") else "kilt"
    return (question_sets.from_kilt(item, dataset) for item in _lines(path))


def _kilt_passages(files: Sequence[Path]) -> Iterator[Passage]:
    for file in files:
        for page in _lines(file):
            yield from question_sets.kilt_passages(page)


def _beir(path: Path, helpers: Mapping[str, Fields]) -> Iterator[Converted]:
    table = read_rows(path, "file of judgements", "query-id")
    return question_sets.from_beir(helpers, (Fields(row, path, line) for line, row in table))


def _has(field: str) -> Callable[[Path], bool]:
    """Whether the first object of a file has a field."""
    return lambda file: any(field in item.values for item in islice(_lines(file), 1))


def _each(
    read: Callable[[Path], Iterator[Fields]], change: Callable[[Fields], Converted]
) -> _Format:
    return _Format(lambda path, helpers: map(change, read(path)))


_FORMATS = {
    "hotpotqa": _each(_array, from_hotpotqa),
    "2wikimultihopqa": _Format(
        lambda path, helpers: (from_2wikimultihopqa(item, helpers) for item in _array(path)),
        helper="id_aliases.json",
        read_helpers=lambda files: {k: v for f in files for k, v in read_aliases(f).items()},
    ),
    "musique": _each(_lines, from_musique),
    "nq-open": _plain("nq-open"),
    "webquestions": _plain("webquestions"),
    "triviaqa": _each(partial(_array, field="Data"), question_sets.from_triviaqa),
    "popqa": _each(_rows, question_sets.from_popqa),
    "bamboogle": _Format(_bamboogle),
    "flashrag": dataclasses.replace(
        _each(_lines, question_sets.from_flashrag), is_corpus=_has("contents")
    ),
    "beir": _Format(
        _beir,
        helper="queries.jsonl",
        read_helpers=lambda files: {item.id(): item for f in files for item in _lines(f)},
        is_corpus=lambda file: plain_name(file) == _CORPUS,
    ),
    "kilt": _Format(_kilt, is_corpus=_has("wikipedia_title"), passages=_kilt_passages),
    "search-r1": _Format(_search_r1),
}


class _Writer:
    """Writes questions as they come and each distinct passage once; counts both."""

    def __init__(self, corpus: IO[str]):
        self._corpus = corpus
        self._lacking: set[str] = set()  # gold passages that the corpus that is given lacks
        self._ids: set[str] = set()  # of passages that come with questions
        self.passages = 0
        self._questions: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def copy(self, passages: Iterable[Passage], gold: set[str]) -> None:
        """Write the passages of a corpus that is given, and remember which gold ones it lacks."""
        self._lacking = set(gold)
        for passage in passages:
            if (passage.title + passage.text).strip():
                self._add(passage)
                self._lacking.discard(passage.id)
            else:
                self._notes[NO_TEXT] += 1

    def write(self, lines: IO[str], target: str, source: Path, items: Iterable[Converted]) -> None:
        """Write the questions of one source; an id that comes twice in it is a DataError."""
        seen: set[str] = set()
        for converted in items:
            self._notes.update(converted.notes)
            question = converted.question
            if question is None:
                continue
            if question["id"] in seen:
                message = f'the id "{question["id"]}" comes twice; ids must differ'
                raise DataError(message, file=source)
            seen.add(question["id"])
            if not self._lacking.isdisjoint(question.get("supporting", ())):
                del question["supporting"]
                self._notes[NO_GOLD] += 1
            lines.write(clean(json.dumps(question, ensure_ascii=False)) + "\n")
            for passage in converted.passages:
                if passage.id not in self._ids:
                    self._ids.add(passage.id)
                    self._add(passage)
        if not seen:
            raise DataError("no question in it", file=source)
        self._questions[target] = len(seen)

    def _add(self, passage: Passage) -> None:
        self._corpus.write(json.dumps(passage.fields, ensure_ascii=False) + "\n")
        self.passages += 1

    def summary(self) -> dict[str, Any]:
        return {
            "questions": dict(self._questions),
            "passages": self.passages,
            "notes": dict(self._notes),
        }
