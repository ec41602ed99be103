"""Every system writes the tokens laid down, sees the same prompts, and agrees when greedy."""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict

import pytest
from benchmarks.agreement import greedy_differences, log_prob_gap
from benchmarks.baselines import PlainTransformers, sequential, turn_by_turn
from benchmarks.phases import Windows
from benchmarks.rollout import ours, timed
from benchmarks.shares import TimedRetriever, timed_rollout
from benchmarks.workload import SAMPLE, LaidDown, call_key, questions, workload

from exsearch.engines.base import GREEDY, Generation, Request, Sampling
from exsearch.errors import DataError, EngineError
from exsearch.records import StopReason, to_json
from exsearch.training.e_step import weigh


@pytest.fixture(scope="module")
def work(tiny_engine, tmp_path_factory):
    return workload(SAMPLE, 6, tmp_path_factory.mktemp("bench"), tiny_engine.tokenizer)


@pytest.fixture(scope="module")
def plain(tiny_engine, tiny_model_folder):
    return PlainTransformers(str(tiny_model_folder), tiny_engine.tokenizer, 5)


def tokens(trajectories):
    return [[(c.prompt_ids, c.output_ids) for c in t.calls] for t in trajectories]


def test_the_workload_is_what_a_trained_searcher_does(work, tiny_engine, tmp_path):
    assert work.samples == 4
    assert {t.stop_reason for t in work.trajectories} == {StopReason.ANSWERED}
    assert {len(t.steps) for t in work.trajectories} <= {2, 3}
    again = workload(SAMPLE, 6, tmp_path, tiny_engine.tokenizer)
    assert again.trajectories == work.trajectories


def test_samples_part_ways_in_about_half_of_the_questions(work, tiny_engine, tmp_path):
    many = workload(SAMPLE, 40, tmp_path, tiny_engine.tokenizer)
    queries = defaultdict(set)
    for t in many.trajectories:
        queries[t.question.id].add(tuple(s.query for s in t.steps))
    assert 10 <= sum(len(q) > 1 for q in queries.values()) <= 30


def test_too_few_questions_are_an_error():
    with pytest.raises(DataError, match="expected 9999"):
        questions(SAMPLE, 9999)


@pytest.mark.parametrize("drive", [sequential, turn_by_turn])
def test_the_baselines_write_what_is_laid_down(work, plain, drive):
    few = work.of(2)
    done = drive(few, LaidDown(plain, few.trajectories), Sampling(), few.retriever())
    assert tokens(done) == tokens(few.trajectories)


def test_our_rollout_writes_what_is_laid_down(work, tiny_engine, plain):
    kept = []
    seconds = timed(work, lambda retriever: ours(work, tiny_engine, retriever), kept)
    assert seconds > 0
    assert log_prob_gap(kept[0], plain, 10) < 1e-4


def test_a_run_that_wrote_something_else_is_no_measurement(work):
    with pytest.raises(EngineError, match="other tokens"):
        timed(work, lambda retriever: work.of(1).trajectories, [])


def test_an_engine_that_does_not_replay_is_refused(work):
    class Deaf:
        def generate(self, requests, sampling):
            return [Generation((1,), (), (), "stop") for _ in requests]

    t = work.trajectories[0]
    request = Request(t.calls[0].prompt_ids, 40, call_key(t.question.id, t.sample, 0))
    with pytest.raises(EngineError, match=r"does not honour Request\.forced_ids"):
        LaidDown(Deaf(), work.trajectories).generate([request], GREEDY)
    with pytest.raises(EngineError, match="in no trajectory"):
        LaidDown(Deaf(), work.trajectories).generate([Request((1,), 1, 7)], GREEDY)


def test_what_lays_down_declares_what_the_inner_engine_does(work, tiny_engine):
    laid_down = LaidDown(tiny_engine, work.trajectories)
    for name in ("rows", "trains", "scores", "streams", "device", "tokenizer"):
        assert getattr(laid_down, name) is getattr(tiny_engine, name)
    call = work.trajectories[0].calls[0]
    scored = laid_down.log_prob([call.prompt_ids], [call.output_ids])
    assert scored == tiny_engine.log_prob([call.prompt_ids], [call.output_ids])


def test_a_session_tells_what_it_lays_down_and_takes_requests_back(work, tiny_engine):
    session = LaidDown(tiny_engine, work.trajectories).open()
    t = work.trajectories[0]
    keys = [call_key(t.question.id, t.sample, n) for n in range(2)]
    requests = [Request(c.prompt_ids, 60, k) for c, k in zip(t.calls[:2], keys, strict=True)]
    kept, taken_back = (session.submit(request, Sampling()) for request in requests)
    assert session.step() == []
    assert tuple(session.written(kept)) == t.calls[0].output_ids[:1]
    session.cancel(taken_back)
    ended = []
    while session.busy:
        ended += session.step()
    assert [(ticket, g.output_ids) for ticket, g in ended] == [(kept, t.calls[0].output_ids)]


def test_greedy_outputs_agree_and_a_difference_is_found(work, tiny_engine, plain):
    few = work.of(1).trajectories
    compared, differences = greedy_differences(few, tiny_engine, plain, work.method)
    assert compared == len({c.prompt_ids for t in few for c in t.calls})
    assert differences == []

    class Wrong:
        def generate(self, requests, sampling):
            right = plain.generate(requests, sampling)
            return [dataclasses.replace(g, output_ids=(5, *g.output_ids[1:])) for g in right]

    _, differences = greedy_differences(few, Wrong(), plain, work.method)
    assert len(differences) == compared
    assert all(d.position == 0 and d.ours == 5 and d.logit_gap > 0 for d in differences)


def test_greedy_rows_do_not_depend_on_their_batch(work, plain):
    requests = [Request(c.prompt_ids, 12) for t in work.of(1).trajectories for c in t.calls]
    together = plain.generate(requests, GREEDY)
    alone = [plain.generate([r], GREEDY)[0] for r in requests]
    assert [g.output_ids for g in together] == [g.output_ids for g in alone]


def test_a_recorded_file_is_replayed(work, tiny_engine, tmp_path):
    few = work.of(2)
    file = tmp_path / "recorded.jsonl"
    weighted = weigh(few.trajectories, tiny_engine)
    file.write_text("".join(to_json(w) + "\n" for w in weighted))
    again = workload(SAMPLE, 2, tmp_path, tiny_engine.tokenizer, file)
    assert tokens(again.trajectories) == tokens(few.trajectories)
    with pytest.raises(DataError, match="expected 3"):
        workload(SAMPLE, 3, tmp_path / "more", tiny_engine.tokenizer, file)


def test_shares_are_timed(work, tiny_engine):
    few = work.of(1)
    with timed_rollout() as timers:
        ours(few, tiny_engine, TimedRetriever(few.retriever(), timers["retrieval"]))
    assert all((timers[n].seconds or 0) > 0 for n in ("retrieval", "episodes"))


def test_windows_have_no_common_beginning():
    windows = Windows(range(100))
    taken = windows.take(30, 10)
    assert len({w[0] for w in taken}) == 30
    assert all(len(w) == 10 for w in taken)


def test_options_have_defaults():
    from benchmarks import growth, m_step, phases, rollout

    for module in (growth, m_step, phases, rollout):
        assert isinstance(module.options().parse_args([]), argparse.Namespace)
