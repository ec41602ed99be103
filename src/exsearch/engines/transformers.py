"""The transformers engine runs a causal language model here, on CPU or GPU, batched.

Prompts are encoded right-padded; decoding writes into a cache that is allocated once, and rows that
have ended leave the batch. It samples and scores; it does not train.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache
from transformers.cache_utils import CacheLayerMixin

from exsearch.engines.base import Generation, Request, Sampling
from exsearch.engines.chat import HuggingFaceChat
from exsearch.engines.forward import padded, target_log_probs, token_batches
from exsearch.engines.sampling import sample
from exsearch.errors import EngineError, ModelError


class TransformersEngine:
    """`Engine` over a transformers model in this process.

    Args:
        folder: A local folder in the Hugging Face layout, or a Hugging Face id; a PEFT adapter
            folder loads with its base model.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        batch_size: Sequences decoded together.
        token_budget: Tokens in one pass over prompts or scored sequences, padding included; 0
            takes what suits the device.
        template_kwargs, system_prompt: See `HuggingFaceChat`.

    Raises:
        ModelError: no such model, or not a causal language model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 64,
        token_budget: int = 0,
        template_kwargs: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
    ):
        self.device = _device(device)
        self.folder = str(folder)
        # float32 on a CPU: bfloat16 is several times slower on most of them.
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.load_weights(self.folder)
        with _loading(self.folder):
            hf_tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.tokenizer = HuggingFaceChat(hf_tokenizer, template_kwargs, system_prompt)
        self.batch_size = batch_size
        self.token_budget = token_budget or (32768 if self.device.type == "cuda" else 2048)
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        self.stop_ids = {self.tokenizer.end_id, *([ends] if isinstance(ends, int) else ends or ())}

    def load_weights(self, folder: str | Path) -> None:
        """Take over the weights of a checkpoint folder of the same architecture.

        Raises:
            ModelError: it can't be loaded; the weights are then those from before.
        """
        with _loading(str(folder)):
            self.model = _load_model(str(folder), self.dtype).to(self.device).eval()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One generation a request, in their order; see `Engine.generate`."""
        for request in requests:
            self._check_length(len(request.prompt_ids) + request.max_tokens)
        done: list[Generation | None] = [None] * len(requests)
        # Like lengths together: less padding to encode, and to carry through every decoding step.
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt_ids), i))
        with self._inference():
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                for i, generation in zip(
                    batch, self._generate_batch([requests[i] for i in batch], sampling), strict=True
                ):
                    done[i] = generation
        return [g for g in done if g is not None]

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token; see `Engine.log_prob`."""
        sequences = [[*p, *c] for p, c in zip(prompts, continuations, strict=True)]
        result: list[tuple[float, ...]] = [()] * len(sequences)
        with self._inference():
            for batch in token_batches([len(s) for s in sequences], self.token_budget):
                self._check_length(len(sequences[batch[0]]))
                input_ids = padded([sequences[i] for i in batch], self.device)
                targets = torch.zeros_like(input_ids, dtype=torch.bool)
                for row, i in enumerate(batch):
                    targets[row, len(prompts[i]) : len(sequences[i])] = True
                scores = target_log_probs(self.model, input_ids, targets).cpu()
                parts = scores.split([len(continuations[i]) for i in batch])
                for i, part in zip(batch, parts, strict=True):
                    result[i] = tuple(part.tolist())
        return result

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                yield
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"the device ran out of memory: lower model.batch_size ({self.batch_size}) or "
                f"model.token_budget ({self.token_budget})"
            ) from error
        finally:
            self.model.train(was_training)

    def _check_length(self, tokens: int) -> None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit and tokens > limit:
            raise EngineError(
                f"a sequence of {tokens} tokens does not fit the model's {limit}: lower "
                "agent.passages, agent.passage_words or agent.max_steps"
            )

    def _generate_batch(self, requests: list[Request], sampling: Sampling) -> list[Generation]:
        rows = [_Row(r) for r in requests]
        lengths = torch.tensor([len(r.prompt_ids) for r in requests], device=self.device)
        width = int(lengths.max())
        capacity = width + max(r.max_tokens for r in requests)
        cache = _Buffers(_layer_count(self.model), capacity)
        logits = self._encode_prompts(requests, cache)
        # Columns of the cache that a row may attend to: its prompt, then what it writes itself.
        visible = torch.zeros(len(rows), capacity, dtype=torch.bool, device=self.device)
        visible[:, :width] = torch.arange(width, device=self.device) < lengths[:, None]
        live = np.arange(len(rows))
        for step in range(capacity - width):
            keys = np.array([rows[i].request.key for i in live], dtype=np.uint64)
            drawn = sample(logits, keys, np.full(len(live), step, dtype=np.uint64), sampling)
            tokens, log_p, log_q = (values.tolist() for values in drawn)
            for i, token, p, q in zip(live, tokens, log_p, log_q, strict=True):
                rows[i].append(token, p, q, self.stop_ids)
            keep = [n for n, i in enumerate(live) if not rows[i].finished]
            if not keep:
                break
            next_ids = drawn[0][:, None]
            if len(keep) < len(live):
                index = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(index)
                visible, lengths, next_ids = visible[index], lengths[index], next_ids[index]
                live = live[keep]
            visible[:, width + step] = True
            logits = self.model(
                input_ids=next_ids,
                position_ids=(lengths + step)[:, None],
                attention_mask=visible[:, None, None, : width + step + 1],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        return [row.generation() for row in rows]

    def _encode_prompts(self, requests: list[Request], cache: _Buffers) -> Tensor:
        """Fill the cache with all prompts; the logits (B, V) after each prompt's last token.

        Equal prompts (the K samples of a question begin alike) are encoded once. The longest come
        first, so a pass over some rows is hardly padded; passes that fit the processor's cache are
        a third faster than one over all rows.
        """
        numbers: dict[tuple[int, ...], int] = {}
        row_of = [numbers.setdefault(r.prompt_ids, len(numbers)) for r in requests]
        prompts = list(numbers)
        logits: list[Tensor] = []
        for batch in token_batches([len(p) for p in prompts], self.token_budget):
            rows = slice(batch[0], batch[-1] + 1)  # prompts are in the order of the batches
            cache.begin(rows, len(prompts))
            logits.append(self._encode(prompts[rows], cache))
        width = len(prompts[0])
        cache.begin(slice(None), len(prompts), width)
        index = torch.tensor(row_of, device=self.device)
        if len(prompts) < len(requests):
            cache.batch_select_indices(index)
        return torch.cat(logits)[index]

    def _encode(self, prompts: list[tuple[int, ...]], cache: _Buffers) -> Tensor:
        last = torch.tensor([len(p) - 1 for p in prompts], device=self.device)
        rows = torch.arange(len(prompts), device=self.device)
        hook = self.model.get_output_embeddings().register_forward_pre_hook(
            lambda _module, inputs: (inputs[0][rows, last],)
        )
        try:
            input_ids = padded(prompts, self.device)
            return self.model(input_ids=input_ids, past_key_values=cache, use_cache=True).logits
        finally:
            hook.remove()


class _Row:
    """One sequence while it is being written."""

    def __init__(self, request: Request):
        self.request = request
        self.ids: list[int] = []
        self.log_p: list[float] = []
        self.log_q: list[float] = []
        self.stopped = False

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.ids) >= self.request.max_tokens

    def append(self, token: int, log_p: float, log_q: float, stop_ids: set[int]) -> None:
        self.ids.append(token)
        self.log_p.append(log_p)
        self.log_q.append(log_q)
        self.stopped = token in stop_ids

    def generation(self) -> Generation:
        finish: Literal["stop", "length"] = "stop" if self.stopped else "length"
        return Generation(tuple(self.ids), tuple(self.log_p), tuple(self.log_q), finish)


