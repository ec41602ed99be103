"""A folder index follows its folder: what changed is read again, and nothing else."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
from pathlib import Path

import pytest

import exsearch
from exsearch.data.corpus import read_corpus
from exsearch.errors import DataError
from exsearch.jobs import folder_index
from exsearch.jobs.folder_index import FolderIndex, index_folder
from exsearch.retrievers.bm25 import Bm25Retriever
from exsearch.runs import locked

TEXTS = {
    "a.md": "# Quillmoor\n\nThe harbour was built by Ada Fenwick.",
    "b.txt": "Bread is baked from flour.",
    "deep/c.txt": " ".join(f"Sentence {n} is about the lighthouse of Varn." for n in range(40)),
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        file = tmp_path / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "docs"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def counts(made: FolderIndex) -> tuple[int, int, int, int]:
    return made.files, made.added, made.changed, made.removed


def check(made: FolderIndex, docs: Path) -> None:
    """The index has exactly the passages of the folder, and finds them."""
    index = Bm25Retriever.open(made.index, hashes=True)
    wanted = {p.id: p.text for p in read_corpus([docs])}
    assert {p.id: p.text for p in index.passages()} == wanted
    assert len(index) == made.passages == len(wanted)


def test_only_what_changed_is_read_again(docs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (3, 3, 0, 0) and made.passages > 3
    check(made, docs)
    read: list[str] = []
    whole = folder_index.read_text

    def watched(file: Path, *rest: object) -> object:
        read.append(file.name)
        return whole(file, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(folder_index, "read_text", watched)
    identity = Bm25Retriever.open(made.index).identity()
    assert counts(index_folder(docs, cache=cache, progress=False)) == (3, 0, 0, 0)
    assert read == [] and Bm25Retriever.open(made.index).identity() == identity

    (docs / "d.rst").write_text("Salt\n====\n\nSalt is mined in Oss.")
    (docs / "deep" / "c.txt").write_text("The lighthouse fell into the sea.")
    (docs / "b.txt").unlink()
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (3, 1, 1, 1) and sorted(read) == ["c.txt", "d.rst"]
    check(made, docs)
    found = Bm25Retriever.open(made.index).search(["lighthouse"], 5)[0]
    assert [p.text for p in found] == ["The lighthouse fell into the sea."]


def test_a_file_that_only_went_or_was_renamed_is_no_longer_found(docs: Path, cache: Path):
    index_folder(docs, cache=cache, progress=False)
    (docs / "b.txt").unlink()
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (2, 0, 0, 1)
    (docs / "a.md").rename(docs / "e.md")
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (2, 1, 0, 1)
    check(made, docs)


def test_a_file_that_cannot_be_read_is_named_and_passed_over(
    docs: Path, cache: Path, caplog: pytest.LogCaptureFixture
):
    (docs / "latin.txt").write_bytes(b"caf\xe9")
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 no more")
    with caplog.at_level(logging.WARNING, "exsearch"):
        made = index_folder(docs, cache=cache, progress=False)
    assert made.files == 3 and "latin.txt: byte 4 is not UTF-8" in caplog.text
    assert {file.name for file in made.unread} == {"latin.txt", "broken.pdf"}
    identity = Bm25Retriever.open(made.index).identity()
    again = index_folder(docs, cache=cache, progress=False)
    assert again.unread == made.unread and Bm25Retriever.open(made.index).identity() == identity
    (docs / "latin.txt").write_text("café")
    assert index_folder(docs, cache=cache, progress=False).added == 1
    (docs / "b.txt").write_bytes(b"\xff")
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (3, 0, 0, 1)
    assert not Bm25Retriever.open(made.index).search(["bread"], 5)[0]


def test_what_is_no_folder_of_texts_is_refused(tmp_path: Path, docs: Path, cache: Path):
    with pytest.raises(DataError, match="name the folder that it is in"):
        index_folder(docs / "a.md", cache=cache)
    with pytest.raises(DataError, match="none"):
        index_folder(tmp_path / "none", cache=cache)
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="file in this folder"):
        index_folder(tmp_path / "bare", cache=cache)
    (tmp_path / "bare" / "empty.txt").touch()
    with pytest.raises(DataError, match="no file in this folder has a text"):
        index_folder(tmp_path / "bare", cache=cache)


def damages(index: Path) -> dict[str, object]:
    facts = index.parent / "files.json"
    values = json.loads(facts.read_text())
    older = json.dumps({**values, "version": "0.0.1"})
    other = json.dumps({**values, "index": "sha256:0"})
    shapeless = json.dumps({**values, "files": {"a.md": {"sha256": 1}}})
    return {
        "no facts": facts.unlink,
        "torn facts": lambda: facts.write_text(facts.read_text()[:40]),
        "facts of another form": lambda: facts.write_text(shapeless),
        "an older version": lambda: facts.write_text(older),
        "killed between the two": lambda: facts.write_text(other),
        "no index": lambda: shutil.rmtree(index),
        "no manifest": (index / "manifest.json").unlink,
        "an altered passage": lambda: _alter(index / "passages.jsonl"),
        "a file in its place": lambda: (shutil.rmtree(index), index.write_text("x")),
    }


def _alter(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"Fenwick", b"Fenwack"))


DAMAGES = (
    *("no facts", "torn facts", "facts of another form", "an older version"),
    *("killed between the two", "no index", "no manifest", "an altered passage"),
    "a file in its place",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_anew(docs: Path, cache: Path, damage: str):
    made = index_folder(docs, cache=cache, progress=False)
    assert set(damages(made.index)) == set(DAMAGES)
    damages(made.index)[damage]()  # pyright: ignore[reportCallIssue]
    (docs / "b.txt").write_text("Bread is baked from rye.")
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (3, 3, 0, 0)
    check(made, docs)
    assert counts(index_folder(docs, cache=cache, progress=False)) == (3, 0, 0, 0)


def _index(docs: Path, cache: Path) -> None:
    index_folder(docs, cache=cache, progress=False)


def test_processes_take_turns(docs: Path, cache: Path):
    made = index_folder(docs, cache=cache, progress=False)
    (docs / "new.txt").write_text("Something new.")
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_index, args=(docs, cache)) for _ in range(2)]
    with locked(made.index.parent):
        for other in others:
            other.start()
        others[0].join(0.3)
        assert all(other.is_alive() for other in others)  # they wait
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    made = index_folder(docs, cache=cache, progress=False)
    assert counts(made) == (4, 0, 0, 0)
    check(made, docs)


def test_folders_are_kept_apart_and_to_their_owner(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / "own"))
    first = exsearch.index_folder(docs, progress=False).index
    other = shutil.copytree(docs, tmp_path / "other")
    second = index_folder(other, progress=False).index
    assert first != second and first.is_relative_to(tmp_path / "own")
    assert first.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.chdir(docs.parent)
    assert index_folder("docs", progress=False).index == first
