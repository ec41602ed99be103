"""An encoder turns queries and passages into vectors whose dot products say how well they match.

It is a model of sentence-transformers, used as the model's own files say: its prompts, its pooling,
its length, its similarity. It keeps no vectors and searches nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from exsearch.errors import ModelError
from exsearch.records import Passage
from exsearch.retrievers.model_files import DEFAULT_MODEL, hash_model, load_model
from exsearch.retrievers.native import native

_BATCH_SIZES = {"cpu": 8}  # a small batch stays in a CPU's caches
_BATCH_SIZE = 128  # elsewhere
_MOST_CHARACTERS = 200_000  # of a text; what stands behind is far beyond a model's length


def passage_text(passage: Passage) -> str:
    """The text of a passage that a model reads: its title, if it has one, and its text."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


class Encoder:
    """A sentence-transformers model. Threads may share it; they take turns.

    Args:
        model: The `SentenceTransformer`.
        facts: What determines its vectors.
        batch_size: The number of texts that go through the model at once; 0 takes what suits the
            device.

    Attributes:
        facts: What determines the vectors: the hashes of the model's files, and what they say about
            prompts, length and similarity.
        similarity: `cosine`, where vectors are made of length 1 here, or `dot`.
        dimensions: The number of values of a vector.

    Example:
        >>> encoder = Encoder.open()  # doctest: +SKIP
        >>> encoder.passages(["Dune is a novel."]) @ encoder.queries(["Who wrote Dune?"]).T
    """

    def __init__(self, model: Any, facts: dict[str, Any], batch_size: int = 0):
        self._model = model
        self._lock = threading.Lock()  # a tokenizer's settings change while it works
        self._batch_size = batch_size or _BATCH_SIZES.get(model.device.type, _BATCH_SIZE)
        self.facts = facts
        self.similarity: str = facts["similarity"]
        self.dimensions: int = facts["dimensions"]

    @classmethod
    def open(
        cls, model: str = DEFAULT_MODEL, *, device: str = "auto", batch_size: int = 0
    ) -> Encoder:
        """Load a model.

        Args:
            model: A folder, a Hugging Face id, or `all-MiniLM-L6-v2`, which comes from a package.
            device: A torch device such as `cpu`; `auto` takes an accelerator where there is one.
            batch_size: The number of texts that go through the model at once; 0 takes what suits
                the device.

        Raises:
            ModelError: it can't be found or loaded, or compares by something else than cosine or
                dot product.
            MissingExtraError: sentence-transformers is not installed.
        """
        loaded, folder = load_model(model, "SentenceTransformer", device=device)
        similarity, dimensions = loaded.similarity_fn_name, loaded.get_embedding_dimension()
        if similarity not in ("cosine", "dot"):
            raise ModelError(f"{model} compares by {similarity}; an encoder needs cosine or dot")
        prompts = {"query": loaded.prompts["query"], "passage": passage_prompt(loaded.prompts)}
        facts = {
            "files": hash_model(folder),
            "prompts": prompts,
            "modules": [type(module).__name__ for module in loaded],
            "max_tokens": loaded.max_seq_length,
            "dimensions": loaded.truncate_dim or dimensions,
            "similarity": similarity,
        }
        return cls(loaded, facts, batch_size)

    @property
    def identity(self) -> str:
        """A text that names what determines the vectors, with no path."""
        text = json.dumps(self.facts, sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of queries: float32 (texts, dimensions).

        Raises:
            ModelError: the model gives what is no number.
        """
        return self._encode(self._model.encode_query, "query", texts)

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of passages: float32 (texts, dimensions).

        Texts of like length go through the model together, so a few thousand at once are quick.

        Raises:
            ModelError: the model gives what is no number.
        """
        return self._encode(self._model.encode_document, "passage", texts)

    def _encode(
        self, encode: Callable[..., np.ndarray], prompt: str, texts: Sequence[str]
    ) -> np.ndarray:
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        clean = [t[:_MOST_CHARACTERS].encode("utf-8", "replace").decode() for t in texts]
        with native(), self._lock:
            vectors = encode(
                clean,
                prompt=self.facts["prompts"][prompt],
                batch_size=self._batch_size,
                show_progress_bar=False,
            )
        vectors = np.ascontiguousarray(vectors, np.float32)
        if not np.isfinite(vectors).all():
            raise ModelError("the model gives vectors that are not finite numbers")
        if self.similarity == "cosine":
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.where(norms > 0, norms, 1)
        return vectors


def passage_prompt(prompts: dict[str, str]) -> str:
    """What stands before a passage, under the first of the names in use that says something.

    sentence-transformers itself stops at `document`, which it sets to nothing where it is missing.
    """
    names = ("document", "passage", "corpus")
    return next((prompts[name] for name in names if prompts.get(name)), "")
