"""A model's settings are which model is run, by which engine, and how.

What an engine makes of them is checked in `engines.check_engine`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from exsearch.config import check_least

CACHE_SHARE = 1 / 8  # of the memory, for the keys and values that an engine here keeps


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model to start from and how it is run.

    Attributes:
        name: `smollm2-135m`, a Hugging Face id, a folder, or a finished run; with engine `openai`
            the server's own name for the model.
        engine: `transformers`, `vllm`, `openai`, `scripted`, or a name that another package
            registered.
        device: The device that runs the model: `auto`, `cpu` or `cuda`.
        batch_size: The number of sequences decoded together, or of requests under way at once.
        token_budget: The most prompt tokens in one pass; 0 takes what suits the device.
        system_prompt: The system turn; None keeps the chat template's own, empty saves its tokens.
        chat_template_kwargs: Variables for the chat template.
        base_url: The server's address, for engine `openai` alone, such as
            `http://localhost:8000/v1`.
        api_key_env: The environment variable that holds the server's key, whose name ends in
            `_API_KEY`; it may be unset.
        engine_options: The engine's own settings (`docs/engines.md`); `transformers` takes
            `cache_tokens`.
    """

    name: str = "smollm2-135m"
    engine: str = "transformers"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = 64
    token_budget: int = 0
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    engine_options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, token_budget=0)

    @property
    def local_settings(self) -> dict[str, Any]:
        """The arguments that an engine of models on this machine takes, besides the model."""
        return {
            "device": self.device,
            "batch_size": self.batch_size,
            "token_budget": self.token_budget,
            "template_kwargs": self.chat_template_kwargs,
            "system_prompt": self.system_prompt,
        }
