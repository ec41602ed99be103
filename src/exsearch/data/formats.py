"""A format is how a benchmark is officially distributed; converting gives questions and a corpus.

`hotpotqa`, `2wikimultihopqa`, `musique` and `nq-open` are known. It does not download anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from exsearch.data.benchmarks import (
    Converted,
    from_2wikimultihopqa,
    from_hotpotqa,
    from_musique,
    from_nq_open,
    read_aliases,
)
from exsearch.data.json_array import read_array
from exsearch.data.json_lines import Fields, read_objects
from exsearch.data.sources import plain_name
from exsearch.errors import ConfigError, DataError
from exsearch.records import refuse_text
from exsearch.runs import new_folder, refuse_other_content, sha256_file

FORMATS = ("hotpotqa", "2wikimultihopqa", "musique", "nq-open")
SUMMARY = "conversion.json"
_CORPUS = "corpus.jsonl"
_ALIASES = "id_aliases.json"


def convert(format: str, sources: Sequence[Path | str], out_folder: Path | str) -> dict[str, Any]:
    """Convert official files into a folder of question files and one corpus, whole or not at all.

    Each source becomes `<its name>.jsonl`; the distinct passages of all (by title and text) become
    `corpus.jsonl`, with ids made from their content, so that they stay the same from run to run.
    For 2WikiMultihopQA, `id_aliases.json` may be among the sources; the aliases of an answer are
    then accepted too, as in the official evaluation. A question whose gold passages are not all
    in its file (HotpotQA's fullwiki setting) is written without `supporting`.

    Args:
        format: The name of the format, one of `FORMATS`.
        sources: The official files, `.gz` or not.
        out_folder: The folder to write.

    Returns:
        What was written, as also saved in `conversion.json`: questions a file, passages, and the
        counts of what was left out or is incomplete (`notes`).

    Raises:
        DataError: a source is missing or not of this format; it names file, line or item, field.
        ConfigError: an unknown format, or `out_folder` holds something else already.
    """
    out = Path(out_folder)
    refuse_text("sources", sources)
    if format not in FORMATS:
        raise ConfigError(f"no format is called {format!r}; there are {', '.join(FORMATS)}")
    refuse_other_content(out, SUMMARY, "converted data set")
    files = [Path(source) for source in sources]
    targets = _targets([file for file in files if not _is_aliases(file, format)])
    convert_item = _converter(format, [file for file in files if _is_aliases(file, format)])
    with new_folder(out) as folder:
        with (folder / _CORPUS).open("w", encoding="utf-8", newline="\n") as corpus:
            writer = _Writer(corpus)
            for file, target in targets.items():
                with (folder / target).open("w", encoding="utf-8", newline="\n") as lines:
                    items = (convert_item(item) for item in _items(format, file))
                    writer.write(lines, target, file, items)
        if not writer.passages:
            (folder / _CORPUS).unlink()
        summary = {"format": format, **writer.summary()}
        summary["sources"] = {file.name: sha256_file(file) for file in files}
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _is_aliases(file: Path, format: str) -> bool:
    return format == "2wikimultihopqa" and plain_name(file) == _ALIASES


def _targets(files: list[Path]) -> dict[Path, str]:
    """The name of the question file for each source."""
    if not files:
        raise DataError("no source file given")
    targets: dict[Path, str] = {}
    for file in files:
        stem = _stem(file)
        name = f"{stem}.jsonl" if f"{stem}.jsonl" != _CORPUS else "corpus-questions.jsonl"
        if name in targets.values():
            raise DataError(f"two sources would both become {name}; rename one", file=file)
        targets[file] = name
    return targets


def _stem(file: Path) -> str:
    return plain_name(file).removesuffix(".json").removesuffix(".jsonl")


def _items(format: str, file: Path) -> Iterator[Fields]:
    what = f"{format} file"
    if format in ("hotpotqa", "2wikimultihopqa"):
        for index, values in read_array(file, what):
            yield Fields(values, file, None, f"[{index}].")
    else:
        for line, values in read_objects(file, what):
            yield Fields(values, file, line)


def _converter(format: str, aliases: list[Path]) -> Callable[[Fields], Converted]:
    if format == "2wikimultihopqa":
        known = {key: names for file in aliases for key, names in read_aliases(file).items()}
        return lambda item: from_2wikimultihopqa(item, known)
    if format == "nq-open":
        return lambda item: from_nq_open(item, f"{_stem(item.path)}-{item.line}")
    return from_hotpotqa if format == "hotpotqa" else from_musique


class _Writer:
    """Writes questions as they come and each distinct passage once; counts both."""

    def __init__(self, corpus: IO[str]):
        self._corpus = corpus
        self.passages: set[str] = set()
        self._questions: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def write(self, lines: IO[str], target: str, source: Path, items: Iterable[Converted]) -> None:
        """Write the questions of one source; an id that comes twice in it is a DataError."""
        seen: set[str] = set()
        for converted in items:
            self._notes.update(converted.notes)
            if converted.question is None:
                continue
            question_id = converted.question["id"]
            if question_id in seen:
                raise DataError(f'the id "{question_id}" comes twice; ids must differ', file=source)
            seen.add(question_id)
            lines.write(json.dumps(converted.question, ensure_ascii=False) + "\n")
            self._add_passages(converted)
        if not seen:
            raise DataError("no question in it", file=source)
        self._questions[target] = len(seen)

    def _add_passages(self, converted: Converted) -> None:
        for passage in converted.passages:
            if passage.id not in self.passages:
                self.passages.add(passage.id)
                fields = {"id": passage.id, "title": passage.title, "text": passage.text}
                self._corpus.write(json.dumps(fields, ensure_ascii=False) + "\n")

    def summary(self) -> dict[str, Any]:
        return {
            "questions": dict(self._questions),
            "passages": len(self.passages),
            "notes": dict(self._notes),
        }
