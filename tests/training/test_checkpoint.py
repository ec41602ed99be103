"""A checkpoint is whole, has no pickle, loads with plain libraries, and keeps every bit."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from exsearch.errors import ModelError, RunError
from exsearch.methods.searcher import SearcherMethod
from exsearch.models.embedded import EMBEDDED_MODEL
from exsearch.models.loading import load_model, load_tokenizer
from exsearch.models.settings import MODEL_FILE, ModelSettings, model_settings, resolve_model
from exsearch.runs import is_complete, new_folder, verify_folder
from exsearch.training.checkpoint import (
    OPTIMIZER_FILE,
    adapter_base,
    load_trainable,
    load_training,
    save_model,
    save_training,
)
from exsearch.training.m_step import m_step, new_optimizer
from exsearch.training.recipe import MStepConfig

CPU = torch.device("cpu")
FULL = MStepConfig(learning_rate=1e-3)
LORA = MStepConfig(learning_rate=1e-2, lora_rank=4)
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
configs = pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])


@pytest.fixture
def items(weighted):
    return [weighted(([5, 6, 7], [30, 31, 2]), ([8, 9], [40, 9, 2]), answers=[(50, 2)])]


def trained(folder, config, items, steps=3):
    """A model and its optimizer after some steps."""
    model = load_trainable(folder, config, CPU)
    optimizer = new_optimizer(model, config)
    for step in range(steps):
        m_step(model, optimizer, items, config, seed=step)
    return model, optimizer


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[5, 6, 7, 30, 31]])).logits


def same_weights(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


def assert_no_pickle(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if p.suffix in PICKLES]
    # a pickle begins with the byte 0x80 (protocol 2 and up), whatever its name; torch's is a zip
    assert not [p for p in files if p.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK")]


@configs
def test_training_goes_on_with_every_bit(tiny_model_folder, tmp_path, items, config):
    model, optimizer = trained(tiny_model_folder, config, items)
    save_training(model, optimizer, 3, tiny_model_folder, tmp_path / "checkpoint")
    assert_no_pickle(tmp_path)
    again = load_trainable(tmp_path / "checkpoint", config, CPU)
    assert same_weights(model, again)
    restored = new_optimizer(again, config)
    assert load_training(restored, tmp_path / "checkpoint") == 3
    old, new = (o.state_dict()["state"] for o in (optimizer, restored))
    assert old.keys() == new.keys()
    assert len(old) > 0
    for n in old:
        assert old[n].keys() == new[n].keys()
        assert all(torch.equal(value, new[n][name]) for name, value in old[n].items())
    for o, m in ((optimizer, model), (restored, again)):
        m_step(m, o, items, config, seed="next")
    assert same_weights(model, again)


def test_a_full_model_loads_with_plain_transformers(tiny_model_folder, tmp_path, items):
    model, _ = trained(tiny_model_folder, FULL, items)
    save_model(
        model, tiny_model_folder, tmp_path / "model", ModelSettings(SearcherMethod(max_steps=3))
    )
    assert is_complete(tmp_path / "model")
    assert_no_pickle(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert plain.dtype == torch.float32
    assert torch.equal(logits(plain), logits(model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    before = AutoTokenizer.from_pretrained(tiny_model_folder)
    assert tokenizer.encode("Where was she born?") == before.encode("Where was she born?")
    assert tokenizer.chat_template == before.chat_template
    settings = json.loads((tmp_path / "model" / MODEL_FILE).read_text())
    assert (settings["method"]["name"], settings["method"]["max_steps"]) == ("searcher", 3)
    assert model_settings(tmp_path / "model") == ModelSettings(SearcherMethod(max_steps=3))
    assert adapter_base(tmp_path / "model") is None


def test_an_adapter_loads_with_plain_peft(tiny_model_folder, tmp_path, items):
    model, _ = trained(tiny_model_folder, LORA, items)
    save_model(model, tiny_model_folder, tmp_path / "adapter", ModelSettings())
    assert_no_pickle(tmp_path)
    assert adapter_base(tmp_path / "adapter") == tiny_model_folder
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    untrained = logits(base)
    plain = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    assert torch.equal(logits(plain), logits(model))
    assert not torch.equal(logits(plain), untrained)
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < (tiny_model_folder / "model.safetensors").stat().st_size


def test_a_new_adapter_is_the_same_each_time_and_leaves_randomness_alone(tiny_model_folder):
    torch.manual_seed(1)
    first = load_trainable(tiny_model_folder, LORA, CPU)
    drawn = torch.rand(3)
    second = load_trainable(tiny_model_folder, LORA, CPU)
    assert same_weights(first, second)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    trainable = [n for n, p in first.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora" in n for n in trainable)


@configs
def test_gradient_checkpointing_changes_memory_only(tiny_model_folder, items, config):
    frugal = dataclasses.replace(config, gradient_checkpointing=True)
    model, _ = trained(tiny_model_folder, config, items)
    same, _ = trained(tiny_model_folder, frugal, items)
    assert torch.allclose(logits(model), logits(same), atol=1e-5)
    start = load_trainable(tiny_model_folder, config, CPU)
    assert not torch.allclose(logits(model), logits(start), atol=1e-5)


def test_an_adapter_needs_a_recipe_with_lora(tiny_model_folder, tmp_path, items):
    model, _ = trained(tiny_model_folder, LORA, items, steps=1)
    save_model(model, tiny_model_folder, tmp_path / "adapter", ModelSettings())
    with pytest.raises(ModelError, match="is an adapter: set lora_rank"):
        load_trainable(tmp_path / "adapter", FULL, CPU)
    for other in ({"lora_rank": 8}, {"lora_alpha": 8}):
        (name,) = other
        with pytest.raises(ModelError, match=f"an adapter with {name} .* instead of 8"):
            load_trainable(tmp_path / "adapter", dataclasses.replace(LORA, **other), CPU)


def test_an_adapter_finds_its_base_from_anywhere(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_model_folder.parent)
    model = load_trainable(tiny_model_folder.name, LORA, CPU)
    save_model(model, tiny_model_folder, tmp_path / "adapter", ModelSettings())
    assert adapter_base(tmp_path / "adapter") == tiny_model_folder.resolve()


@pytest.mark.parametrize("name", ["model.safetensors", OPTIMIZER_FILE])
@pytest.mark.parametrize("damage", ["altered", "cut", "gone"])
def test_a_damaged_checkpoint_is_refused(tiny_model_folder, tmp_path, items, name, damage):
    model, optimizer = trained(tiny_model_folder, FULL, items, steps=1)
    folder = tmp_path / "checkpoint"
    save_training(model, optimizer, 1, tiny_model_folder, folder)
    verify_folder(folder)
    file = folder / name
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-1] + (bytes([data[-1] ^ 1]) if damage == "altered" else b""))
    with pytest.raises(ModelError, match=f"{name}.*delete it"):
        load_trainable(folder, FULL, CPU)
    with pytest.raises(RunError, match=f"{name}.*delete it"):
        load_training(optimizer, folder)


def test_a_save_that_fails_leaves_the_old_one(tiny_model_folder, tmp_path, items, monkeypatch):
    model, _ = trained(tiny_model_folder, FULL, items, steps=1)
    folder = tmp_path / "model"
    save_model(model, tiny_model_folder, folder, ModelSettings(system_prompt="old"))

    def full(settings, folder):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("exsearch.training.checkpoint.write_model_settings", full)
    with pytest.raises(OSError, match="no space left"):
        save_model(model, tiny_model_folder, folder, ModelSettings(system_prompt="new"))
    verify_folder(folder)
    assert model_settings(folder).system_prompt == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_adapter_on_the_embedded_model_can_be_copied_to_another_machine(
    tiny_model_folder, tmp_path, monkeypatch, items
):
    def machine(name):
        """A cache folder with its own copy of the embedded model."""
        monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / name))
        with new_folder(tmp_path / name / EMBEDDED_MODEL) as out:
            shutil.copytree(tiny_model_folder, out, dirs_exist_ok=True)

    machine("here")
    model, _ = trained(resolve_model(EMBEDDED_MODEL), LORA, items)
    save_model(model, tiny_model_folder, tmp_path / "adapter", ModelSettings())
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smollm2-135m"
    for file in (tmp_path / "adapter").glob("*token*"):  # and the tokenizer is the base's
        file.unlink()
    (tmp_path / "adapter" / "manifest.json").unlink()

    shutil.rmtree(tmp_path / "here")
    machine("there")
    loaded = load_model(tmp_path / "adapter", torch.float32)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-4)
    ids = load_tokenizer(tiny_model_folder).encode("Who wrote Dune?")
    assert load_tokenizer(tmp_path / "adapter").encode("Who wrote Dune?") == ids
    again = load_trainable(tmp_path / "adapter", LORA, CPU)
    assert same_weights(again, model)
