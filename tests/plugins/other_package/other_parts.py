"""Somebody else's package: one part of each kind, added by entry points alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import exsearch
from exsearch import Ask, CallKind, Look, Malformed, Passage, Plan, Question, Step
from exsearch.methods.format import answer_prompt, ask_answer, one_line
from exsearch.runs import new_folder

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Norway": "Oslo", "Peru": "Lima"}
COLLECTIONS = {
    "capitals": [Passage(c, c, f"{a} is the capital of {c}.") for c, a in CAPITALS.items()]
}


class MemoryRetriever:
    """Passages in memory, by how many of the query's words they hold.

    An index is a folder with all passages in one file; an address names a collection.
    """

    searched: ClassVar[list[str]] = []  # every query that came so far

    def __init__(self, passages: Sequence[Passage]):
        self._passages = {p.id: dataclasses.replace(p, score=None) for p in passages}

    @classmethod
    def open(cls, place: str) -> MemoryRetriever:
        scheme, address, name = place.partition("://")
        if address:
            if name not in COLLECTIONS:
                known = ", ".join(COLLECTIONS)
                raise exsearch.IndexDamagedError(f"{place}: no such collection; known: {known}")
            return cls(COLLECTIONS[name])
        lines = (Path(scheme) / "passages.jsonl").read_text(encoding="utf-8").splitlines()
        return cls([Passage(**json.loads(line)) for line in lines])

    @classmethod
    def build(cls, passages: Iterable[Passage], out: Path, *, progress: bool = True) -> int:
        rows = [{"id": p.id, "title": p.title, "text": p.text} for p in passages]
        if not rows:
            raise exsearch.DataError("no passage to index")
        with new_folder(out) as folder:
            (folder / "passages.jsonl").write_text(
                "\n".join(map(json.dumps, rows)), encoding="utf-8"
            )
            (folder / "retriever.json").write_text(json.dumps({"kind": "memory"}))
        return len(rows)

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.searched.extend(queries)
        return [self._best(set(query.lower().rstrip("?").split()), k) for query in queries]

    def _best(self, words: set[str], k: int) -> list[Passage]:
        scored = [
            dataclasses.replace(
                p, score=float(len(words & set(f"{p.title} {p.text}".lower().split())))
            )
            for p in self._passages.values()
        ]
        return [p for p in sorted(scored, key=lambda p: -(p.score or 0)) if p.score][:k]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        return [self._passages.get(id_) for id_ in ids]

    def identity(self) -> str:
        rows = [(p.id, p.title, p.text) for p in self._passages.values()]
        return f"memory:{hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True)
class LookFirstMethod:
    """Look the question up, then let the model search once more, then answer."""

    name: ClassVar[str] = "look-first"

    passages: int = 2
    query_tokens: int = 12
    answer_tokens: int = 12

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise ValueError(f"passages is {self.passages}, expected 1 or more")

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        found = yield Look(question.question, self.passages)
        steps.append(Step(question.question, found))
        titles = ", ".join(one_line(p.title) for p in found)
        prompt = f"Name one to read: {titles}\nQuestion: {one_line(question.question)}"
        query = yield Ask(CallKind.THINK, prompt, read_name, self.query_tokens, forced="Search:")
        steps.append(Step(query, (yield Look(query, 1))))
        passages = steps[-1].passages
        return (yield ask_answer(answer_prompt(question.question, passages), self.answer_tokens))


def read_name(reply: str) -> str | Malformed:
    return " ".join(reply.split()) or Malformed("no_name")


BRIEF = exsearch.Metric("brief", "brief answers", lambda j: float(len(j.prediction.split()) == 1))


class ParrotEngine(exsearch.ScriptedEngine):
    """Says the model's name, whatever it is asked."""

    options = ("volume",)

    @classmethod
    def from_config(cls, config: exsearch.ModelConfig) -> ParrotEngine:
        return cls({"": f" {config.name}{'!' * config.engine_options.get('volume', 0)}"})
