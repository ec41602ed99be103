"""A name becomes an engine, whose settings are checked before a model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from exsearch.engines import check_engine, load_engine, open_engine
from exsearch.engines.config import ModelConfig
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import ConfigError, MissingExtraError


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
    ("engine", "module", "extra"),
    [
        ("transformers", "exsearch.engines.local.engine", "local"),
        ("vllm", "exsearch.engines.vllm.engine", "vllm"),
    ],
)
def test_an_engine_whose_module_can_not_be_imported(
    monkeypatch: pytest.MonkeyPatch, engine: str, module: str, extra: str
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'exsearch\[{extra}\]'"):
        check_engine(ModelConfig(engine=engine))


@pytest.mark.parametrize("engine", ["scripted", "openai"])
def test_an_engine_without_weights_is_not_trained(engine: str):
    config = ModelConfig(engine=engine, base_url="http://x/v1" if engine == "openai" else None)
    check_engine(config)
    with pytest.raises(ConfigError, match=f"'{engine}' has no weights to train; take transform"):
        check_engine(config, to_train=True)
    check_engine(ModelConfig(), to_train=True)


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


OTHER = """
class Other:
    trains, has_server, options = False, False, ("depth",)

    def __init__(self, config):
        self.config = config

    @classmethod
    def from_config(cls, config):
        return cls(config)
"""


def test_an_engine_that_another_package_adds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    site = tmp_path / "other-1.0.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[exsearch.engines]\nother = other_engine:Other\n")
    (tmp_path / "other_engine.py").write_text(OTHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = ModelConfig(name="big", engine="other", engine_options={"depth": 2})
    engine: Any = open_engine(config)
    assert type(engine).__name__ == "Other"
    assert engine.config == config
    with pytest.raises(ConfigError, match="no engine 'othr'; did you mean other"):
        open_engine(ModelConfig(engine="othr"))
    # What its class declares is checked as for a built-in one.
    with pytest.raises(ConfigError, match=r"engine_options\.width: .*'other' takes depth"):
        open_engine(ModelConfig(engine="other", engine_options={"width": 2}))
    with pytest.raises(ConfigError, match="'other' has no weights to train"):
        check_engine(config, to_train=True)
