"""Whatever a file holds, its reader takes it or raises an error of ours: nothing is unforeseen."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from data.pages import make_pdf
from exsearch.config import load_config
from exsearch.data.corpus import read_corpus
from exsearch.data.documents import Documents
from exsearch.data.formats import convert
from exsearch.data.questions import load_questions
from exsearch.engines.scripted import ScriptedEngine, ScriptedTokenizer
from exsearch.errors import DataError, ExSearchError, RunError
from exsearch.evaluation.score import load_predictions
from exsearch.jobs.provenance import refuse_others, settle
from exsearch.jobs.rollout import rollout_figures
from exsearch.json_files import MAX_LINE
from exsearch.methods.searcher import SearcherMethod
from exsearch.models.settings import model_settings, resolve_model
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
    to_json,
)
from exsearch.retrievers import build_index, open_retriever
from exsearch.runs import MANIFEST, committed, in_chunks, read_jsonl, verify_folder
from exsearch.show.figures import folder_object, folder_text
from exsearch.show.traces import find_traces, trace_object, trace_text
from exsearch.training.journal import Journal
from exsearch.training.recipe import Recipe
from exsearch.training.warm_up import check_prompts
from exsearch.trajectories import WeightedFile

QUESTION = {
    "id": "q1",
    "question": "Who?",
    "answers": ["X", "Y"],
    "supporting": ["p1", 2],
    "decomposition": [{"question": "Q", "answer": "X", "answer_short": "x", "support_id": "p1"}],
    "dataset": "nq",
}
HOTPOT = {
    "_id": "h1",
    "question": "Who?",
    "answer": "X",
    "answer_id": "Q30",
    "supporting_facts": [["T", 0]],
    "context": [["T", ["One.", "Two."]]],
    "evidences": [["T", "is", "X"]],
    "type": "comparison",
}
MUSIQUE = {
    "id": "m1",
    "question": "Who?",
    "answer": "X",
    "answer_aliases": ["Y"],
    "answerable": True,
    "paragraphs": [{"idx": 0, "title": "T", "paragraph_text": "One.", "is_supporting": True}],
    "question_decomposition": [{"question": "Q", "answer": "X", "paragraph_support_idx": 0}],
}
TRIVIA = {
    "Data": [{"QuestionId": "t1", "Question": "Who?", "Answer": {"Value": "X", "Aliases": ["Y"]}}],
    "Split": "dev",
}
FLASHRAG = {"id": 1, "question": "Who?", "golden_answers": ["X"], "metadata": {"type": "bridge"}}
PLACE = {"wikipedia_id": "12", "start_paragraph_id": 0, "end_paragraph_id": 1}
KILT = {"id": 1, "input": "Who?", "output": [{"answer": "X", "provenance": [PLACE]}]}
KILT_PAGE = {"wikipedia_id": 12, "wikipedia_title": "T", "text": ["One.", "Two."]}
SEARCH_R1 = {
    "data_source": "nq",
    "question": "Who?",
    "reward_model": {"ground_truth": {"target": ["X"]}},
    "extra_info": {"index": 0, "split": "train"},
}
ALIASES = {"Q_id": "Q30", "aliases": ["Z"], "demonyms": ["Zs"]}
CALL = Call(CallKind.THINK, (1, 2), (3, 4), (-0.5, -0.25), (-0.5, -0.25))
TRACE = Trajectory(
    question=Question("q1", "Who?", ("X",), ("p1",)),
    steps=(Step("q", (Passage("p1", "T", "One.", 1.5),), ("p1",), Evidence("One.", ("p1",))),),
    calls=(CALL,),
    answer="X",
    stop_reason=StopReason.ANSWERED,
    answer_start=1,
)
WEIGHTED = WeightedTrajectory(TRACE, 0.5, (-1.5,), ((3, 4),))
SUMMARY = {
    "n": 2, "em": 0.5, "f1": 0.5, "ci95": {"em": [0.1, 0.9]}, "steps": 1.5, "seconds": 2.5,
    "stop_reasons": {"answered": 2}, "malformed": {}, "prompt_tokens": 5, "output_tokens": 2,
}  # fmt: skip
EVENTS = [
    {"stage": "start", "event": "dev", "step": None, "time": 1.5, **SUMMARY},
    {"stage": "start", "event": "step", "step": 1, "time": 2.5, "loss": 0.5, "steps": 4},
    {"stage": "start", "event": "objective", "time": 3, "mean": -1.5, "standard_error": 0.25},
]
RECIPE = """
name = "tiny"
seed = 7
[data]
corpus = ["corpus.jsonl"]
[model]
name = "m"
chat_template_kwargs = {a = 1}
[method]
name = "searcher"
max_steps = 4
[m_step]
learning_rate = 1e-5
[gem]
iterations = 2
"""


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


BEIR = {
    "queries.jsonl": lines({"_id": 1, "text": "Who?", "metadata": {"answer": "X"}}),
    "corpus.jsonl": lines({"_id": "d1", "title": "T", "text": "One."}),
}


def parquet_file(*rows: dict[str, object]) -> bytes:
    written = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), written)
    return written.getvalue()


def read_traces(folder: Path) -> None:
    for trace in find_traces(folder / "t.jsonl"):
        trace_text(trace)
        trace_object(trace)
    rollout_figures(folder / "t.jsonl")


def read_warm_up(folder: Path) -> None:
    items = list(WeightedFile(folder / "t.jsonl"))
    check_prompts(items, folder / "t.jsonl", SearcherMethod(select=True), ScriptedTokenizer())


def read_run(folder: Path) -> None:
    if (folder / "metrics.jsonl").exists():
        Journal(folder / "metrics.jsonl")
    folder_object(folder)
    folder_text(folder)


def read_model(folder: Path) -> None:
    model_settings(folder)
    resolve_model(folder)


def read_index(folder: Path) -> None:
    retriever = open_retriever(folder)
    retriever.search(["one"], 2)
    retriever.fetch(["p1"])


def read_settings(folder: Path) -> None:
    refuse_others(folder / "settings.json", ["a", "b"], [folder / "other.json"])
    settle(folder / "settings.json", {"a": 1, "b": [2]}, folder / "environment.json")


def read_chunks(folder: Path) -> None:
    committed(folder / "t.jsonl")
    in_chunks([1], 1, folder / "t.jsonl", lambda items: (["{}"], {"samples": 1}))


def converted(name: str, *files: str) -> Callable[[Path], object]:
    return lambda folder: convert(name, [folder / file for file in files], folder / "out")


# The files of each reader, of which the first is damaged, and what reads their folder.
Reader = tuple[dict[str, bytes], Callable[[Path], object]]
READERS: dict[str, Reader] = {
    "questions": ({"q.jsonl": lines(QUESTION)}, lambda f: load_questions(f / "q.jsonl")),
    "question table": (
        {"q.csv": b"id,question,answers\n1,Who?,\"['X', 'Y']\"\n2,When?,May\n"},
        lambda f: load_questions(f / "q.csv"),
    ),
    "corpus": (
        {"c.jsonl": lines({"id": 1, "title": "T", "text": "1"}, {"_id": 2, "contents": '"T"\n1'})},
        lambda f: list(read_corpus(f / "c.jsonl")),
    ),
    "corpus table": (
        {"c.tsv": b'id\ttext\ttitle\n1\t"One, ""two""."\tT\n'},
        lambda f: list(read_corpus(f / "c.tsv")),
    ),
    "packed corpus": (
        {"c.jsonl.gz": gzip.compress(lines({"id": 1, "text": "One."}))},
        lambda f: list(read_corpus(f / "c.jsonl.gz")),
    ),
    "corpus in Parquet": (
        {"c.parquet": parquet_file({"id": 1, "title": None, "text": "One."})},
        lambda f: list(read_corpus(f / "c.parquet")),
    ),
    "questions in Parquet": (
        {"q.parquet": parquet_file({**QUESTION, "supporting": ["p1"]})},
        lambda f: load_questions(f / "q.parquet"),
    ),
    "texts": ({"a.md": b"```\n# no\n```\n# T\n\nOne. Two.\n"}, lambda f: list(read_corpus(f))),
    "predictions": (
        {"p.jsonl": lines({"id": "q1", "prediction": "X"})},
        lambda f: load_predictions(f / "p.jsonl"),
    ),
    "hotpotqa": ({"h.json": json.dumps([HOTPOT]).encode()}, converted("hotpotqa", "h.json")),
    "aliases": (
        {"id_aliases.json": lines(ALIASES), "h.json": json.dumps([HOTPOT]).encode()},
        converted("2wikimultihopqa", "h.json", "id_aliases.json"),
    ),
    "2wikimultihopqa": (
        {"h.json": json.dumps([HOTPOT]).encode()},
        converted("2wikimultihopqa", "h.json"),
    ),
    "musique": ({"m.jsonl": lines(MUSIQUE)}, converted("musique", "m.jsonl")),
    "nq-open": (
        {"n.jsonl": lines({"question": "Who?", "answer": ["X"]})},
        converted("nq-open", "n.jsonl"),
    ),
    "webquestions": ({"w.csv": b"Who?\t['X', \"Y\"]\n"}, converted("webquestions", "w.csv")),
    "triviaqa": ({"t.json": json.dumps(TRIVIA).encode()}, converted("triviaqa", "t.json")),
    "popqa": (
        {"p.tsv": b'id\tquestion\tprop\tpossible_answers\n1\tWho?\tjob\t"[""X""]"\n'},
        converted("popqa", "p.tsv"),
    ),
    "bamboogle": ({"b.csv": b"Question,Answer\nWho?,X\n"}, converted("bamboogle", "b.csv")),
    "flashrag": ({"f.jsonl": lines(FLASHRAG)}, converted("flashrag", "f.jsonl")),
    "flashrag's corpus": (
        {"c.jsonl": lines({"id": 1, "contents": '"T"\n1'}), "f.jsonl": lines(FLASHRAG)},
        converted("flashrag", "f.jsonl", "c.jsonl"),
    ),
    "beir": (
        {"t.tsv": b"query-id\tcorpus-id\tscore\n1\td1\t1\n", **BEIR},
        converted("beir", "t.tsv", *BEIR),
    ),
    "queries of beir": (
        {**BEIR, "t.tsv": b"query-id\tcorpus-id\tscore\n1\td1\t1\n"},
        converted("beir", "t.tsv", *BEIR),
    ),
    "kilt": ({"k.jsonl": lines(KILT)}, converted("kilt", "k.jsonl")),
    "kilt's pages": (
        {"c.json": lines(KILT_PAGE), "k.jsonl": lines(KILT)},
        converted("kilt", "k.jsonl", "c.json"),
    ),
    "search-r1": ({"s.parquet": parquet_file(SEARCH_R1)}, converted("search-r1", "s.parquet")),
    "recipe": ({"r.toml": RECIPE.encode()}, lambda f: load_config(Recipe, f / "r.toml")),
    "script": (
        {"s.jsonl": lines({"contains": "a", "reply": "b"}, {"contains": "", "reply": ["b"]})},
        lambda f: ScriptedEngine.from_file(f / "s.jsonl"),
    ),
    "trajectories": ({"t.jsonl": to_json(TRACE).encode() + b"\n"}, read_traces),
    "weighted trajectories": ({"t.jsonl": to_json(WEIGHTED).encode() + b"\n"}, read_traces),
    "warm-up": ({"t.jsonl": to_json(WEIGHTED).encode() + b"\n"}, read_warm_up),
    "summary": ({"summary.json": json.dumps(SUMMARY).encode()}, read_run),
    "metrics": ({"metrics.jsonl": lines(*EVENTS)}, read_run),
    "best of a run": (
        {"best.json": b'{"stage": "start", "model": "."}', "metrics.jsonl": lines(*EVENTS)},
        read_run,
    ),
    "best of a model": (
        {
            "best.json": b'{"stage": "start", "model": "."}',
            "recipe.json": b'{"recipe": {"model": {"name": "m"}}}',
        },
        read_model,
    ),
    "recipe of a model": (
        {
            "recipe.json": b'{"recipe": {"model": {"system_prompt": ""}, "method": {"name": ""}}}',
            "best.json": b'{"stage": "start", "model": "."}',
        },
        read_model,
    ),
    "settings of a model": (
        {
            "exsearch.json": b'{"method": {"name": "rag", "passages": 3}, "system_prompt": ""}',
            "config.json": b"{}",
        },
        read_model,
    ),
    "settings": (
        {"settings.json": b'{"a": 1, "b": [2]}', "environment.json": b"{}"},
        read_settings,
    ),
    "environment": (
        {"environment.json": b'{"cores": 2}', "settings.json": b'{"a": 1, "b": [2]}'},
        read_settings,
    ),
    "commits": (
        {"t.jsonl.chunks": lines({"samples": 1, "bytes": 3}), "t.jsonl": b"{}\n"},
        read_chunks,
    ),
}  # fmt: skip
INDEX_FILES = ("retriever.json", MANIFEST, "passages.jsonl", "postings.npy", "words.npy")

ODD = [
    b"null", b"true", b"-1", b"0", b"1.5", b"1e999", b"NaN", b"-Infinity", b"9" * 400, b"9" * 5000,
    b'""', b'" "', b'"\\ud800"', b'"\\u0000"', b'"~nouser"', b'"[1]"', b'"' + b"n" * 5000 + b'"',
    b"[]", b"{}", b"[[]]", b'[""]', b'{"a": 1}', b"[" * 400 + b"]" * 400, b"[" * 100_000,
    b'{"a":' * 5000, b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\t", b'"', b"\\",
]  # fmt: skip
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|true|false|null|\[[^\[\]]*\]|\{[^{}]*\}')


def damage(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to three faults: odd values, other bytes, a part that is gone or twice."""
    for _ in range(draw.randint(1, 3)):
        start, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        tokens = list(TOKEN.finditer(data))
        match draw.randrange(6):
            case 0 | 1 | 2 if tokens:
                token = draw.choice(tokens)
                data = data[: token.start()] + draw.choice(ODD) + data[token.end() :]
            case 3:
                data = data[:start] + bytes(draw.choices(range(256), k=3)) + data[start + 2 :]
            case 4:
                data = data[:start] + data[end:]
            case _:
                data = data[:end] + data[start:]
    return data