class _Preallocated(CacheLayerMixin):
    """Keys and values of one layer, in buffers allocated once: a step copies one column only."""

    is_sliding = False

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity
        self.begin(slice(None), 0)

    def begin(self, rows: slice, total_rows: int, length: int = 0) -> None:
        """Let the next passes work on these rows, of so many, after `length` tokens."""
        self.rows, self.total_rows, self.length = rows, total_rows, length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (self.total_rows, key_states.shape[1], self.capacity)
        # Zeros, not garbage: what is masked away must still be finite.
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1])
        self.values = value_states.new_zeros(*shape, value_states.shape[-1])
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        keys, values = self.keys[self.rows], self.values[self.rows]
        end = self.length + key_states.shape[-2]
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity

    def batch_select_indices(self, indices: Tensor) -> None:
        assert self.keys is not None and self.values is not None
        self.keys, self.values = self.keys[indices], self.values[indices]


class _Buffers(Cache):
    """The cache of all layers."""

    def __init__(self, layers: int, capacity: int):
        self.preallocated = [_Preallocated(capacity) for _ in range(layers)]
        super().__init__(layers=list(self.preallocated))

    def begin(self, rows: slice, total_rows: int, length: int = 0) -> None:
        """See `_Preallocated.begin`."""
        for layer in self.preallocated:
            layer.begin(rows, total_rows, length)


def _layer_count(model: Any) -> int:
    return model.config.get_text_config().num_hidden_layers


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("--device cuda: no CUDA device is visible; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextlib.contextmanager
def _loading(folder: str) -> Iterator[None]:
    """One line for whatever transformers, PEFT or safetensors raise on a model they can't load."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"can't load the model {folder!r}: {reason}; --model takes smollm2-135m, a "
            "Hugging Face id, a model folder or a finished run"
        ) from error


def _load_model(folder: str, dtype: torch.dtype) -> Any:
    """A causal language model, or a base model with its PEFT adapter; safetensors only, no code."""
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if (Path(folder) / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(folder, **options).merge_and_unload()
    return AutoModelForCausalLM.from_pretrained(folder, **options)
