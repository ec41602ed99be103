"""Tiny models of sentence-transformers, made here: real files, no meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus

PROMPTS = {"query": "find this: ", "passage": "a text: "}


def save_tiny_bert(folder: Path, *, seed: int = 0, width: int = 32) -> None:
    """A BERT of one layer and its tokenizer, whose words are the sample corpus's."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = BertWordPieceTokenizer()
    texts = [passage.text for passage in read_corpus([sample_path("corpus")])]
    words.train_from_iterator(texts, vocab_size=600, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=words._tokenizer, model_max_length=64)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
    )
    BertModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_tiny_encoder(
    folder: Path, *, pooling: str = "cls", seed: int = 0, **settings: Any
) -> None:
    """A `SentenceTransformer` with prompts and, unless told otherwise, no vectors of length 1.

    Args:
        folder: The folder to write.
        pooling: How the tokens' vectors become one.
        seed: Chooses the weights.
        settings: More arguments of `SentenceTransformer`, such as `similarity_fn_name`.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    save_tiny_bert(folder / "bert", seed=seed)
    modules = [Transformer(str(folder / "bert"), max_seq_length=48), Pooling(32, pooling)]
    settings = {"prompts": PROMPTS} | settings
    model = SentenceTransformer(modules=modules, device="cpu", local_files_only=True, **settings)
    model.save(str(folder / "model"), create_model_card=False)
