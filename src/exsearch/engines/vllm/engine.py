"""The vLLM engine runs a causal language model in vLLM: paged attention, a cache of prefixes.

Token ids go in and come out; vLLM's own tokenizer is not even loaded. It runs in processes of its
own, so a script that uses it needs the guard `if __name__ == "__main__":`. It does not train.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import difflib
import importlib
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from exsearch.engines.base import Generation, Request, Sampling, TooLongError
from exsearch.engines.chat import HuggingFaceChat
from exsearch.engines.config import ModelConfig
from exsearch.engines.session import InTurns
from exsearch.errors import (
    ConfigError,
    EngineError,
    ExSearchError,
    MissingExtraError,
    ModelError,
)
from exsearch.models.folder import check_weights, end_ids, shape_of, whole_model
from exsearch.models.loading import load_tokenizer
from exsearch.models.settings import resolve_model

# What vLLM reads from the environment; a user's own settings stay.
_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout belongs to the command's results
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns of much that is as it should be
    "VLLM_NO_USAGE_STATS": "1",  # nothing is reported to anybody
}
_CPU_CACHE_BYTES = 4 << 30  # vLLM would take nearly all memory, and training runs beside it
_TEMPERATURES = (0.01, 2.0)  # colder ones vLLM warms to the first, hotter ones it refuses
_NOT_OPTIONS = ("model", "tokenizer", "runner", "max_num_batched_tokens")  # set by other settings


class VllmEngine(InTurns):
    """`Engine` over vLLM.

    What a request samples follows from its key alone, up to rounding: how vLLM batches requests
    can move a logit by some 1e-6 (float32; more in bfloat16), and where two tokens are that close
    the other one may be drawn.

    Args:
        folder: A local folder in the Hugging Face layout, or a Hugging Face id; a PEFT adapter is
            merged into its base model first.
        device: The device that vLLM was built for; `auto` takes whichever it is.
        batch_size: The number of sequences decoded together (vLLM's `max_num_seqs`).
        token_budget: The most tokens in one pass (vLLM's `max_num_batched_tokens`); 0 leaves it to
            vLLM.
        options: More arguments of `vllm.LLM`: `gpu_memory_utilization`, `max_model_len`, ….
        template_kwargs: Variables for the chat template.
        system_prompt: A system turn before every chat; None leaves it to the chat template.

    Attributes:
        stop_ids: The ids that end a sequence.
        longest: The most tokens of a sequence that can be run and scored.

    Raises:
        MissingExtraError: vLLM is not installed.
        ModelError: no such model, or vLLM can't run it.
        ConfigError: an option that is not the user's to set.
    """

    trains = scores = True
    has_server = False
    options: ClassVar[tuple[str, ...] | None] = None  # vLLM's own arguments

    def __init__(
        self,
        folder: str | Path,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 64,
        token_budget: int = 0,
        options: Mapping[str, Any] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
    ):
        self._vllm = _import_vllm()
        own = {
            # Log-probs under the distribution that tokens are drawn from; see `generate`.
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # a model's own defaults (top_k, …) would go unseen
            "load_format": "safetensors",  # no pickle
            "trust_remote_code": False,
            "worker_extension_cls": "exsearch.engines.vllm.worker.TakesOverWeights",
            "max_num_seqs": batch_size,
            **({"max_num_batched_tokens": token_budget} if token_budget else {}),
        }
        self.device = torch.device(_built_for(device))  # an M-step may train there, too
        arguments = {
            **_defaults(self.device.type),
            **_checked(options or {}, own, self._vllm),
            **own,
        }
        self._dtype = str(arguments["dtype"])
        with _loading(str(folder)), whole_model(str(folder), self._dtype) as whole:
            hf_tokenizer = load_tokenizer(folder)
            self.tokenizer = HuggingFaceChat(hf_tokenizer, template_kwargs, system_prompt)
            self.stop_ids = {self.tokenizer.end_id, *end_ids(whole)}
            self._shape = shape_of(whole)
            self._llm = self._vllm.LLM(model=whole, **arguments)
        _stop_at_exit(self._llm)
        # One less than vLLM's: to score a sequence, it has to write one token after it.
        self.longest: int = self._llm.model_config.max_model_len - 1

    @classmethod
    def from_config(cls, config: ModelConfig) -> VllmEngine:
        """Open the engine that a recipe's `[model]` describes.

        Raises:
            MissingExtraError: vLLM is not installed.
            ModelError: no such model, or vLLM can't run it.
            ConfigError: an option that is not the user's to set.
        """
        name, options = resolve_model(config.name), config.engine_options
        return cls(name, options=options, **config.local_settings)

    def load_weights(self, folder: str | Path) -> None:
        """Take over the weights of a checkpoint folder of the same architecture, in place.

        Raises:
            ModelError: it can't be loaded. Where that shows before vLLM begins (no model, damaged
                files, another shape) the weights are those from before; otherwise there are none.
        """
        with _loading(str(folder)), whole_model(str(folder), self._dtype) as whole:
            check_weights(whole, self._shape)
            self._llm.collective_rpc("take_over_weights", args=(whole,))
            if not self._llm.reset_prefix_cache():  # it holds what the old weights computed
                raise RuntimeError("vLLM kept its cache of prefixes")

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One generation a request, in their order (`Engine.generate`).

        Raises:
            EngineError: a request does not fit, the temperature is refused, or vLLM failed.
        """
        for request in requests:
            self._check_length(len(request.prompt_ids) + request.max_tokens)
        outputs = self._run(
            [r.prompt_ids for r in requests], [self._parameters(r, sampling) for r in requests]
        )
        written = [output.outputs[0] for output in outputs]
        ids = [tuple(w.token_ids) for w in written]
        drawn = [_log_probs(i, w.logprobs) for i, w in zip(ids, written, strict=True)]
        # vLLM gives one kind of log-prob only: q, of which p follows by scoring, while q can't be
        # had from p where top_p cuts tokens off. When greedy it takes no part of them away: p.
        greedy = sampling.temperature == 0
        scored = (
            drawn
            if greedy or sampling.is_model
            else self.log_prob([r.prompt_ids for r in requests], ids)
        )
        return [
            Generation(i, p, (0.0,) * len(i) if greedy else q, _finish_reason(w))
            for i, p, q, w in zip(ids, scored, drawn, written, strict=True)
        ]

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token after its prompt (`Engine.log_prob`).

        vLLM does not read its cache of prefixes here: it scores the whole sequence.

        Raises:
            TooLongError: a pair does not fit.
            EngineError: vLLM failed.
        """
        sequences = [(*p, *c) for p, c in zip(prompts, continuations, strict=True)]
        result: list[tuple[float, ...]] = [()] * len(sequences)
        some = [i for i, c in enumerate(continuations) if c]
        for i in some:
            self._check_length(len(sequences[i]))
        one_token = self._vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        outputs = self._run([sequences[i] for i in some], [one_token] * len(some))
        for i, output in zip(some, outputs, strict=True):
            start = len(prompts[i])
            result[i] = _log_probs(sequences[i][start:], output.prompt_logprobs[start:])
        return result

    def _parameters(self, request: Request, sampling: Sampling) -> Any:
        """The settings of a request, as vLLM takes them."""
        coldest, hottest = _TEMPERATURES
        if sampling.temperature and not coldest <= sampling.temperature <= hottest:
            raise EngineError(
                f"vLLM can't sample at temperature {sampling.temperature}: "
                f"set it to 0 or from {coldest} to {hottest}"
            )
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=request.key,
            max_tokens=request.max_tokens,
            stop_token_ids=sorted(self.stop_ids),
            ignore_eos=True,  # all that end a turn are among these
            logprobs=0,  # for the sampled token alone
            detokenize=False,
        )

    def _run(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        try:
            outputs = self._llm.generate(
                [self._vllm.TokensPrompt(prompt_token_ids=list(p)) for p in prompts],
                list(parameters),
                use_tqdm=False,
            )
        except Exception as error:  # whatever vLLM, its workers or their transport raise
            raise EngineError(f"vLLM failed: {_first_line(error)}") from error
        # Requests of a call that was interrupted come first, by their number.
        return outputs[-len(prompts) :]

    def _check_length(self, tokens: int) -> None:
        if tokens > self.longest:
            raise TooLongError(
                f"a sequence of {tokens} tokens does not fit the {self.longest} that vLLM runs "
                "this model with: lower method.passages, method.passage_words or method.max_steps"
            )


def _import_vllm() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise MissingExtraError("the vLLM engine", "vllm", str(error)) from None


def _stop_at_exit(llm: Any) -> None:
    """Tell vLLM's processes to end before Python, which may be first to, waits for them forever."""
    alive = weakref.ref(llm)

    def stop() -> None:
        if (running := alive()) is not None:
            running.llm_engine.engine_core.shutdown()

    atexit.register(stop)


def _built_for(device: str) -> str:
    built_for: str = importlib.import_module("vllm.platforms").current_platform.device_type
    if device not in ("auto", built_for):
        raise ModelError(
            f"--device {device}: this vLLM runs on {built_for or 'nothing here'}; "
            "use --device auto, or install vLLM's build for that device"
        )
    return built_for


def _defaults(device: str) -> dict[str, Any]:
    """What the user's options may change."""
    # float32 on a CPU, as with the transformers engine.
    dtype = "float32" if device == "cpu" else "bfloat16"
    defaults: dict[str, Any] = {"dtype": dtype, "use_tqdm_on_load": False}
    if device == "cpu" and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        defaults["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return defaults


def _checked(options: Mapping[str, Any], own: Mapping[str, Any], vllm: Any) -> Mapping[str, Any]:
    """The options, all known to vLLM and none that is set by other settings."""
    known = [field.name for field in dataclasses.fields(vllm.EngineArgs)]
    for name in options:
        if name in own or name in _NOT_OPTIONS:
            raise ConfigError(f"model.engine_options may not set {name!r}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"model.engine_options: vLLM has no argument {name!r}{hint}")
    return options


@contextlib.contextmanager
def _loading(folder: str) -> Iterator[None]:
    """One line for whatever vLLM or transformers raise on a model they can't load."""
    try:
        yield
    except ExSearchError:
        raise
    except Exception as error:
        raise ModelError(f"vLLM can't load the model {folder!r}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or repr(error)


def _log_probs(ids: Sequence[int], found: Sequence[Mapping[int, Any]]) -> tuple[float, ...]:
    return tuple(choices[i].logprob for i, choices in zip(ids, found, strict=True))


def _finish_reason(output: Any) -> Literal["stop", "length"]:
    if output.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM ended a generation by {output.finish_reason!r}")
    return output.finish_reason
