"""What determines a job's answers is named by content, whatever the paths and the engine are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.engines import ENGINES
from exsearch.engines.config import ModelConfig
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import ConfigError, ModelError
from exsearch.jobs.inputs import Asking, ExampleSource, open_inputs, solved_examples
from exsearch.methods import method_values, open_method
from exsearch.methods.searcher import SearcherMethod
from exsearch.retrievers import build_index


class Other(ScriptedEngine):
    """An engine of another package, with names of its own for its models."""


@pytest.fixture
def asking(tmp_path: Path, tiny_model_folder: Path) -> Asking:
    """The packaged questions, a small index, and the tiny model."""
    passages = list(read_corpus([sample_path("corpus")]))[:20]
    build_index(passages, tmp_path / "index", progress=False)
    questions = shutil.copy(sample_path("test"), tmp_path / "questions.jsonl")
    return Asking(str(questions), str(tmp_path / "index"), ModelConfig(str(tiny_model_folder)))


def identity(asking: Asking) -> dict[str, Any]:
    named = open_inputs(asking).identity
    assert json.loads(json.dumps(named)) == named  # it is written down
    return named


def test_another_path_to_the_same_content_is_the_same(asking: Asking, tmp_path: Path) -> None:
    before = identity(asking)
    assert before["method"] == method_values(SearcherMethod())
    (tmp_path / "other").mkdir()
    questions = shutil.move(asking.questions, tmp_path / "other" / "q.jsonl")
    index = shutil.copytree(asking.index, tmp_path / "other" / "index")
    moved = dataclasses.replace(asking, questions=str(questions), index=str(index))
    assert identity(moved) == before


def test_other_content_is_another(asking: Asking, tmp_path: Path) -> None:
    before = identity(asking)
    build_index(list(read_corpus([sample_path("corpus")]))[:19], tmp_path / "other", progress=False)
    script = tmp_path / "script.jsonl"
    script.write_text('{"contains": "", "reply": "a"}\n')
    scripted = dataclasses.replace(asking, model=ModelConfig(str(script), "scripted"))
    with Path(asking.questions).open("a") as file:
        file.write("\n")
    for key, other in {
        "questions": asking,
        "index": dataclasses.replace(asking, index=str(tmp_path / "other")),
        "model": scripted,
        "method": dataclasses.replace(asking, method=open_method({"name": "rag"})),
        "seed": dataclasses.replace(asking, seed=1),
        "limit": dataclasses.replace(asking, limit=1),
    }.items():
        assert identity(other)[key] != before[key]
    content = identity(scripted)["model"]["content"]
    script.write_text('{"contains": "", "reply": "b"}\n')
    assert identity(scripted)["model"]["content"] != content


def test_where_it_runs_does_not_count(asking: Asking) -> None:
    elsewhere = dataclasses.replace(asking.model, device="cpu", batch_size=3, token_budget=99)
    assert identity(dataclasses.replace(asking, model=elsewhere)) == identity(asking)


def test_a_model_behind_a_server_is_named_with_its_address(asking: Asking) -> None:
    model = ModelConfig("served", "openai", base_url="http://localhost:1/v1")
    named = identity(dataclasses.replace(asking, model=model))["model"]
    assert (named["content"], named["base_url"]) == ("served", "http://localhost:1/v1")


def test_an_engine_of_another_package_names_its_models_itself(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "other", f"{__name__}:Other")
    other = dataclasses.replace(asking, model=ModelConfig("their-model", "other"))
    assert identity(other)["model"]["content"] == "their-model"


def test_a_model_that_is_not_there_is_told_before_anything_is_written(asking: Asking) -> None:
    with pytest.raises(ModelError, match="no model 'smollm2-135'"):
        open_inputs(dataclasses.replace(asking, model=ModelConfig("smollm2-135")))


def test_worked_examples(sample_retriever: Any) -> None:
    engine, source = ScriptedEngine({}), ExampleSource(2, "sample:train")
    method = SearcherMethod(passages=3)
    assert solved_examples(ExampleSource(), sample_retriever, engine, method) is None
    shown = solved_examples(source, sample_retriever, engine, method)
    assert shown is not None
    selecting = SearcherMethod(passages=3, select=True)
    with_select = solved_examples(source, sample_retriever, engine, selecting)
    assert with_select is not None
    assert {*with_select.turns} - {*shown.turns} == {"select"}
    with pytest.raises(ConfigError, match="--context notes"):
        transcript = SearcherMethod(context="transcript")
        solved_examples(source, sample_retriever, engine, transcript)
    for name in ("direct", "rag", "chain-of-thought", "self-ask", "ircot", "iter-retgen"):
        shown = solved_examples(source, sample_retriever, engine, open_method({"name": name}))
        assert shown is not None and len(shown.turns["think"]) == 4, name
    with pytest.raises(ConfigError, match=r"sample:train: \d+ of 9999 worked examples"):
        solved_examples(ExampleSource(9999, "sample:train"), sample_retriever, engine, method)
