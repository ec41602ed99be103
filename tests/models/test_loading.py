"""What is loaded is what the files hold, and nothing in them is run."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from exsearch.engines.local.engine import TransformersEngine  # noqa: E402
from exsearch.errors import ModelError  # noqa: E402
from exsearch.models.folder import check_weights, shape_of, whole_model  # noqa: E402
from exsearch.models.loading import load_adapter, load_model, load_tokenizer  # noqa: E402
from exsearch.models.lora import is_plain  # noqa: E402
from exsearch.models.settings import ModelSettings  # noqa: E402
from exsearch.runs import new_folder  # noqa: E402
from exsearch.training.checkpoint import load_trainable, save_model  # noqa: E402
from exsearch.training.recipe import MStepConfig  # noqa: E402

IDS = torch.tensor([[5, 6, 7, 30]])
CPU = torch.device("cpu")


def with_whole_model(folder):
    with whole_model(str(folder), "float32"):
        pass


LOADERS = {
    "engine": lambda folder: TransformersEngine(folder, device="cpu"),
    "checkpoint": lambda folder: load_trainable(folder, MStepConfig(), CPU),
    "vLLM's folder": with_whole_model,
}
loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


@pytest.fixture(scope="module")
def adapter_folder(tiny_model_folder, tmp_path_factory):
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(load_model(tiny_model_folder, "float32"), config)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_" in name:
                p.fill_(0.1)
    place = tmp_path_factory.mktemp("adapter") / "adapter"
    adapted.save_pretrained(place)
    load_tokenizer(tiny_model_folder).save_pretrained(place)
    return place


def change_tensors(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def change_json(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def without(*parts):
    return lambda tensors: [tensors.pop(n) for n in list(tensors) if all(p in n for p in parts)]


def renamed(was, now):
    return lambda tensors: [
        tensors.update({n.replace(was, now): tensors.pop(n)}) for n in list(tensors) if was in n
    ]


FAULTS = {
    "gone": (without("layers.1", "up_proj"), {}, r"missing .* 1, the first is .*1\.mlp\.up_proj"),
    "a layer gone": (without("layers.1"), {}, r"missing .* 9, the first is model\.layers\.1\.inp"),
    "more layers": (None, {"num_hidden_layers": 3}, r"missing .* 9, the first is model\.layers\.2"),
    "fewer layers": (None, {"num_hidden_layers": 1}, r"no place for: 9, .* model\.layers\.1\.inp"),
    "other name": (renamed("norm", "ln"), {}, r"missing .* 5, the first is .*input_layernorm"),
    "not tied": (None, {"tie_word_embeddings": False}, r"missing .* 1, the first is lm_head"),
    "other shape": (None, {"intermediate_size": 64}, r"another shape .* 6, the first .*down_proj"),
    "one too many": (lambda t: t.update(more=torch.ones(1)), {}, r"no place for: 1, .* is more"),
}


@loaders
@pytest.mark.parametrize("fault", FAULTS)
def test_a_tensor_that_is_not_in_the_files_is_not_made_up(folder, load, fault):
    change, config, message = FAULTS[fault]
    if change:
        change_tensors(folder / "model.safetensors", change)
    change_json(folder / "config.json", **config)
    with pytest.raises(ModelError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    "model",
    [
        lambda: LlamaForCausalLM(LlamaConfig(
            vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2, tie_word_embeddings=True,
        )),
        lambda: GPTNeoXForCausalLM(GPTNeoXConfig(
            vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=0, eos_token_id=0,
        )),
    ],
)  # fmt: skip
def test_tied_weights_and_buffers_of_older_versions_are_no_fault(model, tmp_path):
    made = model()
    made.save_pretrained(tmp_path)
    old = {
        "LlamaForCausalLM": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)},
        "GPTNeoXForCausalLM": {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)},
    }[type(made).__name__]
    change_tensors(tmp_path / "model.safetensors", lambda tensors: tensors.update(old))
    ids = IDS % 20
    assert torch.equal(load_model(tmp_path, "float32")(ids).logits, made.eval()(ids).logits)


def test_an_adapter_is_loaded_as_it_was_saved(tiny_model_folder, adapter_folder):
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype="float32")
    expected = peft.PeftModel.from_pretrained(base, str(adapter_folder))(IDS).logits
    trainable = load_adapter(adapter_folder, "float32", trainable=True)
    assert torch.equal(trainable(IDS).logits, expected)
    assert {n.split(".")[-3] for n, p in trainable.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }
    merged = load_model(adapter_folder, "float32")
    assert torch.allclose(merged(IDS).logits, expected, atol=1e-4)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]


def test_a_plain_adapter_is_added_with_the_bits_of_peft_and_without_it(
    adapter_folder, tmp_path, monkeypatch
):
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")

    def draw(tensors):
        tensors.update({name: torch.randn_like(tensor) for name, tensor in tensors.items()})

    change_tensors(folder / "adapter_model.safetensors", draw)
    change_json(folder / "adapter_config.json", lora_alpha=11)
    expected = load_adapter(folder, "float32").merge_and_unload().state_dict()
    with monkeypatch.context() as without_peft:
        without_peft.setitem(sys.modules, "peft", None)
        added = load_model(folder, torch.float32).state_dict()
    assert added.keys() == expected.keys()
    assert all(torch.equal(added[name], expected[name]) for name in expected)
    for setting in ({"use_rslora": True}, {"alpha_pattern": {"up_proj": 4}}, {"new": 0}):
        assert not is_plain({**json.loads((folder / "adapter_config.json").read_text()), **setting})
    change_json(folder / "adapter_config.json", use_rslora=True)
    other = load_model(folder, "float32").state_dict()
    assert not torch.equal(
        other["model.layers.0.mlp.up_proj.weight"], added["model.layers.0.mlp.up_proj.weight"]
    )


ADAPTER_FAULTS = {
    "gone": (without("layers.1", "up_proj", "lora_B"), {}, r"missing .* 1, .*up_proj\.lora_B"),
    "other names": (renamed("model.model", "model.gpt"), {}, r"missing .* 28, .*down_proj\.lora_A"),
    "too many": (
        lambda t: t.update({"base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": IDS}),
        {}, r"no place for: 1, .*layers\.7",
    ),
    "other rank": (None, {"r": 4}, "size mismatch"),
    "no base": (None, {"base_model_name_or_path": None}, "without a base model"),
    "prompts": (None, {"peft_type": "PROMPT_TUNING"}, "of type PROMPT_TUNING can't be merged"),
    "unknown": (None, {"peft_type": "NEW"}, "can't load the model .*KeyError"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_an_adapter_that_is_not_whole_is_refused(adapter_folder, tmp_path, fault):
    change, config, message = ADAPTER_FAULTS[fault]
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    if change:
        change_tensors(folder / "adapter_model.safetensors", change)
    change_json(folder / "adapter_config.json", **config)
    for load in (load_adapter, load_model):
        with pytest.raises(ModelError, match=message) as error:
            load(folder, "float32")
        assert "\n" not in str(error.value)


def test_an_adapter_on_an_adapter_is_refused(adapter_folder, tmp_path):
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    change_json(folder / "adapter_config.json", base_model_name_or_path=str(adapter_folder))
    with pytest.raises(ModelError, match=r"its base .* is an adapter, too: merge that first"):
        load_model(folder, "float32")


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_pickle_is_not_read(folder, adapter_folder, tmp_path, kind):
    if kind == "adapter":
        folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    (file,) = folder.glob("*model.safetensors")
    torch.save(load_file(file), folder / f"{'pytorch_' * (kind == 'model')}{file.stem}.bin")
    file.unlink()
    for load in (LOADERS["engine"], LOADERS["vLLM's folder"]):
        with pytest.raises(ModelError, match=r"\.safetensors"):
            load(folder)
    with pytest.raises(ModelError, match=r"\.safetensors"):
        load_trainable(folder, MStepConfig(lora_rank=2, lora_alpha=8), CPU)


CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Own: pass\n"


@loaders
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_code_that_comes_with_a_model_is_neither_run_nor_asked_for(
    folder, tmp_path, monkeypatch, capsys, load, file
):
    marker = tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    own = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own"}
    change_json(
        folder / file, auto_map={**own, "AutoModelForCausalLM": "own.Own"},
        tokenizer_class="Own", model_type="own",
    )  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
    if file == "config.json" or load is LOADERS["engine"]:
        with pytest.raises(ModelError, match="custom code"):
            load(folder)
    else:  # the tokenizer is loaded when the model is written
        with pytest.raises(ModelError, match="custom code"):
            load_tokenizer(folder)
    assert not marker.exists()
    assert sys.stdin.read() == "y\ny\ny\n"
    assert "y/N" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "values",
    [
        {"_attn_implementation": "strangers/kernels"},
        {"attn_implementation": "strangers/kernels"},
        {"experts_implementation": "strangers/kernels", "fusion_config": {"own": {}}},
        {"transformers_weights": "adapter_model.bin"},
    ],
)
def test_a_config_does_not_choose_the_code_that_runs(folder, tiny_model_folder, values):
    change_json(folder / "config.json", **values)
    model = load_model(folder, "float32")
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert torch.equal(model(IDS).logits, load_model(tiny_model_folder, "float32")(IDS).logits)


def test_weights_of_another_architecture_are_refused(folder):
    shape = shape_of(str(folder))
    check_weights(str(folder), shape)
    change_json(folder / "config.json", num_key_value_heads=4)
    with pytest.raises(ValueError, match=r"another architecture \(num_key_value_heads 4, not 2\)"):
        check_weights(str(folder), shape)


@pytest.fixture(scope="module")
def written(tiny_model_folder, tmp_path_factory):
    """A model folder that was written here, with its manifest."""
    place = tmp_path_factory.mktemp("written") / "model"
    save_model(load_model(tiny_model_folder, "float32"), tiny_model_folder, place, ModelSettings())
    return place


def flip(file):
    """Alter one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


