"""A draw follows its distribution and depends on its own key and position, on nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from exsearch.engines.base import GREEDY, Sampling, random_key  # noqa: E402
from exsearch.engines.local.sampling import gumbel_noise, sample  # noqa: E402

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -2.0])
keys = st.integers(0, 2**63 - 1)
positions = st.integers(0, 2**20)


def draw(logits, keys, positions, sampling):
    return sample(
        logits, np.array(keys, dtype=np.uint64), np.array(positions, dtype=np.uint64), sampling
    )


def many(sampling, n=20_000, *, by):
    """Draws over many keys at one position, or over many positions with one key."""
    key, position = random_key("a", 1), 3
    streams = [random_key(by, i) for i in range(n)] if by == "key" else [key] * n
    counters = [position] * n if by == "key" else range(n)
    tokens, _, _ = draw(LOGITS.expand(n, -1), streams, list(counters), sampling)
    return torch.bincount(tokens, minlength=len(LOGITS)).double()


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("by", ["key", "position"])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_draws_follow_the_softmax(by, temperature):
    counts = many(Sampling(temperature), by=by)
    # 5 degrees of freedom: 20.5 is passed by chance once in a thousand
    assert chi_square(counts, torch.softmax(LOGITS.double() / temperature, 0)) < 20.5


@pytest.mark.parametrize("by", ["key", "position"])
def test_draws_follow_the_truncated_softmax(by):
    p = torch.softmax(LOGITS.double(), 0)  # .56 .20 .08 .03 .12 .01
    counts = many(Sampling(top_p=0.8), by=by)
    kept = [0, 1, 4]  # their mass is 0.89, and that of the likelier two 0.76
    assert counts.nonzero().flatten().tolist() == kept
    assert chi_square(counts[kept], p[kept] / p[kept].sum()) < 13.8


def test_neighbouring_draws_are_independent():
    """Tokens at positions 2n and 2n+1 of one stream are independent, and so are two streams."""
    n = 20_000
    logits = torch.zeros(n, 4)
    key = random_key("pairs")
    one = draw(logits, [key] * n, list(range(n)), Sampling())[0]
    other = draw(logits, [key + 1] * n, list(range(n)), Sampling())[0]
    for a, b in ((one[::2], one[1::2]), (one, other)):
        counts = torch.bincount(a * 4 + b, minlength=16).double()
        assert chi_square(counts, torch.full((16,), 1 / 16, dtype=torch.double)) < 37.7


def test_the_noise_is_standard_gumbel():
    n = 200_000
    noise = gumbel_noise(np.full(n, 7, np.uint64), np.arange(n), np.full(n, 5))
    assert noise.mean() == pytest.approx(0.57722, abs=0.01)
    assert noise.var() == pytest.approx(math.pi**2 / 6, abs=0.03)
    below = (noise < 1.0).mean()
    assert below == pytest.approx(math.exp(-math.exp(-1.0)), abs=0.005)


def test_the_noise_stays_within_its_range():
    lowest = -math.log(-math.log(0.5 / 2**32))
    highest = -math.log(-math.log((2**32 - 0.5) / 2**32))
    n = 300_000
    noise = gumbel_noise(np.arange(n), np.zeros(n), np.arange(n))
    assert lowest <= noise.min() and noise.max() <= highest


@given(st.integers(0, 2**32), st.sampled_from([0.5, 3.0, 8.0]))
def test_a_draw_is_the_argmax_of_score_plus_noise(seed, spread):
    """By brute force over every token, near ones and those that win by rare luck."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, spread, (4, 3000)), dtype=torch.float32)
    streams, counters = rng.integers(0, 2**63, 4).astype(np.uint64), np.arange(4, dtype=np.uint64)
    noise = gumbel_noise(streams[:, None], counters[:, None], np.arange(3000)[None])
    tokens, _, _ = sample(logits, streams, counters, Sampling())
    assert tokens.tolist() == (logits.double().numpy() + noise).argmax(-1).tolist()


def test_tokens_far_behind_win_as_often_as_they_should():
    """60,000 tokens at 14 nats behind one hold 4.8 % of the mass together."""
    n = 1500
    logits = torch.full((60_001,), -14.0)
    logits[0] = 0.0
    tokens, _, _ = draw(
        logits.expand(n, -1), [random_key(i) for i in range(n)], [0] * n, Sampling()
    )
    far = (tokens > 0).sum().item()
    share = 60_000 * math.exp(-14) / (1 + 60_000 * math.exp(-14))
    assert abs(far - n * share) < 4 * math.sqrt(n * share * (1 - share))


