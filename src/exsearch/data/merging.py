"""Merging makes one corpus of several, and their questions point into it.

A passage that stands in several corpora, by title and text, is kept once, and the ids of the others
lead to it. It converts no format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from exsearch.data.corpus import read_corpus
from exsearch.data.formats import SUMMARY
from exsearch.data.questions import load_questions
from exsearch.data.sources import plain_name
from exsearch.errors import DataError
from exsearch.progress import Bars
from exsearch.records import Passage, Question, refuse_text
from exsearch.runs import new_folder, refuse_other_content, sha256_file

SPLITS = ("train", "dev", "test")


def merge(
    folders: Sequence[Path | str], out_folder: Path | str, *, bars: Bars | None = None
) -> dict[str, Any]:
    """Merge data sets into a folder, whole or not at all.

    Each is a folder with `corpus.jsonl` and any of `train|dev|test.jsonl`, packed or not; its name
    is the data set's. Written are `corpus.jsonl`, `<set>-<split>.jsonl` for each, and
    `<split>.jsonl` with the questions of all in turn, so that its first ones are of all sets. An id
    that two sets have gets the set's name before it.

    Args:
        folders: The folders of the data sets.
        out_folder: The folder to write.
        bars: Opens the progress bars; None shows none.

    Returns:
        What was written, as also saved in `conversion.json`: questions a file, passages, the number
        of passages that were dropped as the same (`notes`), and the hashes of the sources.

    Raises:
        DataError: a folder without a corpus, two folders of one name, or a file that can't be read.
        ConfigError: `out_folder` holds something else already.
    """
    refuse_text("folders", folders)
    out, bars = Path(out_folder), bars or Bars(False)
    places = {Path(folder).resolve().name: Path(folder) for folder in folders}
    if len(places) < len(folders):
        raise DataError(f"two of the folders have one name: {', '.join(map(str, folders))}")
    refuse_other_content(out, SUMMARY, "merged data set")
    files = {name: _files(place) for name, place in places.items()}
    clashing = _clashing([own["corpus"] for own in files.values()])
    kept: dict[bytes, str] = {}  # hash of title and text -> the id that is kept
    counts: dict[str, int] = {}
    dropped = 0
    with new_folder(out) as folder:
        moved: dict[str, dict[str, str]] = {}  # by data set: id there -> id here
        file = _written(folder / "corpus.jsonl")
        with file as corpus, bars.open("merge", None, "passage") as bar:
            for name, own in files.items():
                moved[name] = {}
                for passage in read_corpus([own["corpus"]]):
                    bar.update()
                    id_ = f"{name}/{passage.id}" if passage.id in clashing else passage.id
                    first = kept.setdefault(_content(passage), id_)
                    moved[name][passage.id] = first
                    if first == id_:
                        corpus.write(_line({**passage.fields, "id": id_}))
                    else:
                        dropped += 1
        for split in SPLITS:
            own_questions = {
                name: load_questions(own[split]) for name, own in files.items() if split in own
            }
            ids = [q.id for questions in own_questions.values() for q in questions]
            again = {id_ for id_, count in Counter(ids).items() if count > 1}
            if not own_questions:
                continue
            lines: dict[str, list[str]] = {}
            for name, questions in own_questions.items():
                named = ((f"{name}/{q.id}" if q.id in again else q.id, q) for q in questions)
                lines[name] = [_question(_moved(q, id_, name, moved[name])) for id_, q in named]
                _write(folder / f"{name}-{split}.jsonl", lines[name])
                counts[f"{name}-{split}.jsonl"] = len(questions)
            turns = itertools.zip_longest(*lines.values())
            _write(folder / f"{split}.jsonl", [line for turn in turns for line in turn if line])
            counts[f"{split}.jsonl"] = len(ids)
        notes = {"passages dropped that another data set has, too": dropped} if dropped else {}
        summary: dict[str, Any] = {"format": "merged", "questions": counts, "passages": len(kept)}
        summary |= {"notes": notes, "sources": dict(_hashes(files))}
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _files(place: Path) -> dict[str, Path]:
    """The corpus and the question files of a data set, by `corpus` and the split."""
    found: dict[str, Path] = {}
    for file in sorted(place.glob("*.jsonl*")):
        name = plain_name(file).removesuffix(".jsonl")
        if name in ("corpus", *SPLITS):
            if name in found:
                raise DataError(f"stands there twice, beside {found[name].name}", file=file)
            found[name] = file
    if "corpus" not in found:
        raise DataError("no corpus.jsonl in this folder, packed or not", file=place)
    return found


def _clashing(corpora: Sequence[Path]) -> set[str]:
    """The ids that stand for different passages in two corpora."""
    known: dict[str, bytes] = {}
    return {
        passage.id
        for corpus in corpora
        for passage in read_corpus([corpus])
        if known.setdefault(passage.id, content := _content(passage)) != content
    }


def _content(passage: Passage) -> bytes:
    texts = json.dumps([passage.title, passage.text]).encode()
    return hashlib.blake2b(texts, digest_size=16).digest()


def _moved(question: Question, id_: str, name: str, ids: dict[str, str]) -> Question:
    """A question whose passages are those that are kept."""
    return dataclasses.replace(
        question,
        id=id_,
        dataset=name,
        supporting=tuple(dict.fromkeys(ids.get(p, p) for p in question.supporting)),
        decomposition=tuple(
            dataclasses.replace(hop, support_id=ids.get(hop.support_id, hop.support_id))
            if hop.support_id
            else hop
            for hop in question.decomposition
        ),
    )


def _question(question: Question) -> str:
    """A question as one line of JSON, without what it does not have."""
    values = dataclasses.asdict(question)
    hops = [{k: v for k, v in hop.items() if v is not None} for hop in values["decomposition"]]
    values = {k: v for k, v in {**values, "decomposition": hops}.items() if v or k == "answers"}
    return json.dumps(values, ensure_ascii=False)


def _line(values: dict[str, str]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _write(file: Path, lines: Sequence[str]) -> None:
    with _written(file) as out:
        out.writelines(f"{line}\n" for line in lines)


def _written(file: Path) -> IO[str]:
    return file.open("w", encoding="utf-8", newline="\n")


def _hashes(files: dict[str, dict[str, Path]]) -> Iterator[tuple[str, str]]:
    for name, own in files.items():
        for file in own.values():
            yield f"{name}/{file.name}", sha256_file(file)
