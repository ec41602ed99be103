"""A failure that was planted is found, and none is seen where none was planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import (
    Tale,
    World,
    asks_badly,
    does_not_record,
    does_not_recover,
    early_stop,
    finds_nothing,
    good,
    invents,
    is_not_shown,
    misattributes,
    misreads,
    never_answers,
    records_a_bridge_wrong,
    records_nothing,
    records_wrong,
    recovers,
    repeats,
    says_it_otherwise,
    searches_on,
    wanders_off,
)

from exsearch.diagnosis.diagnose import SIGNATURES
from exsearch.diagnosis.loss import Cause, cause
from exsearch.diagnosis.reach import Case, reach_all
from exsearch.records import Trajectory

TRIALS = 100
FOUND, FALSE = 95, 5  # of 100: at least, and at most

Plant = Callable[[World, Tale], Trajectory]


@pytest.fixture(scope="module")
def world() -> World:
    return World(2 * TRIALS, seed=11)


@pytest.fixture(scope="module")
def retriever(world: World, tmp_path_factory: pytest.TempPathFactory):
    """Half of the towns of the tales that are planted in stand in no passage of the index."""
    return world.index(tmp_path_factory.mktemp("planted") / "index", without=missing(world))


def missing(world: World) -> set[str]:
    return {tale.place.id for tale in lost(world)}


def lost(world: World) -> list[Tale]:
    return world.tales[: TRIALS // 2]


@pytest.mark.parametrize(
    ("signature", "name", "plant", "other"),
    [
        ("stops", "over_search", searches_on, good),
        ("spread", "unsupported", invents, good),
        ("spread", "wrong_passage", misattributes, good),
        ("spread", "record_wrong", records_wrong, good),
        ("spread", "record_empty", records_nothing, good),
        ("spread", "recovered", recovers, does_not_recover),
        ("spread", "error_in_next_query", records_wrong, recovers),
        ("spread", "error_in_answer", records_wrong, recovers),
        ("drift", "no_support", finds_nothing, good),
        ("drift", "repeated_query", repeats, good),
        ("drift", "nothing_new", repeats, good),
        ("drift", "unrelated_query", wanders_off, good),
    ],
)
def test_a_planted_failure_is_found_and_no_other(
    world: World, signature: str, name: str, plant: Plant, other: Plant
):
    planted, clean = world.tales[:TRIALS], world.tales[TRIALS:]
    cases, _ = reach_all([plant(world, tale) for tale in planted], None)
    assert seen(cases, signature, name) >= FOUND
    cases, _ = reach_all([other(world, tale) for tale in clean], None)
    assert seen(cases, signature, name) <= FALSE


def seen(cases: list[Case], signature: str, name: str) -> int:
    """In how many cases a rate has a value of 1."""
    return sum((name, 1.0) in list(SIGNATURES[signature](case)) for case in cases)


def test_an_early_stop_is_found_by_searching_and_none_where_nothing_could_be_found(
    world: World, retriever
):
    """That a hop stands in no passage is no early stop."""
    present = world.tales[TRIALS // 2 :]
    cases, reached = reach_all([early_stop(world, tale) for tale in present[:TRIALS]], retriever)
    assert seen(cases, "stops", "early_stop") >= FOUND
    assert reached.searches == TRIALS
    stops = [early_stop(world, tale) for tale in lost(world)]
    fine = [world.good(tale) for tale in present[-TRIALS // 2 :]]
    cases, _ = reach_all([*stops, *fine], retriever)
    assert seen(cases, "stops", "early_stop") <= FALSE


def test_an_early_stop_is_found_by_another_sample(world: World):
    tale = world.tales[0]
    early = early_stop(world, tale)
    cases, _ = reach_all([early], None)
    assert "early_stop" not in dict(SIGNATURES["stops"](cases[0]))  # nobody knows
    cases, _ = reach_all([early, dataclasses.replace(world.good(tale), sample=1)], None)
    assert dict(SIGNATURES["stops"](cases[0]))["early_stop"] == 1
    assert dict(SIGNATURES["stops"](cases[1]))["early_stop"] == 0


CAUSES: dict[Cause, list[Plant]] = {
    Cause.QUERY: [asks_badly],
    Cause.STOP: [early_stop],
    Cause.NOT_SHOWN: [is_not_shown],
    Cause.RECORD: [does_not_record, records_a_bridge_wrong],
    Cause.READING: [misreads],
    Cause.FORMAT: [never_answers],
    Cause.METRIC: [says_it_otherwise],
}


@pytest.mark.parametrize(
    ("expected", "plant"), [(c, plant) for c, plants in CAUSES.items() for plant in plants]
)
def test_a_wrong_answer_has_the_cause_that_was_planted(
    world: World, retriever, expected: Cause, plant: Plant
):
    tales = world.tales[TRIALS // 2 :][:TRIALS]
    cases, _ = reach_all([plant(world, tale) for tale in tales], retriever)
    assert sum(cause(case) is expected for case in cases) >= FOUND


@pytest.mark.parametrize("plant", [asks_badly, early_stop])
def test_retrieval_is_the_cause_where_no_query_finds_it(world: World, retriever, plant: Plant):
    cases, _ = reach_all([plant(world, tale) for tale in lost(world)], retriever)
    assert all(cause(case) is Cause.RETRIEVAL for case in cases)


def test_without_searches_nobody_knows_whose_fault_it_is(world: World):
    cases, reached = reach_all([asks_badly(world, tale) for tale in lost(world)], None)
    assert all(cause(case) is Cause.UNTOLD for case in cases)
    assert reached.searches == 0


def test_where_only_the_answer_is_known_retrieval_is_not_blamed(world: World, retriever):
    told = [asks_badly(world, tale) for tale in lost(world)]
    bare = [
        dataclasses.replace(
            trace, question=dataclasses.replace(trace.question, supporting=(), decomposition=())
        )
        for trace in told
    ]
    cases, _ = reach_all(bare, retriever)
    assert {cause(case) for case in cases} == {Cause.UNTOLD}


def test_a_right_answer_has_no_cause(world: World, retriever):
    cases, _ = reach_all([world.good(tale) for tale in world.tales], retriever)
    assert not any(cause(case) for case in cases)
    wrong = [n for s in ("spread", "drift") for n in SIGNATURES[s](cases[0]) if n[1]]
    assert [name for name, _ in wrong] == ["right_without_miss"]


@pytest.mark.parametrize(
    ("expected", "plant"),
    [("retrieval", asks_badly), ("query", asks_badly), ("reading", does_not_record)],
)
def test_a_lost_hop_is_laid_to_what_lost_it(
    world: World, retriever, tmp_path: Path, expected: str, plant: Plant
):
    tales = lost(world) if expected == "retrieval" else world.tales[TRIALS // 2 :][:TRIALS]
    cases, _ = reach_all([plant(world, tale) for tale in tales], retriever)
    for case in cases:
        values = [v for v in SIGNATURES["lost_by"](case) if v[1]]
        assert values == [(expected, 1.0)]
