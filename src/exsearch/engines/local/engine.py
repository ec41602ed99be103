"""The transformers engine runs a causal language model here, on CPU or GPU, batched.

It owns the model and its cache; `batching` writes with them, `scoring` scores. It trains nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from exsearch.engines.base import Generation, Request, Sampling, Session, TooLongError
from exsearch.engines.chat import HuggingFaceChat
from exsearch.engines.config import ModelConfig
from exsearch.engines.local.batching import ContinuousBatch
from exsearch.engines.local.cache import KeyValueCache, suitable_capacity
from exsearch.engines.local.scoring import tail_log_probs
from exsearch.engines.local.trial import check_cacheable
from exsearch.errors import EngineError, ModelError
from exsearch.hardware import give_memory_back, usable_memory
from exsearch.models.attention import packed_attention
from exsearch.models.linear import PackedWeights
from exsearch.models.loading import load_model, load_tokenizer, loading
from exsearch.models.settings import resolve_model


class TransformersEngine:
    """`Engine` over a transformers model in this process.

    Args:
        folder: A local folder in the Hugging Face layout, or a Hugging Face id; a PEFT adapter
            folder loads with its base model.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        batch_size: The number of sequences written side by side.
        token_budget: The most prompt tokens in one pass; 0 takes what suits the device.
        cache_tokens: The number of tokens whose keys and values are kept for prompts that begin
            alike; more are kept where the prompts of one pass need more. None takes what suits the
            machine's memory (`suitable_capacity`), the same at each run on it.
        template_kwargs: Variables for the chat template.
        system_prompt: A system turn before every chat; None leaves it to the chat template.

    Attributes:
        encoded_tokens: The prompt tokens put through the model so far.
        decoded_tokens: The written tokens put through the model so far.
        stop_ids: The ids that end a sequence.

    Raises:
        ValueError: `cache_tokens` is below 0.
        ModelError: no such model, or not a causal language model.
    """

    trains = scores = streams = True
    has_server = False
    options: ClassVar[tuple[str, ...] | None] = ("cache_tokens",)

    def __init__(
        self,
        folder: str | Path,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 64,
        token_budget: int = 0,
        cache_tokens: int | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
    ):
        if cache_tokens is not None and cache_tokens < 0:
            raise ValueError(f"cache_tokens is {cache_tokens}, expected 0 or more")
        self.device = _device(device)
        self.folder = str(folder)
        # float32 on a CPU: bfloat16 is several times slower on most of them.
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model: Any = None
        self.load_weights(self.folder)
        hf_tokenizer = load_tokenizer(self.folder)
        self.tokenizer = HuggingFaceChat(hf_tokenizer, template_kwargs, system_prompt)
        self._check_embedded()
        self.rows = batch_size
        self.token_budget = token_budget or (32768 if self.device.type == "cuda" else 2048)
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        self.encoded_tokens = self.decoded_tokens = 0  # put through the model so far
        if cache_tokens is None:
            memory = _memory(self.device)
            cache_tokens = suitable_capacity(
                self.model.config.get_text_config(), self.dtype, memory
            )
        self.cache_tokens = cache_tokens
        self._cache = KeyValueCache(cache_tokens, batch_size, self.device)
        self._session: _Guarded | None = None
        self.stop_ids = {self.tokenizer.end_id, *([ends] if isinstance(ends, int) else ends or ())}

    @classmethod
    def from_config(cls, config: ModelConfig) -> TransformersEngine:
        """Open the engine that a recipe's `[model]` describes.

        Raises:
            ModelError: no such model, or one that the engine can't run.
        """
        name, options = resolve_model(config.name), config.engine_options
        return cls(name, **config.local_settings, **options)

    def load_weights(self, folder: str | Path) -> None:
        """Take over the weights of a checkpoint folder of the same architecture.

        Raises:
            ModelError: it can't be loaded; the weights are then those from before.
        """
        with loading(folder):
            model = load_model(folder, self.dtype).to(self.device).eval()
            check_cacheable(model)
        self.model = model
        self._context = _context(model.config.get_text_config())
        self._packed = PackedWeights(self.model)
        self._cached_weights = None  # the cache holds what other weights computed

    def release(self) -> None:
        """Give back the memory of weights and cache (`Engine.release`)."""
        if self._session:
            self._session.over = "the weights of its engine were given back"
        self.model = self._packed = self._session = self._cached_weights = None
        self._cache = KeyValueCache(self.cache_tokens, self.rows, self.device)
        give_memory_back()

    def open(self) -> Session:
        """A new session with an empty cache; it ends the session before it."""
        if self._session:
            self._session.over = "another session of this engine was opened"
        self._session = _Guarded(
            ContinuousBatch(
                self.model,
                self._fresh_cache(),
                self.stop_ids,
                self.token_budget,
                self._check_length,
                self._count,
            ),
            self._inference,
        )
        return self._session

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One generation a request, in their order (`Engine.generate`).

        Raises:
            EngineError: a request does not fit the model's context, or the model can't be run.
        """
        for request in requests:
            self._check_length(len(request.prompt_ids) + request.max_tokens)
        session = self.open()
        # Like prompts one after the other: they share passes, and what they have in common.
        order = sorted(range(len(requests)), key=lambda i: requests[i].prompt_ids)
        number = {session.submit(requests[i], sampling): i for i in order}
        done: dict[int, Generation] = {}
        while session.busy:
            for ticket, reply in session.step():
                if isinstance(reply, EngineError):
                    raise reply
                done[number[ticket]] = reply
        return [done[i] for i in range(len(requests))]

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token after its prompt (`Engine.log_prob`).

        What the cache knows of a prompt, from a rollout just done, is not encoded again.

        Raises:
            ValueError: a prompt is empty.
            TooLongError: a pair does not fit the model's context.
            EngineError: the model can't be run.
        """
        pairs = [(tuple(p), tuple(c)) for p, c in zip(prompts, continuations, strict=True)]
        for prompt, continuation in pairs:
            if not prompt:
                raise ValueError("an empty prompt: nothing predicts the first token")
            self._check_length(len(prompt) + len(continuation))
        known: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, ...]] = {}
        cache = self._cache if self._weights() == self._cached_weights else self._fresh_cache()
        with self._inference():
            for pair, scores, encoded in tail_log_probs(
                self.model, cache, sorted({p for p in pairs if p[1]}), self.token_budget
            ):
                known[pair] = scores
                self._count(encoded, 0)
        return [known.get(pair, ()) for pair in pairs]

    def _fresh_cache(self) -> KeyValueCache:
        if self._cache.tree.capacity != self.cache_tokens:
            # One that grew would forget later, and batches, with their last bits, would differ.
            self._cache = KeyValueCache(self.cache_tokens, self.rows, self.device)
        self._cache.tree.clear()
        self._cached_weights = self._weights()
        return self._cache

    def _weights(self) -> tuple[int, int] | None:
        """A value that changes whenever the weights do, by loading or by training.

        It does not where someone writes through `p.data`, or switches a PEFT adapter: load anew
        then.
        """
        if self.model is None:
            raise EngineError("this engine's weights were given back: load some first")
        return id(self.model), sum(p._version for p in self.model.parameters())

    def _count(self, encoded: int, decoded: int) -> None:
        self.encoded_tokens += encoded
        self.decoded_tokens += decoded

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        """Let the model run packed and without gradients; lack of memory is an EngineError."""
        was_training = self.model.training
        if was_training:
            self.model.eval()
        try:
            with torch.inference_mode(), packed_attention(self.model, self._packed):
                yield
        except BaseException as error:
            self._cache.tree.clear()  # places whose pass was broken off were never written
            if not isinstance(error, torch.OutOfMemoryError):
                raise
            raise EngineError(
                f"the device ran out of memory: lower batch_size ({self.rows}), token_budget "
                f"({self.token_budget}) or engine_options.cache_tokens ({self.cache_tokens}): in a "
                "recipe's [model], or --batch-size, --token-budget, --engine-option cache_tokens=N"
            ) from error
        finally:
            if was_training:
                self.model.train()

    def _check_embedded(self) -> None:
        """Refuse a tokenizer that writes an id which the model has no embedding for."""
        hf, probe = (
            self.tokenizer.hf,
            self.tokenizer.encode_chat([{"role": "user", "content": "a"}]),
        )
        added = (id_ for id_, t in hf.added_tokens_decoder.items() if not t.special)
        highest = max(hf.vocab_size - 1, self.tokenizer.end_id, *probe, *added)
        embedded = self.model.get_input_embeddings().weight.shape[0]
        if highest >= embedded:
            raise ModelError(
                f"{self.folder}: its tokenizer writes the id {highest}, its model has {embedded} "
                "embeddings: they don't belong together; copy or save the model anew"
            )

    def _check_length(self, tokens: int) -> None:
        if self._context and tokens > self._context:
            raise TooLongError(
                f"a sequence of {tokens} tokens does not fit the model's {self._context}: lower "
                "method.passages, method.passage_words or method.max_steps"
            )


class _Guarded:
    """A session whose steps run under the engine's guard: no gradients, memory errors named.

    After an error in a step, or once the engine has opened another session, it is over.
    """

    def __init__(self, batch: ContinuousBatch, guard: Callable[[], AbstractContextManager[None]]):
        self._batch, self._guard = batch, guard
        self.submit, self.cancel, self.written = batch.submit, batch.cancel, batch.written
        self.over = ""  # why, once it is

    @property
    def busy(self) -> bool:
        return self._batch.busy

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        if self.over:
            raise EngineError(f"this session is over: {self.over}")
        with self._guard():
            self.over = "an error broke it off"
            done = self._batch.step()
            self.over = ""
            return done


def _context(config: Any) -> int | None:
    """Tokens of the longest sequence; None where the model sets no limit.

    With longrope, frequencies change where the longest sequence of a pass is beyond the original
    length, so that sequences that share a pass would change one another: that length is the limit.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *(p for p in rope.values() if isinstance(p, dict))):
        if part.get("rope_type") == "longrope":
            return part["original_max_position_embeddings"]
    return getattr(config, "max_position_embeddings", None)


def _memory(device: torch.device) -> int:
    """Bytes of memory that the device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return usable_memory()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("--device cuda: no CUDA device is visible; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
