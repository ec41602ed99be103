"""Whatever write a process is killed at, or the disk fails at: nothing is lost, nothing is left."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exsearch.runs import verify_folder
from faults import CLEANING, UNNAMED, Command, Outcome, commands

Files = dict[str, bytes]
# What differs from one run to the next. Hashes of chunks go with them: seconds are in the chunks.
_TIMES = re.compile(rb'"(time|\w*seconds|resumed_at_step)": ?[\d.e-]+')
_COMMITS = re.compile(rb'"(bytes|sha256)": ?[^,}]+')

PASSAGES = [("a", "Ada Fenn", "Ada Fenn was born in Quillmoor."), ("b", "Sorrel", "A river.")]
QUESTIONS = [
    {
        "id": "q1",
        "question": "Where was Ada Fenn born?",
        "answers": ["Quillmoor"],
        "supporting": ["a"],
    },
    {"id": "q2", "question": "What is the Sorrel?", "answers": ["river"], "supporting": ["b"]},
    {
        "id": "q3",
        "question": "Who was born in Quillmoor?",
        "answers": ["Ada Fenn"],
        "supporting": ["a"],
    },
]
SCRIPT = [
    {"contains": "Query:", "reply": "[1] Ada Fenn was born in Quillmoor."},
    {"contains": "1. Ada", "reply": "Answer: Quillmoor"},
    {"contains": "Notes:", "reply": "Search: Ada Fenn"},
]


def lines(values: list[dict[str, object]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def corpus(number: int) -> str:
    return lines([{"id": i, "title": t, "text": x} for i, t, x in PASSAGES[:number]])


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: two versions of a corpus and of a data set, questions, a script."""
    folder = tmp_path_factory.mktemp("faults")
    for number in (1, 2):
        (folder / f"corpus{number}.jsonl").write_text(corpus(number))
        item = {"question": "Who?", "answer": ["Ada"]}
        (folder / f"nq{number}").mkdir()
        (folder / f"nq{number}" / "dev.jsonl").write_text(lines([item] * number))
    (folder / "questions.jsonl").write_text(lines(QUESTIONS))
    (folder / "script.jsonl").write_text(lines(SCRIPT))
    (folder / "root").mkdir()
    return folder


@pytest.fixture(scope="module")
def run(given: Path) -> Iterator[Command]:
    """Runs a command, with a fault below `root`."""
    with commands(
        given / "root", ["exsearch.retrievers.bm25", "exsearch.jobs.evaluate", "ir_measures"]
    ) as run:
        assert run("index", given / "corpus2.jsonl", "--out", given / "index").code == 0
        yield run


def asked(given: Path) -> list[object]:
    engine = ["--engine", "scripted", "--model", given / "script.jsonl"]
    return ["--questions", given / "questions.jsonl", "--index", given / "index", *engine]


def index(given: Path, version: int) -> list[object]:
    return ["index", given / f"corpus{version}.jsonl", "--out", given / "root" / "index"]


def convert(given: Path, version: int) -> list[object]:
    source = given / f"nq{version}" / "dev.jsonl"
    return ["data", "convert", "--format", "nq-open", source, "--out", given / "root" / "nq"]


def rollout(given: Path, version: int) -> list[object]:
    out = given / "root" / "t.jsonl"
    return ["rollout", *asked(given), "--chunk", 2, "--samples", version, "--out", out]


def evaluate(given: Path, version: int) -> list[object]:
    return ["evaluate", *asked(given), "--out", given / "root" / "test"]


def retrieve(given: Path, version: int) -> list[object]:
    place = ["--index", given / "index", "--chunk", 2, "--out", given / "root" / "found.jsonl"]
    return ["retrieve", given / "questions.jsonl", *place]


def evaluate_retrieval(given: Path, version: int) -> list[object]:
    place = ["--index", given / "index", "--against", given / "index", "--chunk", 2]
    questions = ["--questions", given / "questions.jsonl"]
    return ["evaluate-retrieval", *questions, *place, "--out", given / "root" / "judged"]


def train(given: Path, *settings: str) -> list[object]:
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["train", given / "recipe.toml", "--out", given / "root" / "run", *sets]


def warm_up(given: Path, version: int) -> list[object]:
    """Two optimizer steps with a checkpoint after the first."""
    settings = ("warm_up.examples=2", "warm_up.questions_per_step=1", "gem.iterations=0")
    return train(given, *settings, "method.thought_tokens=8", "method.record_tokens=8")


def gem(given: Path, version: int) -> list[object]:
    """Two rounds, of which the first one's model does not stay."""
    settings = ('method.name="direct"', "warm_up.examples=0", "e_step.questions=2")
    return train(given, *settings, "e_step.chunk=1", "m_step.questions_per_step=1")


