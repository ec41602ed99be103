"""A scorer says how well a passage answers a query, by a model that has read both.

The model is a cross-encoder, which reads the two together; a bi-encoder, whose vectors of the two
are compared; or a late-interaction model, which compares the vectors of their tokens. It is used
as its own files say. It finds nothing: `rerank` gives it what was found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from exsearch.errors import ModelError
from exsearch.json_files import read_json
from exsearch.retrievers.encoder import Encoder, passage_prompt
from exsearch.retrievers.model_files import find_model, hash_model, load_model
from exsearch.retrievers.native import native

ScoreBy = Literal["cross-encoder", "bi-encoder", "late-interaction"]
Pair = tuple[str, str]  # a query and a passage

BATCH_SIZE = 32
_MOST_CHARACTERS = 32  # of a text for each token that a model reads; what stands behind is cut
_KINDS: dict[str, ScoreBy] = {
    "CrossEncoder": "cross-encoder",
    "SentenceTransformer": "bi-encoder",
    "MultiVectorEncoder": "late-interaction",
    "ColBERT": "late-interaction",  # as PyLate calls it
}


class Scorer:
    """A model that scores pairs of a query and a passage. Threads may share it; they take turns.

    Args:
        score: A function that scores pairs.
        score_by: How it does that.
        facts: What determines its scores, as plain values.
        max_tokens: The most tokens that the model reads, None where there is no limit.
        at_once: The number of pairs in a turn at the model; None takes all in one.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Pair]], Any],
        score_by: ScoreBy,
        facts: Any,
        max_tokens: int | None = None,
        at_once: int | None = None,
    ):
        self._score, self.score_by, self.facts = score, score_by, facts
        self._longest = _MOST_CHARACTERS * min(max_tokens or 8192, 8192)
        self._at_once = at_once
        self._lock = threading.Lock()  # a tokenizer's settings change while it works

    @classmethod
    def open(
        cls,
        model: str,
        score_by: ScoreBy | None = None,
        *,
        device: str = "auto",
        batch_size: int = BATCH_SIZE,
    ) -> Scorer:
        """Load a model.

        Args:
            model: A folder, a Hugging Face id, or `all-MiniLM-L6-v2`, which comes from a package.
            score_by: How pairs are scored; None takes what the model says that it is.
            device: A torch device such as `cpu`; `auto` takes an accelerator where there is one.
            batch_size: The number of texts that go through the model at once.

        Raises:
            ModelError: it can't be found or loaded, or does not give one score a pair.
            MissingExtraError: sentence-transformers is not installed.
        """
        folder = find_model(model)
        score_by = score_by or kind_of(folder)
        if score_by == "bi-encoder":
            encoder = Encoder.open(model, device=device, batch_size=batch_size)
            return cls(lambda pairs: _compare(encoder, pairs), score_by, encoder.facts)
        facts = {"files": hash_model(folder)}
        if score_by == "cross-encoder":
            loaded, score = _cross_encoder(model, folder, device)
            return cls(score, score_by, facts, loaded.max_seq_length, batch_size)
        loaded, score = _late_interaction(model, folder, device, batch_size)
        return cls(score, score_by, facts, loaded.max_seq_length)

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """How well each passage answers its query; only the order of these numbers has a meaning.

        Args:
            pairs: Queries, each with a passage.

        Raises:
            ModelError: the model gives what is no number.
        """
        if not pairs:
            return []
        clean = [(self._clean(query), self._clean(passage)) for query, passage in pairs]
        order = np.argsort([len(query) + len(passage) for query, passage in clean], kind="stable")
        scores = np.empty(len(pairs))
        size = self._at_once or len(pairs)
        for part in (order[start : start + size] for start in range(0, len(pairs), size)):
            with native(), self._lock:
                scores[part] = self._score([clean[n] for n in part])
        if not np.isfinite(scores).all():
            raise ModelError("the model gives scores that are not finite numbers")
        return scores.tolist()

    def _clean(self, text: str) -> str:
        return text[: self._longest].encode("utf-8", "replace").decode()


