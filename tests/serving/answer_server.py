"""A real `exsearch serve` for tests, in a process of its own; its engine follows a script."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from exsearch.errors import RetrieverError
from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever
from started_server import StartedServer, started

COMMAND = (sys.executable, "-m", "exsearch", "serve", "--port", "0", "--json")
QUESTION = "Who built the harbour?"
ANSWER = "Ada Fenwick"
FACT = "The harbour was built by Ada Fenwick"
PASSAGES = (
    Passage(
        "h 1/ä",
        "Quillmoor harbour",
        "The harbour was built by Ada Fenwick, of Wales, in 1871. Its builder loved the sea.",
    ),
    Passage("b", "Bread", "Bread is baked from flour, water and salt."),
)
# What the model writes: one search, one fact, and the answer. Of a lost thing nothing is found, and
# asked to mumble it writes nothing that can be read.
SCRIPT = (
    ("lost thing?\nNotes:\nnone", "Search: zyxwv"),
    ("Query: zyxwv", "Nothing found."),
    ("Mumble", "Mumble."),
    ("Copy the fact", f"[1] {FACT}"),
    ("Notes:\nnone", "Search: harbour builder"),
    ("Notes:", f"Answer: {ANSWER}"),
)


class Shelf:
    """A retriever that finds the same passages for every query, and can be held up or broken."""

    def __init__(self, passages: Sequence[Passage] = PASSAGES[:1]) -> None:
        self.passages = passages
        self.free = threading.Event()
        self.free.set()
        self.broken = False

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        assert self.free.wait(30)
        if self.broken:
            raise RetrieverError("the shelf is broken")
        return [[dataclasses.replace(p, score=1.0) for p in self.passages] for _ in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        return [next((p for p in self.passages if p.id == id_), None) for id_ in ids]

    def identity(self) -> str:
        return "shelf"


def write_world(folder: Path) -> None:
    """Write `script.jsonl` and `index` into a folder."""
    lines = [json.dumps({"contains": part, "reply": reply}) for part, reply in SCRIPT]
    (folder / "script.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    Bm25Retriever.build(PASSAGES, folder / "index", progress=False)


def answer_server(
    folder: Path, *options: object, environment: dict[str, str] | None = None
) -> AbstractContextManager[StartedServer]:
    """Serves the world of `write_world` on a free port of this machine, until the block ends."""
    world = ("--index", folder / "index", "--engine", "scripted")
    model = ("--model", folder / "script.jsonl")
    return started([*COMMAND, *world, *model, *options], environment)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a script for the engine and an index."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="session")
def server(world: Path) -> Iterator[StartedServer]:
    """A server that everybody may ask."""
    with answer_server(world) as running:
        yield running
