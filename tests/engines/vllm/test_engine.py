"""The vLLM engine writes and scores what the transformers engine does, with a real model.

Run by `make test-vllm`, in an environment of its own.
"""

from __future__ import annotations

import math
import random
import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from exsearch.agent.rollout import rollout  # noqa: E402
from exsearch.engines import open_engine  # noqa: E402
from exsearch.engines.base import GREEDY, Message, Request, Sampling  # noqa: E402
from exsearch.engines.config import ModelConfig  # noqa: E402
from exsearch.engines.local.engine import TransformersEngine  # noqa: E402
from exsearch.errors import ConfigError, EngineError, ModelError  # noqa: E402
from exsearch.jobs.inputs import ExampleSource, solved_examples  # noqa: E402
from exsearch.methods.format import record_prompt, think_prompt  # noqa: E402
from exsearch.methods.searcher import SearcherMethod  # noqa: E402
from exsearch.models.settings import resolve_model  # noqa: E402
from exsearch.training.e_step import EStepConfig, weigh  # noqa: E402

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and its packages' own
]
SAMPLED = Sampling()
TIE = 1e-4
CLOSE = 1e-3
LIMIT = 2048
OPTIONS = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 30, "max_model_len": LIMIT}


def make(**settings):
    return open_engine(ModelConfig(engine="vllm", **{"engine_options": OPTIONS, **settings}))


@pytest.fixture(scope="module")
def reference():
    return TransformersEngine(resolve_model("smollm2-135m"), device="cpu")


@pytest.fixture(scope="module")
def engine():
    return make()


@pytest.fixture(scope="module")
def prompts(reference, sample_questions, sample_retriever):
    """What the agent asks: short prompts, and ones that fill several blocks of the cache."""
    questions = [q.question for q in sample_questions[:5]]
    found = sample_retriever.search(questions, 5)
    texts = [think_prompt(q, []) for q in questions]
    texts += [record_prompt(q, p) for q, p in zip(questions, found, strict=True)]
    encode = reference.tokenizer.encode_chat
    return [encode([Message(role="user", content=text)]) for text in texts]


def requests(prompts, *, max_tokens=24):
    return [Request(p, max_tokens, key=100 + i) for i, p in enumerate(prompts)]


def ids(generations):
    return [g.output_ids for g in generations]


def assert_scores(got, want):
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert g == pytest.approx(w, abs=CLOSE)


def next_logits(reference, sequence):
    with torch.inference_mode():
        return reference.model(input_ids=torch.tensor([sequence])).logits[0].double()


def test_greedy_ids_are_those_of_the_transformers_engine(engine, reference, prompts, capsys):
    asked = requests(prompts, max_tokens=32)
    got, want = engine.generate(asked, GREEDY), reference.generate(asked, GREEDY)
    for request, g, w in zip(asked, got, want, strict=True):
        assert set(g.proposal_log_probs) == {0.0}
        differ = [
            n
            for n, pair in enumerate(zip(g.output_ids, w.output_ids, strict=False))
            if pair[0] != pair[1]
        ]
        if not differ:
            assert (g.output_ids, g.finish_reason) == (w.output_ids, w.finish_reason)
            assert g.log_probs == pytest.approx(w.log_probs, abs=CLOSE)
            continue
        # From a tie on they may go on differently; nothing else may part them.
        n = differ[0]
        logits = next_logits(reference, [*request.prompt_ids, *w.output_ids[:n]])[-1]
        gap = (logits[w.output_ids[n]] - logits[g.output_ids[n]]).item()
        assert gap < TIE, f"token {n}: {w.output_ids[n]}, not {g.output_ids[n]}"
        with capsys.disabled():
            sys.stdout.write(f"\na tie: {w.output_ids[n]} or {g.output_ids[n]}, {gap:.1e} apart\n")


def test_scores_are_those_of_the_transformers_engine(engine, reference, prompts):
    continuations = [reference.tokenizer.encode(text) for text in ("Peter Pan", "1911, in London")]
    pairs = [(p, (*c, reference.tokenizer.end_id)) for p in prompts for c in continuations]
    got = engine.log_prob(*zip(*pairs, strict=True))
    assert_scores(got, reference.log_prob(*zip(*pairs, strict=True)))