def fuzz(files: dict[str, bytes], read: Callable[[Path], object], folder: Path, tries: int) -> int:
    """Read damaged files, and return how many of them were refused."""
    refused = 0
    damaged = next(iter(files))
    for seed in range(tries):
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / damaged).write_bytes(damage(files[damaged], random.Random(seed)))
        try:
            read(folder)
        except ExSearchError:
            refused += 1
        except BaseException as error:
            error.add_note(f"seed {seed}: {(folder / damaged).read_bytes()[:2000]!r}")
            raise
    return refused


@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_nothing_but_our_errors(tmp_path: Path, name: str):
    files, read = READERS[name]
    assert fuzz(files, read, tmp_path, 50) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_nothing_but_our_errors_at_length(tmp_path: Path, name: str):
    files, read = READERS[name]
    assert fuzz(files, read, tmp_path, 10_000) > 1000


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.html", b'<html lang="en"><head><title>T</title></head><body a="1"><p>One.</p></body>'),
        ("a.pdf", make_pdf("One.", "Two.", title="T")),
    ],
)
def test_a_document_raises_nothing_but_our_errors(tmp_path: Path, name: str, data: bytes):
    with Documents() as documents:
        refused = fuzz({name: data}, lambda folder: documents.read(folder / name), tmp_path, 30)
    assert (refused > 0) == (name == "a.pdf")  # any bytes are a page in HTML