MADE = {
    "index": index,
    "convert": convert,
    "rollout": rollout,
    "evaluate": evaluate,
    "retrieve": retrieve,
    "evaluate_retrieval": evaluate_retrieval,
}
TRAINED = {"warm_up": warm_up, "gem": gem}
REPLACED = {"index": "index", "convert": "nq"}  # the folder of which a version stands there before


def content(root: Path) -> Files:
    """All files by name, without what differs from run to run, and without locks."""
    files = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and not name.endswith(".lock"):
            data = path.read_bytes()
            if name.endswith((".json", ".jsonl", ".chunks")):
                data = _TIMES.sub(rb'"\1"', data)
            files[name] = _COMMITS.sub(rb'"\1"', data) if name.endswith(".chunks") else data
        elif path.is_dir():
            files[name + "/"] = b""
    return files


class World:
    """One command, what is there before it, and what is there after it."""

    def __init__(self, run: Command, given: Path, command: str) -> None:
        self.run, self.root, self.command = run, given / "root", command
        self.before = given / f"{command}-before"
        shutil.rmtree(self.before, ignore_errors=True)
        self.before.mkdir()
        made = {**MADE, **TRAINED}[command]
        self.args = [*made(given, 2), "-q"]
        self.replaced = REPLACED.get(command, "")
        self.clean()
        if self.replaced:
            self.whole(made(given, 1))
            shutil.copytree(self.root, self.before, dirs_exist_ok=True)
        self.old = content(self.before)
        self.done = self.whole(self.args).done
        self.new = content(self.root)

    def clean(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.before, self.root)

    def whole(self, args: list[object]) -> Outcome:
        outcome = self.run(*args)
        assert outcome.code == 0, outcome.said
        return outcome

    def resumed(self) -> None:
        self.whole(self.args)
        assert content(self.root) == self.new

    def killed(self, number: int) -> None:
        self.clean()
        assert self.run(*self.args, fault="kill", number=number).code == -9
        self.whole_before_or_after()
        self.resumed()

    def failed(self, number: int, fault: str) -> None:
        self.clean()
        outcome = self.run(*self.args, fault=fault, number=number)
        if outcome.code == 0:  # the fault hit what only cleans up, or came after the last write
            spoiled = outcome.done[number - 1].split()[0]
            assert spoiled in (*CLEANING, UNNAMED) or fault == "ENOSPC"
            assert spoiled != UNNAMED or content(self.root) == self.new
        else:
            assert outcome.code == 11, outcome.said
            assert outcome.said.startswith("exsearch: error: the disk is full or fails")
            assert outcome.said.count("\n") == 1
            assert not [name for name in content(self.root) if re.search(r"\.(tmp|old)\b", name)]
            self.whole_before_or_after()
        self.resumed()

    def whole_before_or_after(self) -> None:
        """The folder that is replaced is the old one or the new one."""
        if self.replaced:
            verify_folder(self.root / self.replaced)
            found = {n: d for n, d in content(self.root).items() if not n.startswith(".")}
            assert found in (self.old, self.new)


@pytest.fixture
def world(run: Command, given: Path) -> Callable[[str], World]:
    return lambda command: World(run, given, command)


@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
@pytest.mark.parametrize("command", MADE)
def test_some_writes_spoiled(world: Callable[[str], World], command: str, fault: str):
    spoiled = world(command)
    assert len(spoiled.done) > 20
    step = len(spoiled.done) // 3
    for number in range(1 + step // 2, len(spoiled.done) + 1, step):
        spoiled.killed(number) if fault == "kill" else spoiled.failed(number, fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
@pytest.mark.parametrize("command", MADE)
def test_each_write_spoiled(world: Callable[[str], World], command: str, fault: str):
    spoiled = world(command)
    for number in range(1, len(spoiled.done) + 1):
        spoiled.killed(number) if fault == "kill" else spoiled.failed(number, fault)


RECIPE = """
name = "tiny"
[model]
name = "{model}"
device = "cpu"
[data]
train = "questions.jsonl"
dev = "questions.jsonl"
[retriever]
index = "index"
[gem]
dev_questions = 1
checkpoint_seconds = 0
keep_models = false
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
@pytest.mark.parametrize("command", TRAINED)
def test_writes_of_training_spoiled(
    given: Path, run: Command, tiny_model_folder: Path, command: str, fault: str
):
    (given / "recipe.toml").write_text(RECIPE.format(model=tiny_model_folder))
    modules = [
        "exsearch.retrievers.bm25",
        "exsearch.training.loop",
        "exsearch.engines.local.engine",
    ]
    with commands(given / "root", modules) as train:
        spoiled = World(train, given, command)
        for number in range(1, len(spoiled.done) + 1, 20 if fault == "kill" else 60):
            spoiled.killed(number) if fault == "kill" else spoiled.failed(number, fault)
