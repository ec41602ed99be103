"""Tiny models that re-rank, made here: real files, no meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_encoders import save_tiny_bert


def save_tiny_cross_encoder(folder: Path, *, labels: int = 1, seed: int = 0, **more: Any) -> None:
    """A BERT of one layer that reads two texts, as sentence-transformers saves it.

    Args:
        folder: The folder to write; the model is in `folder/model`.
        labels: The number of scores a pair.
        seed: Chooses the weights.
        more: More arguments of `CrossEncoder`.
    """
    import torch
    from sentence_transformers import CrossEncoder

    save_tiny_bert(folder / "bert", seed=seed)
    torch.manual_seed(seed)
    model = CrossEncoder(
        str(folder / "bert"), num_labels=labels, device="cpu", local_files_only=True, **more
    )
    bert: Any = model.transformers_model
    torch.nn.init.normal_(bert.classifier.weight, std=0.5)
    model.save_pretrained(str(folder / "model"), create_model_card=False)


def save_tiny_colbert(folder: Path, *, seed: int = 0) -> None:
    """A late-interaction model: a BERT, a projection, markers, mask tokens, and skipped signs."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    save_tiny_bert(folder / "bert", seed=seed)
    torch.manual_seed(seed)
    modules = [
        Transformer(
            str(folder / "bert"),
            max_seq_length=48,
            query_expansion={"strategy": "fixed", "attend": False, "length": 16},
        ),
        Dense(32, 8, bias=False, activation_function=None, module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=[".", ",", "?"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "q ", "document": "d "}
    model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)
    model.save_pretrained(str(folder / "model"), create_model_card=False)


def save_stanford_colbert(folder: Path, *, seed: int = 0) -> None:
    """A late-interaction model in the form in which ColBERT's authors save theirs."""
    import torch
    from safetensors.torch import load_file, save_file

    save_tiny_bert(folder, seed=seed)
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(seed)
    tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    tensors["linear.weight"] = torch.randn(8, 32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    facts = {"query_maxlen": 12, "doc_maxlen": 40, "attend_to_mask_tokens": False}
    (folder / "artifact.metadata").write_text(json.dumps(facts))