@pytest.mark.parametrize("sampling", [SAMPLED, Sampling(0.7), Sampling(0.8, 0.8), GREEDY])
def test_log_probs_are_those_of_the_tokens(engine, reference, prompts, sampling):
    """Log p against the other engine's scores, log q against its logits by the definition."""
    asked = requests(prompts[::3], max_tokens=12)
    got = engine.generate(asked, sampling)
    assert_scores(
        [g.log_probs for g in got], reference.log_prob([r.prompt_ids for r in asked], ids(got))
    )
    for request, generation in zip(asked, got, strict=True):
        if sampling == GREEDY:
            assert set(generation.proposal_log_probs) == {0.0}
            continue
        sequence = [*request.prompt_ids, *generation.output_ids]
        rows = next_logits(reference, sequence)[len(request.prompt_ids) - 1 : -1]
        for logits, token, log_q in zip(
            rows, generation.output_ids, generation.proposal_log_probs, strict=True
        ):
            q = torch.softmax(logits / sampling.temperature, -1)
            likelier = q[q > q[token] + 1e-6].sum().item()
            assert likelier < sampling.top_p + 1e-4  # the token is in the nucleus
            ordered = q.sort(descending=True).values
            before = ordered.cumsum(0) - ordered
            mass = ordered[before < sampling.top_p].sum().item()
            assert log_q == pytest.approx(math.log(q[token].item() / mass), abs=5 * CLOSE)


def test_the_key_is_the_randomness(engine, prompts):
    asked = requests(prompts, max_tokens=12)
    together = ids(engine.generate(asked, SAMPLED))
    assert ids(engine.generate(asked, SAMPLED)) == together
    order = random.Random(1).sample(range(len(asked)), len(asked))
    assert ids(engine.generate([asked[i] for i in order], SAMPLED)) == [together[i] for i in order]
    assert ids(engine.generate(asked[:1], SAMPLED)) == together[:1]
    same_prompt = [Request(prompts[0], 12, key=k) for k in (1, 2, 1, 3)]
    one, two, again, three = ids(engine.generate(same_prompt, SAMPLED))
    assert one == again
    assert len({one, two, three}) == 3


def test_samples_follow_the_model(engine, reference):
    """The mean log p of first tokens is the negative entropy, within four standard errors."""
    prompt = reference.tokenizer.encode("The")
    n = 1000
    asked = [Request(prompt, 1, key=k) for k in range(n)]
    log_p = torch.log_softmax(next_logits(reference, prompt)[-1], -1)
    for sampling in (SAMPLED, Sampling(0.7, 0.9)):
        drawn = [g.log_probs[0] for g in engine.generate(asked, sampling)]
        q = torch.softmax(log_p / sampling.temperature, -1)
        ordered, index = q.sort(descending=True)
        q[index[ordered.cumsum(0) - ordered >= sampling.top_p]] = 0
        q /= q.sum()
        mean = (q * log_p).sum().item()
        error = math.sqrt((q * (log_p - mean) ** 2).sum().item() / n)
        assert abs(sum(drawn) / n - mean) < 4 * error


def test_a_generation_ends_at_its_own_limit_or_at_an_end_token(engine, reference, prompts):
    limits = [1, 4, 9]
    got = engine.generate([Request(prompts[0], n, key=7) for n in limits], SAMPLED)
    longest = got[-1].output_ids
    assert ids(got) == [longest[:n] for n in limits]
    assert {g.finish_reason for g in got} == {"length"}
    answer = reference.tokenizer.encode("Say no more.")
    asked = [Request((*prompts[0], *answer), 40, key=k) for k in range(20)]
    ended = engine.generate(asked, SAMPLED)
    assert "stop" in {g.finish_reason for g in ended}
    assert engine.stop_ids == reference.stop_ids
    for generation in ended:
        ends = [n for n, i in enumerate(generation.output_ids) if i in reference.stop_ids]
        stopped = generation.finish_reason == "stop"
        assert ends == ([len(generation.output_ids) - 1] if stopped else [])
        assert stopped or len(generation.output_ids) == 40


def test_nothing_asked_is_nothing_done(engine, prompts):
    assert engine.generate([], GREEDY) == []
    assert engine.log_prob([], []) == []
    scores = engine.log_prob(prompts[:2], [(), (5, 6)])
    assert scores[0] == () and len(scores[1]) == 2


def test_what_vllm_can_not_do_is_said_in_a_line(engine):
    longest = LIMIT - 1
    (fits,) = engine.log_prob([(5,) * (longest - 1)], [(6,)])
    assert len(fits) == 1
    for too_long in (
        lambda: engine.log_prob([(5,) * longest], [(6,)]),
        lambda: engine.generate([Request((5,) * longest, 1)], GREEDY),
    ):
        with pytest.raises(EngineError, match=rf"{LIMIT} tokens .* {longest} .*method\.passages"):
            too_long()
    with pytest.raises(EngineError, match=r"temperature 3.0: set it to 0 or from 0\.01 to 2"):
        engine.generate([Request((5,), 1)], Sampling(3.0))
    with pytest.raises(EngineError, match="vLLM failed") as caught:
        engine.generate([Request((5,), 1), Request((), 1)], GREEDY)
    assert "\n" not in str(caught.value)
    assert len(engine.generate([Request((5,), 1)], GREEDY)) == 1  # and it goes on


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"engine_options": {"max_model_length": 9}}, ConfigError, "did you mean max_model_len"),
        ({"engine_options": {"trust_remote_code": True}}, ConfigError, "may not set 'trust_rem"),
        ({"engine_options": {"model": "x"}}, ConfigError, "may not set 'model'"),
        ({"device": "cuda"}, ModelError, "this vLLM runs on cpu; use --device auto"),
    ],
)
def test_settings_that_can_not_be_used(settings, error, message):
    if torch.cuda.is_available() and "device" in settings:
        pytest.skip("there is a CUDA device")
    with pytest.raises(error, match=message):
        make(**settings)


