"""What the trial lets pass computes what plain transformers does; what would not is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from exsearch.engines.local.trial import check_cacheable  # noqa: E402
from exsearch.errors import ModelError  # noqa: E402
from exsearch.models import trial  # noqa: E402

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 12, "first_k_dense_replace": 1, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
}  # fmt: skip


def made(family, **settings):
    """A random model of a family, far enough from indifferent for any fault to show."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SMALL, **settings})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=0.3)
    return model


PASS = [
    ("llama", {}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}),
    ("qwen3", {"head_dim": 8}),
    ("qwen3_moe", {"head_dim": 8, **EXPERTS}),
    ("mistral", {"sliding_window": 2}),
    ("mistral", {"sliding_window": 4096}),
    ("phi", {}),
    ("phi3", {"sliding_window": 7}),
    ("gemma", {"head_dim": 8}),
    ("gemma3_text", {"head_dim": 8, "sliding_window": 20}),
    ("gpt2", GPT),
    ("gpt_neox", {}),
    ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    ("olmo2", {}),
    ("smollm3", {}),
    ("cohere2", {"head_dim": 8, "sliding_window": 20}),
    ("stablelm", {}),
    ("nemotron", {}),
    ("phimoe", {"sliding_window": None, "num_local_experts": 2}),
    ("deepseek_v2", {**LATENT, "topk_method": "greedy"}),
    ("deepseek_v3", LATENT),
]
OWN = "attends by code of its own"
REFUSED = [
    ("diffllama", {}, "attends twice as layer 0"),
    ("hrm_text", {}, "attends twice as layer 0"),
    ("phimoe", {"sliding_window": 4, "num_local_experts": 2}, "keeps its attention window"),
    ("phimoe", {"sliding_window": 4096, "num_local_experts": 2}, "keeps its attention window"),
    ("doge", {}, "keeps its attention window to itself"),
    ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}, OWN),
    ("falcon", {}, OWN),
    ("falcon", {"alibi": True}, OWN),
    ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}, OWN),
    ("bloom", {"n_layer": 2, "n_head": 4}, OWN),
    ("gptj", {**GPT, "rotary_dim": 4}, OWN),
    ("gemma2", {"head_dim": 8}, "has attention with softcap"),
    ("mamba", {}, "has linear_attention layers"),
    ("rwkv", {}, OWN),
]  # fmt: skip


@pytest.mark.parametrize(("family", "settings"), PASS)
def test_families_with_plain_attention_pass(family, settings):
    model = made(family, **settings)
    window = getattr(model.config, "sliding_window", None)
    ids = torch.arange(12)[None]
    before = model(input_ids=ids, use_cache=False).logits
    check_cacheable(model)
    assert getattr(model.config, "sliding_window", None) == window
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)


@pytest.mark.parametrize(("family", "settings", "reason"), REFUSED)
def test_others_are_refused_with_a_reason(family, settings, reason):
    model = made(family, **settings)
    with pytest.raises(ModelError, match=rf"{type(model).__name__} {reason}") as error:
        check_cacheable(model)
    assert "\n" not in str(error.value)


def test_a_model_that_mixes_tokens_otherwise_is_refused():
    model = made("llama")

    class Mixing(type(model)):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits + out.logits.mean(-2, keepdim=True)
            return out

    model.__class__ = Mixing
    with pytest.raises(ModelError, match="mixes tokens in ways that packing does not know"):
        check_cacheable(model)


def test_recurrent_layers_are_refused():
    model = made("llama")
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ModelError, match="has linear_attention layers, which are not supported"):
        check_cacheable(model)


@pytest.mark.parametrize("error", [ValueError("a\nb"), AssertionError(), KeyError("x")])
def test_whatever_a_model_raises_is_a_model_error(monkeypatch, error):
    model = made("llama")

    def failing(*args, **kwargs):
        raise error

    monkeypatch.setattr(model.model.layers[1].mlp, "forward", failing)
    with pytest.raises(ModelError, match=rf"LlamaForCausalLM can't be run: {type(error).__name__}"):
        check_cacheable(model)


@pytest.mark.parametrize("rounds", [True, False])
def test_what_plain_transformers_rounds_apart_may_differ_as_much(monkeypatch, rounds):
    """A trained model may let rounding grow; it is no fault of the packing."""
    alone, packed = trial._alone, trial._packed

    def noisy(model, pairs, device):
        scores, scale = alone(model, pairs, device)
        return scores + 2e-2 * (rounds and len(pairs) == 1), scale

    def off(*args):
        return [[score + 5e-2 for score in row] for row in packed(*args)]

    monkeypatch.setattr(trial, "_alone", noisy)
    monkeypatch.setattr(trial, "_packed", off)
    model = made("llama")
    if rounds:
        trial.check_packable(model)
    else:
        with pytest.raises(ModelError, match="mixes tokens in ways"):
            trial.check_packable(model)
