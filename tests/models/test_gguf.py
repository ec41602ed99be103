"""A GGUF file is converted once, with its tokenizer, and a head that was tied is tied again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

from exsearch.errors import ModelError  # noqa: E402
from exsearch.models.loading import load_model, load_tokenizer  # noqa: E402
from exsearch.models.settings import resolve_model  # noqa: E402

WIDTH, INNER, HEADS = 32, 64, 4


def write_model(file: Path, *, head: str) -> np.ndarray:
    """A llama of one layer over bytes; its head is the embedding again, another matrix or missing.

    Returns:
        The embedding (V, D).
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*bytes_to_unicode().values(), "th", "<|endoftext|>"]
    draw = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return draw.normal(size=(rows, columns)).astype(np.float32)

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(len(tokens) - 1)
    embedding = matrix(len(tokens), WIDTH)
    writer.add_tensor("token_embd.weight", embedding)
    if head == "twice":  # as two quantisations of one matrix
        writer.add_tensor("output.weight", embedding + 0.02 * matrix(len(tokens), WIDTH))
    if head == "own":
        writer.add_tensor("output.weight", matrix(len(tokens), WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", matrix(WIDTH, WIDTH))
    for name in ("ffn_gate", "ffn_up"):
        writer.add_tensor(f"blk.0.{name}.weight", matrix(INNER, WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", matrix(WIDTH, INNER))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return embedding


@pytest.mark.parametrize(("head", "tied"), [("missing", True), ("twice", True), ("own", False)])
def test_a_file_is_converted_once(tmp_path, monkeypatch, caplog, head, tied):
    monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / "cache"))
    embedding = write_model(tmp_path / "Small.GGUF", head=head)
    with caplog.at_level(logging.WARNING):
        folder = resolve_model(tmp_path / "Small.GGUF")
    assert "is converted into" in caplog.text
    model = load_model(folder, torch.float32)
    assert model.config.tie_word_embeddings is tied
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    weight = model.model.embed_tokens.weight.detach().numpy()
    assert np.abs(weight - embedding).max() < (0.2 if head == "twice" else 1e-6)
    tokenizer = load_tokenizer(folder)
    text = "the thé  <|endoftext|>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text and ids[-1] == len(tokenizer) - 1
    caplog.clear()
    assert Path(resolve_model(tmp_path / "Small.GGUF")) == Path(folder)
    assert not caplog.text


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no such format"])
def test_a_file_that_is_none_is_one_line(tmp_path, monkeypatch, content):
    monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        resolve_model(tmp_path / "bad.gguf")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'bad.gguf'}: no GGUF file that can be")
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())
    with pytest.raises(ModelError, match="no such name or folder"):
        resolve_model(tmp_path / "none.gguf")
