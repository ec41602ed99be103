"""What the vLLM engine adds to vLLM's own worker processes; only they import it.

vLLM mixes the class below into its worker (`worker_extension_cls`), so its methods can be called by
name, without sending code.
"""

from __future__ import annotations

import importlib
from typing import Any


class TakesOverWeights:
    """Reloads weights in place, tied output embeddings included."""

    model_runner: Any
    reload_weights: Any

    def take_over_weights(self, folder: str) -> None:
        """Replace the model's weights by those in a folder, or of a Hugging Face id."""
        self.reload_weights(weights_path=folder)
        if not importlib.import_module("vllm.platforms").current_platform.is_cpu():
            return
        # On a CPU the output layer multiplies by a packed copy of its weights. vLLM packs anew what
        # the checkpoint names, and it does not name an output layer that is tied to the input's.
        embedding = importlib.import_module(
            "vllm.model_executor.layers.vocab_parallel_embedding"
        ).ParallelLMHead
        for module in self.model_runner.get_model().modules():
            if isinstance(module, embedding):
                module.quant_method.process_weights_after_loading(module)