def test_forced_tokens_are_taken_with_their_own_log_probs():
    forced = np.array([2, -1, 5])
    logits = LOGITS.expand(3, -1)
    args = logits, np.arange(3, dtype=np.uint64), np.zeros(3, np.uint64)
    tokens, log_p, log_q = sample(*args, Sampling(0.5), forced)
    free, _, _ = sample(*args, Sampling(0.5))
    assert tokens.tolist() == [2, free[1].item(), 5]
    assert torch.allclose(log_p, torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0])
    assert torch.allclose(
        log_q, torch.log_softmax(logits / 0.5, -1).gather(1, tokens[:, None])[:, 0]
    )


@given(keys, positions, st.integers(0, 2**20))
def test_any_key_gives_finite_noise(key, position, token):
    one = [np.array([v], dtype=np.uint64) for v in (key, position, token)]
    assert np.isfinite(gumbel_noise(*one)).all()


@given(st.data())
def test_a_rows_draw_does_not_depend_on_its_neighbours(data):
    rows = data.draw(st.lists(st.tuples(keys, positions), min_size=1, max_size=6))
    sampling = data.draw(st.sampled_from([Sampling(), Sampling(0.7), Sampling(1.3, 0.8), GREEDY]))
    logits = torch.randn(len(rows), 50, generator=torch.Generator().manual_seed(len(rows)))
    order = data.draw(st.permutations(range(len(rows))))

    def of(indices):
        drawn = draw(
            logits[indices], [rows[i][0] for i in indices], [rows[i][1] for i in indices], sampling
        )
        return [tuple(values) for values in zip(*(d.tolist() for d in drawn), strict=True)]

    alone = [of([i])[0] for i in range(len(rows))]
    together = of(list(order))
    assert [t[0] for t in together] == [alone[i][0] for i in order]
    for got, want in zip(together, (alone[i] for i in order), strict=True):
        assert got == pytest.approx(want, abs=1e-6)


def test_global_seeds_do_not_matter():
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        drawn.append(draw(LOGITS.expand(50, -1), range(50), range(50), Sampling())[0].tolist())
    assert drawn[0] == drawn[1]


def test_greedy_takes_the_likeliest_and_is_certain():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, -1.0, 5.5]])
    tokens, log_p, log_q = draw(logits, [1, 2], [0, 0], GREEDY)
    assert tokens.tolist() == [1, 2]
    assert torch.allclose(log_p, torch.log_softmax(logits, -1)[[0, 1], tokens])
    assert log_q.tolist() == [0, 0]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.5), Sampling(1.7), Sampling(1.0, 0.6), Sampling(0.8, 0.95)]
)
def test_log_probs_are_those_of_model_and_proposal(sampling):
    """Over all tokens drawn, q sums to one, and is the softmax at temperature and truncation."""
    n = 4000
    tokens, log_p, log_q = draw(LOGITS.expand(n, -1), range(n), [0] * n, sampling)
    seen = {}
    for token, p, q in zip(tokens.tolist(), log_p.tolist(), log_q.tolist(), strict=True):
        assert seen.setdefault(token, (p, q)) == (p, q)
    model = torch.log_softmax(LOGITS, 0)
    assert all(p == pytest.approx(model[t].item(), abs=1e-6) for t, (p, _) in seen.items())
    support = sum(math.exp(q) for _, q in seen.values())
    assert support == pytest.approx(1, abs=1e-2 if sampling.top_p == 1 else 1e-6)
    scaled = LOGITS / sampling.temperature
    for a, (_, q_a) in seen.items():  # ratios of q are those of the tempered softmax
        for b, (_, q_b) in seen.items():
            assert q_a - q_b == pytest.approx((scaled[a] - scaled[b]).item(), abs=1e-5)


def test_top_p_keeps_the_token_that_crosses_it():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(3000, -1)
    for top_p, kept in ((0.01, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 3)):
        tokens, _, _ = draw(logits, range(3000), [0] * 3000, Sampling(1.0, top_p))
        assert set(tokens.tolist()) == set(range(kept))


def test_low_precision_logits_are_taken_to_float32():
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    tokens, log_p, log_q = draw(logits, [1], [1], Sampling())
    assert log_p.dtype == log_q.dtype == torch.float32
    assert log_p.item() == pytest.approx(torch.log_softmax(logits.float(), -1)[0, tokens].item())


def test_a_hopeless_token_is_never_drawn_and_an_impossible_one_neither():
    logits = torch.tensor([0.0, -27.0, float("-inf")]).expand(5000, -1)
    tokens, log_p, _ = draw(logits, range(5000), [0] * 5000, Sampling())
    assert set(tokens.tolist()) == {0}
    assert torch.isfinite(log_p).all()


@pytest.mark.parametrize("values", [(-0.1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, 1.1)])
def test_a_distribution_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match="must be"):
        Sampling(*values)


def test_keys_name_streams():
    assert random_key(1, "a") == random_key("1", "a")
    assert 0 <= random_key("x") < 2**63
    parts = [(0, 0, "q", 0), (0, 0, "q", 1), (0, 1, "q", 0), (1, 0, "q", 0), (0, 0, "q0", "")]
    assert len({random_key(*p) for p in parts}) == len(parts)
