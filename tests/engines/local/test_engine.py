"""The transformers engine writes what the model itself would, whatever else is in the batch."""

from __future__ import annotations

import gc
import random
import weakref
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from transformers import LlamaConfig  # noqa: E402

from exsearch.engines import load_engine  # noqa: E402
from exsearch.engines.base import GREEDY, Request, Sampling  # noqa: E402
from exsearch.engines.local.cache import suitable_capacity  # noqa: E402
from exsearch.engines.local.engine import TransformersEngine, _context  # noqa: E402
from exsearch.errors import EngineError, ModelError  # noqa: E402
from exsearch.hardware import GIB  # noqa: E402

SAMPLED = Sampling()


def prompts(n, *, seed=0, longest=40):
    rng = random.Random(seed)
    return [tuple(rng.randrange(3, 800) for _ in range(rng.randint(1, longest))) for _ in range(n)]


def requests(n, *, max_tokens=12, seed=0):
    return [Request(p, max_tokens, key=100 + i) for i, p in enumerate(prompts(n, seed=seed))]


def ids(generations):
    return [g.output_ids for g in generations]


@pytest.fixture
def engine_with(tiny_model_folder):
    def make(**options):
        return TransformersEngine(tiny_model_folder, device="cpu", **options)

    return make


def test_greedy_is_what_the_model_generates(tiny_engine):
    asked = requests(6, max_tokens=20)
    got = tiny_engine.generate(asked, GREEDY)
    for request, generation in zip(asked, got, strict=True):
        with torch.inference_mode():
            whole = tiny_engine.model.generate(
                torch.tensor([request.prompt_ids]),
                attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.long),
                max_new_tokens=20,
                do_sample=False,
            )[0].tolist()
        assert list(generation.output_ids) == whole[len(request.prompt_ids) :]


@pytest.mark.parametrize("sampling", [SAMPLED, Sampling(0.7, 0.9), GREEDY])
def test_a_generation_does_not_depend_on_its_batch(tiny_engine, engine_with, sampling):
    asked = requests(9)
    alone = [tiny_engine.generate([r], sampling)[0].output_ids for r in asked]
    shuffled = random.Random(1).sample(range(9), 9)
    together = ids(tiny_engine.generate([asked[i] for i in shuffled], sampling))
    assert together == [alone[i] for i in shuffled]
    for options in ({"batch_size": 2}, {"token_budget": 1}, {"token_budget": 50}):
        assert ids(engine_with(**options).generate(asked, sampling)) == alone
    assert len(set(alone)) == 9


def test_the_key_is_the_randomness(tiny_engine):
    prompt = prompts(1)[0]
    asked = [Request(prompt, 10, key=k) for k in (1, 2, 1, 3)]
    one, two, again, three = ids(tiny_engine.generate(asked, SAMPLED))
    assert one == again
    assert len({one, two, three}) == 3
    torch.manual_seed(99)
    assert ids(tiny_engine.generate(asked, SAMPLED)) == [one, two, again, three]


def test_equal_prompts_are_encoded_once_to_the_same_result(tiny_engine):
    a = prompts(1, seed=3)[0]
    b = a[::-1]  # of the same length, so that their rows lie between one another
    asked = [Request(p, 10, key=k) for k, p in enumerate((a, b, a, a, b))]
    before = tiny_engine.encoded_tokens
    together = tiny_engine.generate(asked, SAMPLED)
    assert tiny_engine.encoded_tokens - before == 2 * len(a)
    separate = [tiny_engine.generate([r], SAMPLED)[0] for r in asked]
    assert ids(together) == ids(separate)
    for x, y in zip(together, separate, strict=True):
        assert x.log_probs == pytest.approx(y.log_probs, abs=1e-4)


@pytest.mark.parametrize("cache_tokens", [0, 20, 100])
def test_a_small_cache_forgets_or_grows_and_changes_nothing(tiny_engine, engine_with, cache_tokens):
    asked = [*requests(9), *requests(9)]
    alone = [tiny_engine.generate([r], SAMPLED)[0].output_ids for r in asked]
    engine = engine_with(cache_tokens=cache_tokens, batch_size=3)
    for _ in range(2):
        assert ids(engine.generate(asked, SAMPLED)) == alone
    of = [r.prompt_ids for r in asked]
    for got, want in zip(engine.log_prob(of, alone), tiny_engine.log_prob(of, alone), strict=True):
        assert got == pytest.approx(want, abs=1e-4)


