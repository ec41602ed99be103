"""A failure that was planted is found, and none is seen where none was planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import TRADES, Tale, World, ended

from exsearch.diagnosis.diagnose import SIGNATURES
from exsearch.diagnosis.loss import Cause, cause
from exsearch.diagnosis.reach import Case, reach_all
from exsearch.records import Step, StopReason, Trajectory

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


def early_stop(world: World, tale: Tale) -> Trajectory:
    return ended(tale, [world.first(tale)], tale.town)


def searches_on(world: World, tale: Tale) -> Trajectory:
    more = world.step(tale, f"history of {tale.river}", None, None)
    return ended(tale, [*world.good(tale).steps, more], tale.river)


def invents(world: World, tale: Tale) -> Trajectory:
    made_up = f"{world.name()} {world.name()}"
    return ended(tale, [world.first(tale, made_up), world.second(tale)], tale.river)


def misattributes(world: World, tale: Tale) -> Trajectory:
    step = world.first(tale)
    assert step.evidence
    other = next(p.id for p in step.passages if p != tale.person)
    wrong = dataclasses.replace(step.evidence, passage_ids=(other,))
    step = dataclasses.replace(step, evidence=wrong)
    return ended(tale, [step, world.second(tale)], tale.river)


def records_wrong(world: World, tale: Tale) -> Trajectory:
    """The trade for the town; the next query and the answer take it up."""
    steps = [world.first(tale, tale.trade), world.second(tale, tale.trade, town=tale.trade)]
    return ended(tale, steps, tale.trade)


def records_nothing(world: World, tale: Tale) -> Trajectory:
    return ended(tale, [world.first(tale, None), world.second(tale)], tale.river)


def recovers(world: World, tale: Tale) -> Trajectory:
    steps = [world.first(tale, tale.trade), world.first(tale), world.second(tale)]
    return ended(tale, steps, tale.river)


def does_not_recover(world: World, tale: Tale) -> Trajectory:
    steps = [world.first(tale, tale.trade), world.first(tale, tale.trade)]
    return ended(tale, steps, tale.trade)


def finds_nothing(world: World, tale: Tale) -> Trajectory:
    astray = world.step(tale, f"fame of {tale.person.title}", None, None)
    return ended(tale, [world.first(tale), astray, world.second(tale)], tale.river)


def repeats(world: World, tale: Tale) -> Trajectory:
    first = world.first(tale)
    again = dataclasses.replace(first, query=f"the {first.query.lower()}")
    return ended(tale, [first, again, world.second(tale)], tale.river)


def wanders_off(world: World, tale: Tale) -> Trajectory:
    off = dataclasses.replace(world.second(tale), query=f"{world.name()} {world.name()} song")
    return ended(tale, [world.first(tale), off], tale.river)


def good(world: World, tale: Tale) -> Trajectory:
    return world.good(tale)


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


# For each cause a trajectory whose chain breaks there.


def asks_badly(world: World, tale: Tale) -> Trajectory:
    astray = world.step(tale, f"fame of {tale.town}", None, world.name())
    return ended(tale, [world.first(tale), astray], world.name())


def hides(step: Step, words: str) -> Step:
    """A step whose prompt did not show some words."""
    spans = tuple(
        ((0, p.text.find(words)),) if words in p.text else ((0, 5),) for p in step.passages
    )
    return dataclasses.replace(step, spans=spans)


def is_not_shown(world: World, tale: Tale) -> Trajectory:
    hidden = hides(world.second(tale, None), tale.river)
    return ended(tale, [world.first(tale), hidden], world.name())


def does_not_record(world: World, tale: Tale) -> Trajectory:
    kept = world.draw.choice((None, world.name()))
    return ended(tale, [world.first(tale), world.second(tale, kept)], world.name())


def records_a_bridge_wrong(world: World, tale: Tale) -> Trajectory:
    """So that the second search finds nothing: the record broke first, not the query."""
    astray = world.step(tale, f"{tale.trade} river", None, world.name())
    return ended(tale, [world.first(tale, tale.trade), astray], world.name())


def misreads(world: World, tale: Tale) -> Trajectory:
    return dataclasses.replace(world.good(tale), answer=world.draw.choice((tale.town, *TRADES)))


def never_answers(world: World, tale: Tale) -> Trajectory:
    reason = world.draw.choice((StopReason.MALFORMED, StopReason.MAX_TOKENS))
    return dataclasses.replace(world.good(tale), answer="", stop_reason=reason)


def says_it_otherwise(world: World, tale: Tale) -> Trajectory:
    """With a word more, one less, or in another order."""
    question = dataclasses.replace(tale.question, answers=(f"River {tale.river} East",))
    said = (f"the River {tale.river} East shore", f"{tale.river} River", f"East River {tale.river}")
    answer = world.draw.choice(said)
    return dataclasses.replace(world.good(tale), answer=answer, question=question)


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
