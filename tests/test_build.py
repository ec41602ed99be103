"""Names become engines, retrievers and models, and a model is asked as it was trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from exsearch.build import (
    ModelSettings,
    load_engine,
    open_retriever,
    model_settings,
    open_engine,
    resolve_model,
)

from exsearch.methods.searcher import SearcherMethod
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import ConfigError, IndexDamagedError, MissingExtraError, ModelError
from exsearch.training.recipe import ModelConfig

SETTINGS = {
    "agent": {"max_steps": 3, "select": True},
    "system_prompt": "",
    "chat_template_kwargs": {"tone": "dry"},
}


def write(file: Path, values: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))
    return file.parent


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    run = write(tmp_path / "run" / "best.json", {"stage": "warm_up", "model": "warm_up/model"})
    write(run / "recipe.json", {"recipe": {}})
    write(run / "warm_up" / "model" / "config.json", {})
    write(run / "warm_up" / "model" / "exsearch.json", SETTINGS)
    return run


def test_a_folder_an_id_and_a_run_are_models(finished_run: Path):
    inner = finished_run / "warm_up" / "model"
    assert resolve_model(inner) == str(inner)
    assert resolve_model(finished_run) == str(inner)
    assert resolve_model("Qwen/Qwen2.5-3B-Instruct") == "Qwen/Qwen2.5-3B-Instruct"


def test_an_adapter_folder_is_a_model(tmp_path: Path):
    assert resolve_model(write(tmp_path / "adapter_config.json", {})) == str(tmp_path)


def test_a_run_whose_best_is_its_start_is_that_model(tmp_path: Path):
    start = write(tmp_path / "start" / "config.json", {})
    run = write(tmp_path / "run" / "best.json", {"stage": "start", "model": str(start)})
    assert resolve_model(run) == str(start)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", "did you mean smollm2-135m"),
        ("gpt", "try smollm2-135m"),
        ("./no/such", "no such name or folder"),
        ("a/b/c", "no such name or folder"),
    ],
)
def test_a_name_that_is_no_model(name: str, message: str):
    with pytest.raises(ModelError, match=message):
        resolve_model(name)


def test_a_folder_that_is_no_model(tmp_path: Path):
    with pytest.raises(ModelError, match=r"neither a model folder \(config.json\)"):
        resolve_model(tmp_path)
    write(tmp_path / "recipe.json", {})
    with pytest.raises(ModelError, match="not finished"):
        resolve_model(tmp_path)


def test_settings_come_from_the_model_or_its_run(finished_run: Path):
    wanted = ModelSettings(SearcherMethod(max_steps=3, select=True), "", {"tone": "dry"})
    assert model_settings(finished_run) == wanted
    assert model_settings(finished_run / "warm_up" / "model") == wanted


def test_settings_of_a_run_whose_best_is_its_start(tmp_path: Path):
    run = write(tmp_path / "best.json", {"stage": "start", "model": "smollm2-135m"})
    model = {"name": "x", "system_prompt": "", "chat_template_kwargs": {}}
    write(run / "recipe.json", {"recipe": {"agent": {"passages": 2}, "model": model}})
    assert model_settings(run) == ModelSettings(SearcherMethod(passages=2), "")


@pytest.mark.parametrize("name", ["smollm2-135m", "Qwen/Qwen2.5-3B-Instruct", "no such name"])
def test_a_model_that_says_nothing_has_the_defaults(name: str):
    assert model_settings(name) == ModelSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, not JSON"),
        ('{"agent": {"max_step": 3}}', "did you mean agent.max_steps"),
        ('{"agent": {"max_steps": "few"}}', "agent.max_steps"),
    ],
)
def test_settings_that_can_not_be_read(tmp_path: Path, text: str, message: str):
    (tmp_path / "exsearch.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        model_settings(tmp_path)
    assert str(tmp_path / "exsearch.json") in str(caught.value)


def test_an_engine_asks_a_model_as_it_was_trained(tiny_model_folder: Path, tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model_folder.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "exsearch.json").write_text('{"system_prompt": "Be brief."}')
    chat = [{"role": "user", "content": "Who?"}]

    def asked(**settings: Any) -> str:
        engine: Any = load_engine(folder, device="cpu", **settings)
        return engine.tokenizer.hf.decode(engine.tokenizer.encode_chat(chat))

    assert "Be brief." in asked()
    assert "Be brief." not in asked(system_prompt=None)


def test_an_engine_by_name(tmp_path: Path):
    script = tmp_path / "script.jsonl"
    script.write_text('{"contains": "", "reply": "Answer: yes"}\n')
    assert isinstance(load_engine(script, engine="scripted"), ScriptedEngine)
    with pytest.raises(ConfigError, match="no engine 'scriptd'; did you mean scripted"):
        open_engine(ModelConfig(engine="scriptd"))
    with pytest.raises(ConfigError, match="known: transformers, openai, vllm, scripted"):
        open_engine(ModelConfig(engine="xyz"))


def test_an_engine_that_is_not_installed(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'exsearch\[vllm\]'"):
        load_engine(tiny_model_folder, engine="vllm")


@pytest.mark.parametrize(
    ("engine", "takes"), [("transformers", "cache_tokens"), ("scripted", "none")]
)
def test_options_of_another_engine(engine: str, takes: str):
    with pytest.raises(
        ConfigError, match=f"engine_options.max_model_len: .*'{engine}' takes {takes}"
    ):
        load_engine(engine=engine, engine_options={"max_model_len": 9})


@pytest.mark.parametrize("value", [-1, 1.5, "many", True])
def test_options_that_are_no_number(value: object):
    with pytest.raises(ConfigError, match=r"engine_options.cache_tokens is .*, expected a whole"):
        load_engine(engine_options={"cache_tokens": value})


def test_an_engine_that_another_package_adds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    site = tmp_path / "other-1.0.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[exsearch.engines]\nother = other_engine:open\n")
    (tmp_path / "other_engine.py").write_text("def open(config):\n    return ('other', config)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = ModelConfig(name="big", engine="other")
    assert open_engine(config) == ("other", config)


def test_a_retriever_with_and_without_a_cache(sample_index: Path):
    cached: Any = open_retriever(sample_index)
    plain: Any = open_retriever(sample_index, cache=0)
    assert cached.search(["Peter Pan"], 2) == plain.search(["Peter Pan"], 2)
    assert (cached.hits, cached.misses) == (0, 1)
    assert not hasattr(plain, "hits")


def test_a_retriever_that_can_not_be_opened(tmp_path: Path):
    with pytest.raises(IndexDamagedError, match="exsearch index"):
        open_retriever(tmp_path / "none")
    with pytest.raises(ConfigError, match="did you mean bm25"):
        open_retriever(tmp_path, kind="bm52")


@pytest.fixture(scope="module")
def sample_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exsearch.data import sample_path
    from exsearch.data.corpus import read_corpus
    from exsearch.retrievers.bm25 import build_bm25

    folder = tmp_path_factory.mktemp("build") / "index"
    build_bm25(read_corpus([sample_path("corpus")]), folder, progress=False)
    return folder