def test_rows_get_memory_when_they_are_used_and_go_on_as_before(tiny_engine, engine_with):
    """The first request writes while nine others come, more than there are rows for."""
    asked = [Request(p, 30 - n, key=n) for n, p in enumerate(prompts(12, longest=9))]
    alone = [tiny_engine.generate([r], SAMPLED)[0] for r in asked]
    engine = engine_with(batch_size=10)
    session = engine.open()

    def heights():
        return {rows.shape[0] for layer in engine._cache._layers.values() for rows in layer[2:]}

    tickets = [session.submit(asked[0], SAMPLED)]
    done = dict(session.step())
    assert heights() == {1}
    tickets += [session.submit(r, SAMPLED) for r in asked[1:5]]
    done |= dict(session.step())
    assert heights() == {8}
    tickets += [session.submit(r, SAMPLED) for r in asked[5:]]
    while session.busy:
        done |= dict(session.step())
    assert heights() == {10}
    for ticket, generation in zip(tickets, alone, strict=True):
        assert done[ticket].output_ids == generation.output_ids
        assert done[ticket].log_probs == pytest.approx(generation.log_probs, abs=1e-4)


def test_rows_that_move_into_gaps_go_on_as_before(tiny_engine, monkeypatch):
    """Of twelve rows the first ten end soon, so the last two move down while they are written."""
    asked = [Request(p, 2 if n < 10 else 25, key=n) for n, p in enumerate(prompts(12, longest=9))]
    alone = [tiny_engine.generate([r], SAMPLED)[0] for r in asked]
    session, moves, move = tiny_engine.open(), [], tiny_engine._cache.move
    monkeypatch.setattr(tiny_engine._cache, "move", lambda *args: (moves.append(args), move(*args)))
    tickets = [session.submit(r, SAMPLED) for r in asked]
    done = {}
    while session.busy:
        done |= dict(session.step())
    assert moves
    for ticket, generation in zip(tickets, alone, strict=True):
        assert done[ticket].output_ids == generation.output_ids
        assert done[ticket].log_probs == pytest.approx(generation.log_probs, abs=1e-4)


def test_a_cancelled_request_has_no_reply_and_changes_no_other(tiny_engine, engine_with):
    asked = requests(6)
    alone = ids(tiny_engine.generate([r], SAMPLED)[0] for r in asked)
    session = engine_with(batch_size=3).open()
    tickets = [session.submit(r, SAMPLED) for r in asked]
    for n in (1, 2):
        assert session.step() == []
        told = [tuple(session.written(ticket)) for ticket in tickets]
        assert told == [*(output[:n] for output in alone[:3]), (), (), ()]
    session.cancel(tickets[1])  # is being written
    session.cancel(tickets[4])  # waits
    session.cancel(tickets[4])
    done = {}
    while session.busy:
        done |= dict(session.step())
    kept = [0, 2, 3, 5]
    assert {t: g.output_ids for t, g in done.items()} == {tickets[n]: alone[n] for n in kept}
    assert session.written(tickets[1]) == session.written(tickets[0]) == ()
    too_long = session.submit(Request((5,) * 4000, 2), SAMPLED)
    session.cancel(too_long)
    assert not session.busy and session.step() == []


def test_nothing_is_read_that_a_failed_pass_should_have_written(engine_with, monkeypatch):
    engine = engine_with()
    prompt, continuation = prompts(2, seed=5)
    want = engine_with().log_prob([prompt], [continuation])
    layer = engine.model.model.layers[1]

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", full)
        with pytest.raises(EngineError, match="out of memory"):
            engine.log_prob([prompt], [continuation])
        session = engine.open()
        session.submit(Request(prompt, 5), GREEDY)
        with pytest.raises(EngineError, match="out of memory"):
            session.step()
    assert engine.log_prob([prompt], [continuation]) == want
    with pytest.raises(EngineError, match="this session is over: an error broke it off"):
        session.step()


def test_one_session_at_a_time(tiny_engine):
    first = tiny_engine.open()
    first.submit(Request((5,), 2), GREEDY)
    tiny_engine.generate([Request((5,), 2)], GREEDY)
    with pytest.raises(EngineError, match="over: another session of this engine was opened"):
        first.step()


