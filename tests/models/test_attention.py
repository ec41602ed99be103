"""A packed pass computes what each of its sequences alone would, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from transformers import (  # noqa: E402
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    NemotronConfig,
    NemotronForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from exsearch.engines.base import GREEDY, Request  # noqa: E402
from exsearch.engines.local.batching import ContinuousBatch  # noqa: E402
from exsearch.engines.local.cache import KeyValueCache  # noqa: E402
from exsearch.errors import ModelError  # noqa: E402
from exsearch.models.attention import (  # noqa: E402
    PassOnly,
    attend_rows,
    packed_attention,
    packed_logits,
)
from exsearch.models.prefixes import shared  # noqa: E402
from exsearch.training.m_step import _enable_gradient_checkpointing  # noqa: E402

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "first_k_dense_replace": 2,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    "mistral, a window of 4": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    # These two don't hand on to their layers what they are called with.
    "stablelm": lambda: StableLmForCausalLM(StableLmConfig(**SMALL)),
    "nemotron": lambda: NemotronForCausalLM(NemotronConfig(**SMALL)),
    "deepseek, values of another size than keys": lambda: DeepseekV3ForCausalLM(
        DeepseekV3Config(**{**SMALL, **LATENT})
    ),
}
SEQUENCES = [(1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 5, 6, 20, 21), (30, 31, 32), (1, 2, 40)]


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def packed_last(model, sequences):
    """Logits after the last token of each sequence, from one pass."""
    ((members, spans),) = shared(sequences, 10**6)
    size = spans[-1].start + spans[-1].new
    ids, positions = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for i, span in zip(members, spans, strict=True):
        ids[span.all_places], positions[span.all_places] = (
            sequences[i],
            np.arange(len(sequences[i])),
        )
    order = sorted(range(len(members)), key=lambda n: members[n])
    wanted = torch.tensor([int(spans[n].all_places[-1]) for n in order])
    store = PassOnly([s for s in spans if s.new], torch.device("cpu"))
    with packed_attention(model):
        tensors = torch.from_numpy(ids), torch.from_numpy(positions)
        return packed_logits(model, *tensors, store, wanted)


def alone_last(model, sequences):
    rows = [model(input_ids=torch.tensor([s]), use_cache=False).logits[0, -1] for s in sequences]
    return torch.stack(rows)


def test_values_and_gradients_are_those_of_each_sequence_alone(model):
    gradients = []
    for last in (packed_last, alone_last):
        model.zero_grad()
        logits = last(model, SEQUENCES)
        (logits.log_softmax(-1)[:, 7] * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
        gradients.append((logits, torch.cat([p.grad.flatten() for p in model.parameters()])))
    (packed, packed_grad), (alone, alone_grad) = gradients
    assert torch.allclose(packed, alone, atol=1e-5)
    assert torch.allclose(packed_grad, alone_grad, atol=1e-4 * alone_grad.abs().max().item())


def test_cached_generation_is_that_of_the_model_alone(model):
    """Greedy, prompts joining while others are being written, two rows for four prompts."""
    cache = KeyValueCache(64, 2, torch.device("cpu"))
    batch = ContinuousBatch(model, cache, (), 8, lambda length: None, lambda *counts: None)
    tickets = [batch.submit(Request(s, 6 + n), GREEDY) for n, s in enumerate(SEQUENCES)]
    replies = {}
    with torch.inference_mode(), packed_attention(model):
        while batch.busy:
            replies |= dict(batch.step())
    for ticket, sequence in zip(tickets, SEQUENCES, strict=True):
        ids = list(sequence)
        for token in replies[ticket].output_ids:
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert logits.argmax() == token
            ids.append(token)


def test_one_token_a_row_attends_to_what_its_row_shows():
    rows, groups, heads, length, width = 3, 2, 2, 5, 4
    made = torch.Generator().manual_seed(0)
    query = torch.randn(rows, groups, heads, width, generator=made)
    key, value = torch.randn(2, rows, groups, length, width, generator=made)
    shown = [5, 1, 3]
    mask = torch.zeros(rows, 1, 1, length)
    for row, count in enumerate(shown):
        mask[row, ..., count:] = -torch.inf

    out = attend_rows(query, key, value, mask, 0.3)

    for row, group, head in np.ndindex(rows, groups, heads):
        seen = range(shown[row])
        scores = [0.3 * float(query[row, group, head] @ key[row, group, i]) for i in seen]
        shares = np.exp(scores) / np.exp(scores).sum()
        expected = sum(share * value[row, group, i] for i, share in zip(seen, shares, strict=True))
        torch.testing.assert_close(out[row, group, head].double(), expected.double())


def test_the_model_is_left_as_it_was(model):
    implementation = model.config._attn_implementation
    before = alone_last(model, SEQUENCES)
    packed_last(model, SEQUENCES)
    with pytest.raises(IndexError):
        packed_last(model, [(1, 10**6)])
    assert model.config._attn_implementation == implementation
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert torch.equal(alone_last(model, SEQUENCES), before)


def test_a_pass_that_is_computed_once_more_backwards():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = MODELS["llama"]().train()
        if checkpointing:
            _enable_gradient_checkpointing(model)
        with packed_attention(model):
            packed_last(model, SEQUENCES).log_softmax(-1)[:, 7].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*gradients)
    model = MODELS["stablelm"]().train()
    _enable_gradient_checkpointing(model)
    refused = pytest.raises(ModelError, match="gradient_checkpointing is not supported here")
    with packed_attention(model), refused:
        packed_last(model, SEQUENCES).sum().backward()
