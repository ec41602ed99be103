"""A linear layer on oneDNN gives PyTorch's own values and gradients, and is left as it was."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from exsearch.models import linear  # noqa: E402
from exsearch.models.linear import (  # noqa: E402
    PackedWeights,
    onednn_linear,
    padded_rows,
)

FOUND = linear._best_instructions()


@pytest.fixture
def avx512(monkeypatch):
    """As on a processor with AVX-512; oneDNN works on this one all the same."""
    if not FOUND:
        pytest.skip("no oneDNN here")
    monkeypatch.setattr(linear, "_best_instructions", lambda: "AVX512")


def results(layer, inputs):
    inputs = inputs.detach().clone().requires_grad_()
    out = layer(inputs)
    out.square().sum().backward()
    gradients = [inputs.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]
    layer.zero_grad()
    return [out, *gradients]


@pytest.mark.usefixtures("avx512")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 48), (1, 48), (2, 3, 48)])
@pytest.mark.parametrize("frozen", [True, False])
def test_values_and_gradients_are_those_of_pytorch(bias, shape, frozen):
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 96, bias=bias)
    layer.weight.requires_grad_(not frozen)
    inputs = torch.randn(*shape)
    exact = results(layer.double(), inputs.double())
    plain = results(layer.float(), inputs)
    with onednn_linear(layer):
        assert "forward" in vars(layer)
        with torch.profiler.profile() as profile:
            fast = results(layer, inputs)
    assert any("_linear_pointwise" in event.key for event in profile.key_averages())
    assert len(fast) == len(plain) == 2 + bias + (not frozen)
    for a, b, c in zip(fast, plain, exact, strict=True):
        assert a.shape == b.shape
        scale = c.abs().max()
        assert (a - c).abs().max() / scale < 1e-5
        assert (b - c).abs().max() / scale < 1e-5


@pytest.mark.usefixtures("avx512")
def test_without_gradients_too_and_after_it_as_before():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    inputs = torch.randn(5, 8)
    before = model(inputs)
    with torch.inference_mode(), onednn_linear(model), onednn_linear(model):
        assert torch.allclose(model(inputs), before, atol=1e-6)
    assert all("forward" not in vars(m) for m in model.modules())
    assert torch.equal(model(inputs), before)


@pytest.mark.usefixtures("avx512")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_go_their_usual_way(dtype):
    layer, inputs = torch.nn.Linear(8, 4).to(dtype), torch.randn(3, 8, dtype=dtype)
    before = layer(inputs)
    with onednn_linear(layer):
        assert torch.equal(layer(inputs), before)


@pytest.mark.usefixtures("avx512")
def test_packed_weights_follow_the_weights():
    layer, inputs = torch.nn.Linear(8, 4), torch.randn(3, 8)
    packed = PackedWeights(layer)
    for _ in range(3):
        before = layer(inputs)
        with torch.inference_mode(), onednn_linear(layer, packed):
            assert torch.allclose(layer(inputs), before, atol=1e-6)
            assert packed.of(layer.weight) is packed.of(layer.weight) is not layer.weight
        with torch.no_grad():
            layer.weight.mul_(2).add_(1)


@pytest.mark.usefixtures("avx512")
def test_weights_too_large_to_pack_are_used_as_they_are():
    layer = torch.nn.Linear(5, 5)  # 100 bytes of weights
    assert PackedWeights(layer, limit=100).of(layer.weight) is not layer.weight
    assert PackedWeights(layer, limit=99).of(layer.weight) is layer.weight


def test_passes_come_in_few_lengths(monkeypatch):
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: True)
    padded = {n: padded_rows(n) for n in range(1, 4097)}
    assert all(n <= p <= n * 17 / 16 for n, p in padded.items())
    assert all(padded_rows(p) == p for p in padded.values())
    assert [padded[n] for n in (1, 31, 33, 96, 97, 2049)] == [1, 31, 34, 96, 100, 2176]
    assert len(set(padded.values())) == 31 + 7 * 16 + 1


@pytest.mark.parametrize(
    ("instructions", "training", "inference"),
    [("AVX512", True, True), ("AVX2", False, True), ("DEFAULT", False, False), ("", False, False)],
)
def test_the_processor_decides(monkeypatch, instructions, training, inference):
    monkeypatch.setattr(linear, "_best_instructions", lambda: instructions)
    assert linear.onednn_is_faster() is training
    with torch.inference_mode():
        assert linear.onednn_is_faster() is inference


def test_where_it_is_no_faster_nothing_changes(monkeypatch):
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)
    layer = torch.nn.Linear(8, 4)
    with onednn_linear(layer):
        assert "forward" not in vars(layer)
    assert padded_rows(33) == 33
