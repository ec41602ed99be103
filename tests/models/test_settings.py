"""A name, a folder and a finished run are models, and each says how it was trained to be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exsearch.errors import ConfigError, ModelError
from exsearch.methods.rag import RagMethod
from exsearch.methods.searcher import SearcherMethod
from exsearch.models.settings import (
    ModelSettings,
    model_settings,
    resolve_model,
    write_model_settings,
)

SEARCHER = {"max_steps": 3, "select": True}
SETTINGS = {
    "method": {"name": "searcher", **SEARCHER},
    "system_prompt": "",
    "chat_template_kwargs": {"tone": "dry"},
}
# As versions before the methods wrote it.
OLD_SETTINGS = {"agent": SEARCHER, "system_prompt": "", "chat_template_kwargs": {"tone": "dry"}}
WANTED = ModelSettings(SearcherMethod(max_steps=3, select=True), "", {"tone": "dry"})


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
        ("gpt", "try exsearch-smollm2-135m"),
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
    assert model_settings(finished_run) == WANTED
    assert model_settings(finished_run / "warm_up" / "model") == WANTED


def test_settings_that_say_agent_are_read(finished_run: Path):
    model = finished_run / "warm_up" / "model"
    write(model / "exsearch.json", OLD_SETTINGS)
    assert model_settings(finished_run) == model_settings(model) == WANTED


def test_settings_that_say_both_agent_and_method_are_refused(tmp_path: Path):
    write(tmp_path / "exsearch.json", {**SETTINGS, **OLD_SETTINGS})
    with pytest.raises(ConfigError, match="agent is now called method: give only one") as caught:
        model_settings(tmp_path)
    assert str(tmp_path / "exsearch.json") in str(caught.value)


@pytest.mark.parametrize("settings", [WANTED, ModelSettings(RagMethod(passages=2), None)])
def test_settings_that_were_written_read_back(tmp_path: Path, settings: ModelSettings):
    write_model_settings(settings, tmp_path)
    assert model_settings(tmp_path) == settings


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ({"agent": {"passages": 2}}, SearcherMethod(passages=2)),
        ({"method": {"name": "rag", "passages": 2}}, RagMethod(passages=2)),
    ],
)
def test_settings_of_a_run_whose_best_is_its_start(tmp_path: Path, method: Any, wanted: Any):
    run = write(tmp_path / "best.json", {"stage": "start", "model": "smollm2-135m"})
    model = {"name": "x", "system_prompt": "", "chat_template_kwargs": {}}
    write(run / "recipe.json", {"recipe": {**method, "model": model}})
    assert model_settings(run) == ModelSettings(wanted, "")


@pytest.mark.parametrize("name", ["smollm2-135m", "Qwen/Qwen2.5-3B-Instruct", "no such name"])
def test_a_model_that_says_nothing_has_the_defaults(name: str):
    assert model_settings(name) == ModelSettings()


@pytest.mark.parametrize("section", ["method", "agent"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_step": 3}, "json: unknown key method.max_step; did you mean method.max_steps"),
        ({"max_steps": "few"}, r"json: method.max_steps: .*, got 'few'"),
        ({"max_steps": -1}, "json: method: max_steps is -1, expected 0 or more"),
        ({"name": "sercher"}, "no method 'sercher'; did you mean searcher"),
        ({"name": "rag", "max_steps": 3}, "unknown key method.max_steps; known: passages, "),
    ],
)
def test_a_method_that_can_not_be_read(
    tmp_path: Path, section: str, values: dict[str, Any], message: str
):
    write(tmp_path / "exsearch.json", {section: values})
    with pytest.raises(ConfigError, match=message) as caught:
        model_settings(tmp_path)
    assert str(tmp_path / "exsearch.json") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged .Expecting"),
        ("[]", "damaged .not a JSON object"),
        ("[" * 100_000, "damaged .nested too deeply"),
        ('{"methd": {}}', "did you mean method"),
        ('{"method": 3}', "method is 3, expected a section"),
    ],
)
def test_settings_that_can_not_be_read(tmp_path: Path, text: str, message: str):
    (tmp_path / "exsearch.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        model_settings(tmp_path)
    assert str(tmp_path / "exsearch.json") in str(caught.value)