def test_empty_prompts_are_refused(tiny_engine):
    with pytest.raises(ValueError, match="an empty prompt"):
        tiny_engine.open().submit(Request((), 2), GREEDY)
    with pytest.raises(ValueError, match="an empty prompt"):
        tiny_engine.log_prob([()], [(5,)])


def test_a_diverged_model_is_named(engine_with):
    engine = engine_with()
    with torch.no_grad():
        engine.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(EngineError, match="scores are not finite"):
        engine.generate([Request((5, 6), 2)], SAMPLED)


@pytest.mark.parametrize("sampling", [SAMPLED, Sampling(0.7), GREEDY])
def test_log_probs_are_those_that_scoring_gives(tiny_engine, engine_with, sampling):
    asked = requests(7)
    got = tiny_engine.generate(asked, sampling)
    for engine in (tiny_engine, engine_with(token_budget=30)):
        scores = engine.log_prob([r.prompt_ids for r in asked], ids(got))
        for generation, score in zip(got, scores, strict=True):
            assert generation.log_probs == pytest.approx(score, abs=1e-4)
    same = [g.log_probs == g.proposal_log_probs for g in got]
    assert all(same) if sampling == SAMPLED else not any(same)


def test_scores_are_those_of_all_logits(tiny_engine):
    prompt, continuation = prompts(2, seed=5)
    (scores,) = tiny_engine.log_prob([prompt], [continuation])
    with torch.inference_mode():
        logits = tiny_engine.model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0]
    log_p = torch.log_softmax(logits.double(), -1)
    want = [log_p[len(prompt) + i - 1, t].item() for i, t in enumerate(continuation)]
    assert scores == pytest.approx(want, abs=1e-5)


def test_an_empty_continuation_scores_nothing(tiny_engine):
    a, b = prompts(2)
    scores = tiny_engine.log_prob([a, b], [(), (5, 6)])
    assert scores[0] == () and len(scores[1]) == 2
    assert tiny_engine.log_prob([], []) == []
    assert tiny_engine.generate([], GREEDY) == []


def test_a_generation_ends_at_its_own_limit_or_at_an_end_token(tiny_engine):
    prompt = prompts(1)[0]
    limits = [1, 4, 200]
    got = tiny_engine.generate([Request(prompt, n, key=7) for n in limits], SAMPLED)
    longest = got[-1].output_ids
    for limit, generation in zip(limits, got, strict=True):
        assert generation.output_ids == longest[:limit]
        stopped = generation.output_ids[-1] in tiny_engine.stop_ids
        assert generation.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(generation.output_ids) == limit
    assert [g.finish_reason for g in got[:2]] == ["length", "length"]


def test_the_end_token_is_the_last_one(tiny_engine):
    """Among many samples some stop; all that do hold the end token once, at the end."""
    got = tiny_engine.generate([Request((5, 6), 60, key=k) for k in range(60)], SAMPLED)
    stopped = [g for g in got if g.finish_reason == "stop"]
    assert 0 < len(stopped) < len(got)
    for generation in got:
        ends = [n for n, i in enumerate(generation.output_ids) if i in tiny_engine.stop_ids]
        assert ends == ([len(generation.output_ids) - 1] if generation in stopped else [])


def test_what_does_not_fit_the_model_is_refused(tiny_engine):
    limit = tiny_engine.model.config.max_position_embeddings
    with pytest.raises(EngineError, match=f"{limit + 1} tokens does not fit the model's {limit}"):
        tiny_engine.generate([Request((5,) * limit, 1)], GREEDY)
    with pytest.raises(EngineError, match="does not fit"):
        tiny_engine.log_prob([(5,) * limit], [(6,)])


def test_the_model_keeps_its_training_mode(engine_with):
    engine = engine_with()
    for mode in (True, False):
        engine.model.train(mode)
        engine.generate([Request((5,), 1)], GREEDY)
        engine.log_prob([(5,)], [(6,)])
        assert engine.model.training is mode


def perturbed(engine, folder):
    with torch.no_grad():
        for p in engine.model.parameters():
            p.add_(0.05)
    engine.model.save_pretrained(folder)
    engine.tokenizer.hf.save_pretrained(folder)


