"""A real `exsearch serve` for tests, in a process of its own; its engine follows a script."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exsearch.errors import RetrieverError
from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever

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


@dataclass
class AnswerServer:
    """A server that runs: its address and its process."""

    address: str
    process: subprocess.Popen[str]


def write_world(folder: Path) -> None:
    """Write `script.jsonl` and `index` into a folder."""
    lines = [json.dumps({"contains": part, "reply": reply}) for part, reply in SCRIPT]
    (folder / "script.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    Bm25Retriever.build(PASSAGES, folder / "index", progress=False)


@contextmanager
def answer_server(
    folder: Path, *options: object, environment: dict[str, str] | None = None
) -> Iterator[AnswerServer]:
    """Serves the world of `write_world` on a free port of this machine, until the block ends."""
    world = ("--index", folder / "index", "--engine", "scripted")
    with subprocess.Popen(
        [*COMMAND, *map(str, world), "--model", str(folder / "script.jsonl"), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **(environment or {})},
    ) as process:
        assert process.stdout and process.stderr
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield AnswerServer(json.loads(said)["address"], process)
        finally:
            process.terminate()
            process.wait(60)
