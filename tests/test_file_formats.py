"""The examples of docs/file-formats.md are read by the code, and name all that the code writes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from exsearch.config import load_config, to_plain
from exsearch.data.corpus import read_corpus
from exsearch.data.formats import convert
from exsearch.data.questions import load_questions
from exsearch.engines.config import ModelConfig
from exsearch.engines.scripted import ScriptedEngine
from exsearch.evaluation.results import evidence_spans, read_result
from exsearch.evaluation.score import load_predictions, score_predictions
from exsearch.jobs.evaluate import evaluate
from exsearch.jobs.evaluate_retrieval import asked_of, evaluate_retrieval
from exsearch.jobs.experiment import run_experiment
from exsearch.jobs.inputs import Asking
from exsearch.jobs.retrieve import Place, retrieve
from exsearch.jobs.rollout import rollout
from exsearch.methods.searcher import SearcherMethod
from exsearch.models.settings import MODEL_FILE, model_settings
from exsearch.progress import Bars
from exsearch.records import (
    SCHEMA_VERSION,
    Evidence,
    Trajectory,
    WeightedTrajectory,
    from_json,
    to_json,
)
from exsearch.retrievers import build_index, open_retriever
from exsearch.retrievers.hybrid import Fusion
from exsearch.retrievers.inner import write_combined
from exsearch.retrievers.rerank import Reranking
from exsearch.runs import read_jsonl
from exsearch.training.e_step import EStepConfig
from exsearch.training.figures import training_cost
from exsearch.training.recipe import GemConfig, Recipe, WarmUpConfig

PAGE = Path(__file__).parents[1] / "docs" / "file-formats.md"
METHOD = SearcherMethod(passages=2)


def block(heading: str) -> str:
    """The first code block below a heading."""
    text = PAGE.read_text(encoding="utf-8").split(f"# {heading}\n", 1)[1]
    found = re.search(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def example(heading: str) -> dict[str, Any]:
    return json.loads(block(heading))


def examples(heading: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in block(heading).splitlines()]


def tree(heading: str) -> set[str]:
    """The names in the indented listing below a heading."""
    text = PAGE.read_text(encoding="utf-8").split(f"# {heading}\n", 1)[1].split("\n## ")[0]
    rows = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"[\w.-]+[\w/]", row)}


def written(name: str, folder: Path, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's own questions, corpus and script, and an index."""
    folder = tmp_path_factory.mktemp("formats")
    written("questions.jsonl", folder, block("Questions"))
    written("script.jsonl", folder, block("Script"))
    build_index(read_corpus([written("corpus.jsonl", folder, block("Corpus"))]), folder / "index")
    return folder


@pytest.fixture(scope="module")
def asking(files: Path) -> Asking:
    model = ModelConfig(name=str(files / "script.jsonl"), engine="scripted")
    return Asking(str(files / "questions.jsonl"), str(files / "index"), model, METHOD)


def test_inputs_are_read(files: Path, tmp_path: Path) -> None:
    (question,) = load_questions(files / "questions.jsonl")
    assert question.decomposition[1].support_id == "p2"
    assert question.dataset == "invented"
    assert ScriptedEngine.from_file(files / "script.jsonl")
    predictions = load_predictions(written("p.jsonl", tmp_path, block("Predictions")))
    assert score_predictions([question], predictions)["em"] == 1
    rows = load_questions(written("t.csv", tmp_path, block("Tables")))
    assert [row.answers for row in rows] == [("Quillmoor",), ("Sorrel", "River Sorrel")]
    recipe = load_config(Recipe, written("r.toml", tmp_path, block("Recipe")))
    assert recipe.teacher is not None
    assert recipe.warm_up.source == "teacher"
    assert recipe.method == SearcherMethod(max_steps=4)


def test_records_are_the_pages_own() -> None:
    assert example("Trajectory")["schema_version"] == SCHEMA_VERSION
    for kind, heading in ((Trajectory, "Trajectory"), (WeightedTrajectory, "Weighted trajectory")):
        record = from_json(kind, block(heading))
        assert json.loads(to_json(record)) == example(heading)