def test_weights_are_taken_over(engine_with, tmp_path):
    engine, other = engine_with(), engine_with()
    perturbed(other, tmp_path)
    before = engine.log_prob([(5, 6)], [(7, 8)])
    engine.load_weights(tmp_path)
    assert engine.log_prob([(5, 6)], [(7, 8)]) == other.log_prob([(5, 6)], [(7, 8)]) != before


def test_weights_that_were_given_back_are_gone_until_others_are_loaded(
    engine_with, tiny_model_folder
):
    engine = engine_with()
    want = engine.log_prob([(5, 6)], [(7, 8)])
    session, weights = engine.open(), weakref.ref(engine.model)
    engine.release()
    with pytest.raises(EngineError, match="over: the weights of its engine were given back"):
        session.step()
    del session
    gc.collect()
    assert weights() is None
    for use in (engine.open, lambda: engine.log_prob([(5,)], [(6,)])):
        with pytest.raises(EngineError, match="weights were given back: load some first"):
            use()
    engine.load_weights(tiny_model_folder)
    assert engine.log_prob([(5, 6)], [(7, 8)]) == want


@pytest.mark.parametrize(
    ("gib", "places"), [(1, 4096), (4, 8192), (8, 16384), (16, 32768), (1000, 32768)]
)
def test_the_cache_suits_the_memory(gib, places):
    # 2 * 30 layers * 3 groups * 64 * 4 bytes = 46,080 bytes a token; an eighth of 8 GiB holds
    # 23,301 of them, and 16,384 is the next power of two below.
    config = LlamaConfig(
        num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, hidden_size=576
    )
    assert suitable_capacity(config, torch.float32, gib * GIB) == places


def test_an_adapter_folder_is_a_model(engine_with, tiny_model_folder, tmp_path):
    peft = pytest.importorskip("peft")
    engine = engine_with()
    before = engine.log_prob([(5, 6)], [(7, 8)])
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(engine.model, config)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    want = engine.log_prob([(5, 6)], [(7, 8)])
    adapted.save_pretrained(tmp_path)
    engine.tokenizer.hf.save_pretrained(tmp_path)
    got = load_engine(tmp_path, device="cpu").log_prob([(5, 6)], [(7, 8)])
    assert got[0] == pytest.approx(want[0], abs=1e-4)
    assert got[0] != pytest.approx(before[0], abs=1e-2)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: folder.mkdir(),
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{}")),
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")),
        lambda folder: (folder.mkdir(), (folder / "adapter_config.json").write_text("{}")),
        lambda folder: (
            folder.mkdir(),
            (folder / "config.json").write_text('{"model_type": "no_such_model"}'),
        ),
    ],
)
def test_a_folder_that_is_no_model_is_named_in_one_line(make, tmp_path):
    folder = tmp_path / "model"
    make(folder)
    with pytest.raises(ModelError, match="model") as error:
        TransformersEngine(folder, device="cpu")
    assert "\n" not in str(error.value)


def test_a_model_without_its_weights(tiny_model_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model_folder / name).read_bytes())
    with pytest.raises(ModelError, match="can't load the model") as error:
        TransformersEngine(tmp_path, device="cpu")
    assert "\n" not in str(error.value)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="can't load the model"):
        TransformersEngine(tmp_path, device="cpu")


@pytest.mark.parametrize("name", ["smollm2-135n", "no/such/folder", "./nothing", "/nothing"])
def test_a_wrong_name_is_named(name):
    with pytest.raises(ModelError, match=f"no model '{name}'") as error:
        load_engine(name)
    assert "\n" not in str(error.value)


def test_a_missing_device_is_said(tiny_model_folder):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ModelError, match="no CUDA device is visible; use --device cpu"):
        TransformersEngine(tiny_model_folder, device="cuda")


def test_longrope_keeps_to_the_length_below_which_frequencies_stay():
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    for parameters, length in ((rope, 16), ({"full_attention": rope}, 16), ({}, 64), (None, 64)):
        config = SimpleNamespace(rope_parameters=parameters, max_position_embeddings=64)
        assert _context(config) == length


def test_out_of_memory_is_an_engine_error(engine_with, monkeypatch):
    engine = engine_with(batch_size=3)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.model, "forward", full)
    with pytest.raises(EngineError, match=r"ran out of memory: lower batch_size \(3\)"):
        engine.generate([Request((5,), 1)], GREEDY)
    with pytest.raises(EngineError, match="ran out of memory"):
        engine.log_prob([(5,)], [(6,)])