def kind_of(folder: Path) -> ScoreBy:
    """What a model says that it is.

    Args:
        folder: The model's folder.

    Raises:
        ModelError: it does not say it.
    """
    own, config = folder / "config_sentence_transformers.json", folder / "config.json"
    said = read_json(own, ModelError).get("model_type") if own.is_file() else None
    if said in _KINDS:
        return _KINDS[said]
    if (folder / "modules.json").is_file():
        return "bi-encoder"
    architectures = read_json(config, ModelError).get("architectures") or [""]
    if architectures == ["HF_ColBERT"]:  # as its authors save it
        return "late-interaction"
    if str(architectures[0]).endswith(("ForSequenceClassification", "ForCausalLM")):
        return "cross-encoder"
    kinds = ", ".join(sorted({*_KINDS.values()}))
    raise ModelError(f"{folder}: does not say how it scores; name one of {kinds}")


def _cross_encoder(model: str, folder: Path, device: str) -> tuple[Any, Any]:
    if (kind := kind_of(folder)) != "cross-encoder":
        raise ModelError(f"{model}: a {kind}, which scores no pair; see exsearch train-reranker")
    loaded, _ = load_model(model, "CrossEncoder", device=device)
    _check_head(loaded, folder)
    if loaded.num_labels != 1:
        raise ModelError(f"{model}: gives {loaded.num_labels} scores a pair, a re-ranker gives one")

    def score(pairs: Sequence[Pair]) -> Any:
        return loaded.predict(list(pairs), batch_size=len(pairs), show_progress_bar=False)

    return loaded, score


def _check_head(model: Any, folder: Path) -> None:
    """Refuse a cross-encoder whose head is in none of its files: it would be made up."""
    from safetensors import safe_open

    held: set[str] = set()
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            held.update(tensors.keys())
    base = f"{model.transformers_model.base_model_prefix}."
    for name, _ in model.transformers_model.named_parameters():
        if not name.startswith(base) and name not in held:
            raise ModelError(f"{folder}: {name} is in none of its files, so it can't score pairs")


def _compare(encoder: Encoder, pairs: Sequence[Pair]) -> np.ndarray:
    """The dot products of the vectors of queries and passages; each text is read once."""
    queries, passages, rows = _distinct(pairs)
    left, right = encoder.queries(queries), encoder.passages(passages)
    return np.einsum("pd,pd->p", left[rows[:, 0]], right[rows[:, 1]])


def _late_interaction(model: str, folder: Path, device: str, batch_size: int) -> tuple[Any, Any]:
    """A model and its score: the sum of maxima (Khattab & Zaharia 2020).

    For each token vector of the query it takes the largest dot product with one of the passage's,
    and adds them up. Markers, the mask tokens that lengthen a query and the signs that are skipped
    are as the model says.
    """
    if kind_of(folder) == "bi-encoder":
        loaded = _tokens_of(load_model(model, "SentenceTransformer", device=device)[0])
    else:
        loaded, _ = load_model(model, "MultiVectorEncoder", device=device)

    def score(pairs: Sequence[Pair]) -> Any:
        queries, passages, rows = _distinct(pairs)
        options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        prompts = loaded.prompts.get("query"), passage_prompt(loaded.prompts)
        left = loaded.encode_query(queries, prompt=prompts[0], **options)
        right = loaded.encode_document(passages, prompt=prompts[1], **options)
        return [sum_of_maxima(left[query], right[passage]) for query, passage in rows]

    return loaded, score


def sum_of_maxima(query: np.ndarray, passage: np.ndarray) -> float:
    """How well a passage's tokens match a query's, by the best match of each token of the query.

    Args:
        query: The vectors of a query's tokens, (tokens, dimensions).
        passage: The vectors of a passage's tokens, (tokens, dimensions).
    """
    if not len(query) or not len(passage):  # of signs alone, all skipped
        return 0.0
    return float((query @ passage.T).max(axis=1).sum())


def _tokens_of(encoder: Any) -> Any:
    """The late-interaction model whose token vectors are those that a bi-encoder pools."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    modules = [encoder[0], MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    prompts, default = encoder.prompts, encoder.default_prompt_name
    return MultiVectorEncoder(
        modules=modules, device=str(encoder.device), prompts=prompts, default_prompt_name=default
    ).eval()


def _distinct(pairs: Sequence[Pair]) -> tuple[list[str], list[str], np.ndarray]:
    """The distinct queries and passages, and the places of each pair in the two: (pairs, 2)."""
    queries: dict[str, int] = {}
    passages: dict[str, int] = {}
    rows = [
        (queries.setdefault(query, len(queries)), passages.setdefault(passage, len(passages)))
        for query, passage in pairs
    ]
    return list(queries), list(passages), np.array(rows)