def test_a_folder_of_an_index(files: Path) -> None:
    index = files / "index"
    facts = json.loads((index / "retriever.json").read_text())
    assert facts.keys() == example("Index").keys()
    assert facts["analyser"].keys() == example("Index")["analyser"].keys()
    manifest = json.loads((index / "manifest.json").read_text())
    (shape,) = example("Complete folders")["files"].values()
    assert all(entry.keys() == shape.keys() for entry in manifest["files"].values())
    named = {p.name + "/" * p.is_dir() for p in index.iterdir()} - {"manifest.json"}
    assert named <= tree("Index")
    found = open_retriever(index).fetch([p["id"] for p in examples("Corpus")] + ["none"])
    assert [p is not None for p in found] == [True] * example("Index")["passages"] + [False]


def test_folders_of_combined_places(tmp_path: Path) -> None:
    settings = [Fusion(), Reranking("../reranker/model")]
    for number, (fields, own) in enumerate(zip(examples("Combined place"), settings, strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_combined(folder, fields["kind"], fields["places"], own)
        assert json.loads((folder / "retriever.json").read_text()) == fields


def test_a_converted_data_set(tmp_path: Path) -> None:
    item = {"_id": "a", "question": "Who?", "answer": "Ada", "supporting_facts": [["T", 0]]}
    source = written("dev.json", tmp_path, json.dumps([{**item, "context": [["T", ["Ada."]]]}]))
    summary = convert("hotpotqa", [source], tmp_path / "out")
    assert summary.keys() == example("Converted data set").keys()


def test_an_evaluation_folder(asking: Asking, tmp_path: Path) -> None:
    summary = evaluate(asking, tmp_path / "out", bars=Bars(False))
    assert summary.keys() == example("summary.json").keys()
    assert summary["ci95"].keys() == example("summary.json")["ci95"].keys()
    (row,) = read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert row.keys() == examples("predictions.jsonl")[0].keys()
    assert (row["prediction"], row["stop_reason"]) == ("Quillmoor", "answered")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings.keys() == example("settings.json").keys()
    assert settings["model"].keys() == example("settings.json")["model"].keys()
    assert settings["method"].keys() == example("settings.json")["method"].keys()
    (chunk,) = read_jsonl(tmp_path / "out" / "trajectories.jsonl.chunks")
    assert list(chunk) == ["samples", "failed", "seconds", "bytes", "sha256"]
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment.keys() == example("environment.json").keys()
    assert environment["versions"].keys() == example("environment.json")["versions"].keys()
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == tree("Evaluation") & names | {".lock"}
    assert len(names) == 7


def test_an_evaluation_of_retrieval(files: Path, tmp_path: Path) -> None:
    place, out = Place(str(files / "index")), tmp_path / "out"
    file, asked = asked_of(str(files / "questions.jsonl"))
    summary = evaluate_retrieval(file, asked, place, out, against=place, ks=[5], bars=Bars(False))
    shown = example("Figures of retrieval")
    assert summary.keys() == shown.keys()
    assert summary["ci95"].keys() == shown["ci95"].keys()
    assert summary["against"].keys() == shown["against"].keys()
    (name,) = shown["against"]["compared"]
    compared = summary["against"]["compared"]
    assert compared[name].keys() == shown["against"]["compared"][name].keys()
    (row,) = read_jsonl(out / "retrieval.jsonl")
    (shown,) = examples("Evaluation of retrieval")
    assert row.keys() == shown.keys()
    assert row["values"].keys() == shown["values"].keys() == compared.keys()
    names = {p.name for p in out.iterdir()}
    assert names == tree("Evaluation of retrieval") & names | {".lock"}
    assert len(names) == 8
    (line,), _ = retrieve({"q7": "Where was Ada Fenn born?"}, place, 1, bars=Bars(False))
    (shown,) = examples("Retrieval")
    assert json.loads(line).keys() == shown.keys()
    assert json.loads(line)["passages"][0].keys() == shown["passages"][0].keys()


def test_a_metric_that_says_nothing_about_some_questions(asking: Asking, tmp_path: Path) -> None:
    other = json.loads(block("Questions").splitlines()[0]) | {"id": "q2", "supporting": []}
    text = block("Questions") + json.dumps(other) + "\n"
    file = written("questions.jsonl", tmp_path, text)
    asked = dataclasses.replace(asking, questions=str(file))
    summary = evaluate(asked, tmp_path / "out", bars=Bars(False))
    assert summary.keys() - example("summary.json").keys() == {"union_recall_n", "single_recall_n"}
    assert summary["union_recall_n"] == 1
    assert "`union_recall_n`" in PAGE.read_text(encoding="utf-8")


def test_a_rollout(asking: Asking, tmp_path: Path) -> None:
    rollout(asking, tmp_path / "t.jsonl", EStepConfig(samples=2), bars=Bars(False))
    (chunk,) = read_jsonl(tmp_path / "t.jsonl.chunks")
    assert chunk.keys() == examples("Chunks")[0].keys()
    beside = {f"t.jsonl.{what}" for what in ("chunks", "settings.json", "environment.json")}
    assert {p.name for p in tmp_path.iterdir()} == {"t.jsonl", ".t.jsonl.lock", *beside}


def test_a_training_run(
    tmp_path: Path, tiny_model_folder: Path, sample_questions: Any, sample_retriever: Any
) -> None:
    import torch

    from exsearch.engines.local.engine import TransformersEngine
    from exsearch.training.loop import Loop

    recipe = Recipe(
        "tiny",
        method=SearcherMethod(passages=2, passage_words=20, thought_tokens=8, record_tokens=8),
        warm_up=WarmUpConfig(examples=2),
        gem=GemConfig(
            iterations=0, dev_questions=1, probe_questions=1, probe_samples=2, action_questions=1
        ),
    )
    best = Loop(
        recipe,
        tmp_path,
        train=sample_questions[:8],
        dev=sample_questions[8:],
        retriever=sample_retriever,
        engine=TransformersEngine(tiny_model_folder, device="cpu"),
        start=tiny_model_folder,
        device=torch.device("cpu"),
        bars=Bars(False),
    ).run()
    assert best.keys() == example("best.json").keys()
    documented = {event["event"]: event.keys() for event in examples("metrics.jsonl")}
    documented["probe"] = documented["e_step"]
    events = {event["event"]: event for event in read_jsonl(tmp_path / "metrics.jsonl")}
    common = {"stage", "event", "step", "time"}
    documented["dev"] = common | {"gain"} | example("summary.json").keys() - {"audit"}
    # The untrained model searches for nothing: its single recall is over 0 questions.
    assert events["dev"].pop("single_recall_n") == 0
    assert {name: set(event) for name, event in events.items()} == {
        name: set(keys) for name, keys in documented.items() if name in events
    }
    assert events.keys() == documented.keys() - {"e_step"}
    assert names_below(tmp_path) <= tree("Training run")
    settings = json.loads((tmp_path / "warm_up" / "model" / MODEL_FILE).read_text())
    assert settings.keys() == example("Model").keys()
    assert example("Model")["method"].keys() == settings["method"].keys()
    assert model_settings(tmp_path / "warm_up" / "model").method == recipe.method
    written(MODEL_FILE, tmp_path, block("Model"))
    assert model_settings(tmp_path).method.name == "searcher"
    assert {"recipe", "data_sha256"} == example("recipe.json").keys()
    assert example("recipe.json")["recipe"].keys() - {"…"} <= to_plain(recipe).keys()


def names_below(run: Path) -> set[str]:
    """Names in a run's folder and its stages', folders with a stroke."""

    def names(paths: Iterable[Path]) -> set[str]:
        return {p.name + "/" * p.is_dir() for p in paths}

    return names(run.iterdir()) | names(run.glob("*/*"))


def test_an_experiment(files, tmp_path):
    for name in ("questions.jsonl", "index"):
        (tmp_path / name).symlink_to(files / name)
    file = written("list.toml", tmp_path, block("Experiment"))
    assert list(run_experiment(file, bars=Bars(False))) == ["guess.0"]
    folder = tmp_path / "results" / "guess.0"
    assert {f.name for f in folder.iterdir()} - {".lock"} <= tree("Experiment")
    made, told = json.loads((folder / "result.json").read_text()), example("result.json")
    assert set(made) == set(told)
    assert set(made["settings"]) == set(told["settings"])
    assert set(made["settings"]["parts"]["own"]) == set(told["settings"]["parts"]["own"])
    assert set(made["figures"]) == set(told["figures"])
    assert set(told["training"][0]) == {"run", *training_cost([])}
    row, shown = next(read_result(folder)), example("predictions.jsonl.gz")
    assert set(shown) - {"…"} <= set(row)
    texts = {"question", "answers", "queries", "evidence"}  # left out
    plain = set(example("predictions.jsonl")) - {"…"}
    assert set(row) == plain - texts | {"part", "hops", "searches"}
    assert evidence_spans(Evidence("x", ("p",)), []) == ["p", None, None]