FILES = ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
         "tokenizer_config.json", "exsearch.json", "chat_template.jinja"]  # fmt: skip


@loaders
@pytest.mark.parametrize("damage", [flip, lambda file: file.unlink()], ids=["altered", "gone"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_model_is_refused_where_it_is_used(written, tmp_path, load, name, damage):
    folder = shutil.copytree(written, tmp_path / "model")
    damage(folder / name)
    with pytest.raises(ModelError, match=rf"{name}: (altered|missing).*delete it.*--no-verify"):
        load(folder)


def test_new_weights_of_an_engine_are_verified(written, tiny_model_folder, tmp_path):
    engine = TransformersEngine(tiny_model_folder, device="cpu")
    model, folder = engine.model, shutil.copytree(written, tmp_path / "model")
    flip(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors: altered"):
        engine.load_weights(folder)
    assert engine.model is model


def test_the_base_of_an_adapter_is_verified(written, adapter_folder, tmp_path):
    base = shutil.copytree(written, tmp_path / "base")
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    change_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    load_model(folder, "float32")
    flip(base / "tokenizer.json")
    for load in (load_model, load_adapter):
        with pytest.raises(ModelError, match=r"base/tokenizer\.json: altered"):
            load(folder, "float32")


@loaders
def test_what_is_not_verified(tiny_model_folder, tmp_path, monkeypatch, load):
    others = shutil.copytree(tiny_model_folder, tmp_path / "others")
    (others / "manifest.json").write_text('{"name": "a page", "icons": []}')
    load(others)
    with new_folder(tmp_path / "model") as folder:
        shutil.copytree(tiny_model_folder, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text("A model.")
    folder = tmp_path / "model"
    flip(folder / "README.md")
    monkeypatch.setenv("EXSEARCH_VERIFY", "0")
    load(folder)
    monkeypatch.setenv("EXSEARCH_VERIFY", "1")
    with pytest.raises(ModelError, match="altered"):
        load(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json: damaged"):
        load(folder)


@pytest.mark.parametrize("special", [False, True])
def test_a_tokenizer_that_writes_ids_without_an_embedding_is_refused(folder, special):
    tokenizer = load_tokenizer(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    missing = size + 1 - len(tokenizer)
    assert missing > 0
    tokenizer.add_tokens([f"word{n}" for n in range(missing)], special_tokens=special)
    tokenizer.save_pretrained(folder)
    if special:  # no text becomes such a token, so it can do no harm
        assert TransformersEngine(folder, device="cpu").tokenizer.encode("a")
        return
    with pytest.raises(ModelError, match=f"writes the id {size}, its model has {size} embeddings"):
        TransformersEngine(folder, device="cpu")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[]", '{"base_model_name_or_path": 3}', "9" * 5000]
)
def test_a_damaged_adapter_config_is_refused(folder, text):
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json: damaged|can't load|an adapter"):
        load_trainable(folder, MStepConfig(lora_rank=2), CPU)
    with pytest.raises(ModelError):
        TransformersEngine(folder, device="cpu")