def perturbed(folder: Path, target: Path) -> Path:
    """The same model with other weights."""
    engine = TransformersEngine(folder, device="cpu")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in engine.model.parameters():
            p.mul_(1 + 0.02 * torch.randn(p.shape, generator=generator))
    engine.model.save_pretrained(target)
    engine.tokenizer.hf.save_pretrained(target)
    return target


def test_weights_are_taken_over_without_a_restart(engine, reference, prompts, tmp_path):
    start = Path(resolve_model("smollm2-135m"))
    other_folder = perturbed(start, tmp_path / "other")
    other = TransformersEngine(other_folder, device="cpu")
    continuations = [(5, 6, 7)] * len(prompts)
    asked = requests(prompts, max_tokens=8)
    before = engine.log_prob(prompts, continuations)
    written = ids(engine.generate(asked, GREEDY))
    try:
        engine.load_weights(other_folder)
        after = engine.log_prob(prompts, continuations)
        assert_scores(after, other.log_prob(prompts, continuations))
        assert all(abs(a[0] - b[0]) > 10 * CLOSE for a, b in zip(after, before, strict=True))
        # The prompts were in the cache: nothing that the old weights computed may be left there.
        got = engine.generate(asked, GREEDY)
        assert ids(got) != written
        scores = other.log_prob(prompts, ids(got))
        assert_scores([g.log_probs for g in got], scores)
        check_refused_weights(engine, other_folder, tmp_path)
        assert_scores(engine.log_prob(prompts, continuations), after)
    finally:
        engine.load_weights(start)
    assert_scores(engine.log_prob(prompts, continuations), before)


def check_refused_weights(engine, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    torn = tmp_path / "torn"
    shutil.copytree(folder, torn)
    (torn / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    wide = tmp_path / "wide"
    shutil.copytree(folder, wide)
    config = (wide / "config.json").read_text()
    (wide / "config.json").write_text(config.replace('"hidden_size": 576', '"hidden_size": 1152'))
    for place, message in (
        (tmp_path / "empty", "can't load"),
        (bare, "no file named model.safetensors"),
        (torn, "can't load"),
        (wide, "tensors of another shape"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            engine.load_weights(place)
        assert str(place) in str(caught.value) and "\n" not in str(caught.value)


def test_an_adapter_folder_is_merged(engine, reference, prompts, tmp_path):
    peft = pytest.importorskip("peft")
    start = resolve_model("smollm2-135m")
    base = TransformersEngine(start, device="cpu")
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(base.model, config)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.fill_(0.003)
    adapted.save_pretrained(tmp_path)
    base.tokenizer.hf.save_pretrained(tmp_path)
    continuations = [(5, 6, 7)] * len(prompts)
    want = TransformersEngine(tmp_path, device="cpu").log_prob(prompts, continuations)
    assert want[0] != pytest.approx(reference.log_prob(prompts, continuations)[0], abs=10 * CLOSE)
    try:
        engine.load_weights(tmp_path)
        assert_scores(engine.log_prob(prompts, continuations), want)
    finally:
        engine.load_weights(Path(start))


def test_a_rollout_over_the_sample_can_be_weighed(
    engine, reference, sample_questions, sample_retriever
):
    method = SearcherMethod(passages=2, passage_words=30)
    # Shown how, the untrained model keeps to the format often enough.
    source = ExampleSource(2, "sample:dev")
    shown = solved_examples(source, sample_retriever, engine, method)
    trajectories = rollout(
        sample_questions[:6],
        engine,
        sample_retriever,
        samples=2,
        method=method,
        seed=5,
        sampling=SAMPLED,
        examples=shown,
    )
    assert len(trajectories) == 12
    assert not [t for t in trajectories if t.stop_reason.is_error]
    weighted = weigh(trajectories, engine, EStepConfig(samples=2))
    again = weigh(trajectories, reference, EStepConfig(samples=2))
    assert sum(len(item.answer_log_probs) for item in weighted) >= 2
    for item, other in zip(weighted, again, strict=True):
        assert item.answer_log_probs == pytest.approx(other.answer_log_probs, abs=5 * CLOSE)
        assert item.weight == pytest.approx(other.weight, abs=5 * CLOSE)