@pytest.fixture
def index(tmp_path: Path) -> Path:
    build_index([Passage("p1", "T", "One."), Passage("p2", "", "Two one.")], tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("name", INDEX_FILES)
def test_a_damaged_index_raises_nothing_but_our_errors(index: Path, name: str):
    """Also where the manifest fits: it could come from elsewhere with the rest."""
    data = (index / name).read_bytes()
    manifest = (index / MANIFEST).read_bytes()

    def read(folder: Path) -> None:
        if name != MANIFEST:
            facts = json.loads(manifest)
            (folder / MANIFEST).write_bytes(manifest)
            changed = {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
            facts["files"][name] = changed
            (folder / MANIFEST).write_text(json.dumps(facts))
        verify_folder(folder)
        read_index(folder)

    assert fuzz({name: data}, read, index, 50) > 0


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def fuzz_model(name: str, folder: Path, source: Path, tries: int) -> None:
    engine = pytest.importorskip("exsearch.engines.local.engine")
    files = {file.name: file.read_bytes() for file in source.iterdir()}
    for other, data in files.items():
        (folder / other).write_bytes(data)
    fuzz({name: files[name]}, lambda f: engine.TransformersEngine(f, device="cpu"), folder, tries)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_damaged_model_raises_nothing_but_our_errors(
    tmp_path: Path, tiny_model_folder: Path, name: str
):
    fuzz_model(name, tmp_path, tiny_model_folder, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_damaged_model_raises_nothing_but_our_errors_at_length(
    tmp_path: Path, tiny_model_folder: Path, name: str
):
    fuzz_model(name, tmp_path, tiny_model_folder, 500)


@pytest.mark.parametrize("name", ["~nouser/x", "~nouser"])
def test_a_home_that_is_none(name: str, tmp_path: Path):
    for read in (resolve_model, model_settings):
        with pytest.raises(ExSearchError, match="no such user"):
            read(name)


def test_a_line_without_end_is_refused_by_every_reader(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("exsearch.json_files.MAX_LINE", 1000)
    assert MAX_LINE == 64 << 20
    long = b'{"id": "a", "x": "' + b"x" * 1000 + b'"}\n'
    for name, kind in (("q.jsonl", DataError), ("q.csv", DataError)):
        (tmp_path / name).write_bytes(b"\n" + long)
        with pytest.raises(kind, match=rf"{name}:2: a line of more than"):
            load_questions(tmp_path / name)
    file = tmp_path / "t.jsonl"
    file.write_bytes(to_json(TRACE).encode()[:900].replace(b"\n", b"") + b"\n" + long)
    file.write_bytes(b"{}\n" + long)
    for read, kind in ((WeightedFile, DataError), (read_jsonl, RunError)):
        with pytest.raises(kind, match="a line of more than"):
            list(read(file))
