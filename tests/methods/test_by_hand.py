"""Each method, run by one command on the same 100 questions, does what a script does by hand.

The model is a few rules of spelling. The command runs them behind the methods, who pack what they
have found into prompts; the scripts below call the same rules with what they found themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.engines.scripted import ScriptedEngine
from exsearch.methods import METHODS
from exsearch.retrievers import build_index, open_retriever
from exsearch.runs import read_jsonl

COUNT = 100
SETTINGS = {
    "guess": "",
    "guess-title": "",
    "direct": "",
    "chain-of-thought": "",
    "rag": "passages = 3, passage_words = 1000",
    "self-ask": "max_steps = 2, passage_words = 1000",
    "ircot": "max_steps = 3, passages = 2, kept = 3, passage_words = 1000",
    "iter-retgen": "max_steps = 2, passages = 2, passage_words = 1000",
    "searcher": "max_steps = 2, passages = 2, passage_words = 1000",
}

# The rules of the model.


def name(*texts: str) -> str:
    """The last capitalised word."""
    return re.findall(r"\b[A-Z][a-z]+\b", " ".join(["Nobody", *texts]))[-1]


def think(question: str, notes: Sequence[str]) -> str:
    if len(notes) == len(question) % 4:
        return f"Answer: {name(question, *notes)}"
    return f"Search: {name(question, *notes)} {len(notes)}"


def record(query: str, frames: Sequence[str]) -> str:
    n = len(query) % (len(frames) + 1)
    return f"[{n}] {name(frames[n - 1])} of {query}" if n else "Nothing found."


def reason(question: str, frames: Sequence[str]) -> str:
    return f"It is {name(*frames)} of {len(frames)}. Answer: {name(question, *frames)}"


def sentence(question: str, frames: Sequence[str], thoughts: str) -> str:
    if thoughts.count("It is") == len(question) % 3:
        return f"Answer: {name(*frames, thoughts)}"
    return f"It is {name(*frames)} of {len(frames)}."


def model(chat: str) -> str:
    """The rules, by what a prompt says."""
    prompt, reply = chat.rsplit("User: ", 1)[1].rsplit("\nAssistant: ", 1)
    frames = re.findall(r"^\[\d+\] (.*)$", prompt, re.M)
    if prompt.startswith("Copy the fact"):
        return record(re.findall(r"^Query: (.*)$", prompt, re.M)[0], frames)
    question = re.findall(r"^Question: (.*)$", prompt, re.M)[0]
    if "Notes:" in prompt:
        notes = re.findall(r"^\d+\. (.*)$", prompt, re.M)
        return f" {name(question, *notes)}" if reply else think(question, notes)
    thoughts = "".join(re.findall(r"^Reasoning: (.*)$", prompt, re.M))
    if prompt.startswith("Write the next"):
        return sentence(question, frames, thoughts)
    if prompt.startswith("Reason"):
        return reason(question, frames)
    return f" {name(question, *frames, thoughts)}"


# The methods by hand. Each gives its queries and its answer.


class World:
    """An index that says what a prompt would show of a passage."""

    def __init__(self, index: Path):
        self.retriever = open_retriever(index)

    def find(self, query: str, k: int) -> list[tuple[str, str]]:
        found = self.retriever.search([query], k)[0]
        return [(p.id, " ".join(f"{p.title}: {p.text}".split())) for p in found]


def guess(world: World, q: str) -> tuple[list[str], str]:
    if option := re.search(r" or ([^,?]+)\?$", q):
        return [], option[1]
    return [], "yes" if re.match(r"(Is|Are|Was|Were|Do|Does|Did|Has|Have|Can) ", q) else ""


def guess_title(world: World, q: str) -> tuple[list[str], str]:
    titles = [p.title for p in world.retriever.search([q], 5)[0]]
    return [q], next((t for t in titles if t.lower() not in q.lower()), "")


def direct(world: World, q: str) -> tuple[list[str], str]:
    return [], name(q)


def chain_of_thought(world: World, q: str) -> tuple[list[str], str]:
    return [], name(q)


def rag(world: World, q: str) -> tuple[list[str], str]:
    return [q], name(q, *(text for _, text in world.find(q, 3)))


def self_ask(world: World, q: str) -> tuple[list[str], str]:
    queries: list[str] = []
    notes: list[str] = []
    while len(notes) < 2:
        said = think(q, notes)
        if said.startswith("Answer: "):
            return queries, said[8:]
        queries.append(said[8:])
        found = world.retriever.search([queries[-1]], 1)[0]
        fact = " ".join(found[0].text.split()) if found else "Nothing found."
        notes.append(f"{queries[-1]} {fact}")
    return queries, name(q, *notes)


def ircot(world: World, q: str) -> tuple[list[str], str]:
    queries, thoughts = [q], ""
    seen: dict[str, str] = {}
    while True:
        for id_, text in world.find(queries[-1], 2):
            seen.pop(id_, None)
            seen[id_] = text
        frames = list(seen.values())[-3:]
        if len(queries) == 3:
            return queries, name(q, *frames, thoughts)
        said = sentence(q, frames, thoughts)
        if said.startswith("Answer: "):
            return queries, said[8:]
        queries.append(said)
        thoughts = f"{thoughts} {said}".strip()


def iter_retgen(world: World, q: str) -> tuple[list[str], str]:
    first = reason(q, [text for _, text in world.find(q, 2)])
    query = f"{q} {first.replace(' Answer:', '')}"
    second = reason(q, [text for _, text in world.find(query, 2)])
    return [q, query], second.split("Answer: ")[1]


def searcher(world: World, q: str) -> tuple[list[str], str]:
    queries: list[str] = []
    notes: list[str] = []
    while len(notes) < 2:
        said = think(q, notes)
        if said.startswith("Answer: "):
            return queries, said[8:]
        queries.append(said[8:])
        said = record(queries[-1], [text for _, text in world.find(queries[-1], 2)])
        notes.append(f"{queries[-1]} {re.sub(r'^.[0-9]+. ', '', said)}")
    return queries, name(q, *notes)


BY_HAND = {
    "guess": guess,
    "guess-title": guess_title,
    "direct": direct,
    "chain-of-thought": chain_of_thought,
    "rag": rag,
    "self-ask": self_ask,
    "ircot": ircot,
    "iter-retgen": iter_retgen,
    "searcher": searcher,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one command made of the list of all methods."""
    folder = tmp_path_factory.mktemp("methods")
    build_index(read_corpus([sample_path("corpus")]), folder / "index", progress=False)
    lines = [
        'index = "index"\nresults = "kept"\nwork = "work"',
        f'[parts.own]\nfile = "sample:train"\nlimit = {COUNT}',
    ]
    for method, settings in SETTINGS.items():
        own = f'name = "{method}"' + (f", {settings}" if settings else "")
        lines.append(f'[[cells]]\nname = "{method}"\nengine = "scripted"\nmodel = "rules"')
        lines.append(f"method = {{{own}}}")
    (folder / "list.toml").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedEngine, "from_config", lambda config: ScriptedEngine(model))
        result = CliRunner().invoke(cli, ["experiment", str(folder / "list.toml"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["left"] == 0
    return folder


def test_every_method_is_here():
    assert set(SETTINGS) == set(BY_HAND) == set(METHODS)


@pytest.mark.parametrize("method", SETTINGS)
def test_a_method_does_what_its_script_does(place: Path, method: str):
    world = World(place / "index")
    file = place / "work" / f"{method}.0" / "own" / "predictions.jsonl"
    rows = list(read_jsonl(file, id=str))
    questions = load_questions(sample_path("train"))[:COUNT]
    assert [row["id"] for row in rows] == [q.id for q in questions]
    lengths = set()
    for question, row in zip(questions, rows, strict=True):
        queries, answer = BY_HAND[method](world, question.question)
        assert (row["queries"], row["prediction"]) == (queries, answer), question.id
        lengths.add(len(queries))
    if method in ("self-ask", "ircot", "searcher"):
        assert len(lengths) >= 3  # questions end after different numbers of searches
