"""Rates and the loss budget of a few trajectories are what they are by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from planted import (
    Tale,
    World,
    asks_badly,
    does_not_record,
    early_stop,
    ended,
    is_not_shown,
    misreads,
    never_answers,
    records_wrong,
    searches_on,
)
from tools.reading import kappa

from exsearch.cli import cli
from exsearch.diagnosis.alarms import WATCHED, alarms
from exsearch.diagnosis.diagnose import diagnose
from exsearch.diagnosis.loss import Cause, nearly_right
from exsearch.diagnosis.needs import fates, needs
from exsearch.diagnosis.rates import difference, rate
from exsearch.errors import RunError
from exsearch.evaluation.significance import mean_interval
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
    WeightedTrajectory,
    to_json,
)
from exsearch.show.diagnosis import TABLES, diagnosis_text
from exsearch.show.traces import find_traces

ROOT = Path(__file__).parents[2]


def run(*words: object, code: int = 0) -> Result:
    """A command that must leave with `code`."""
    result = CliRunner().invoke(cli, [*map(str, words), "-q"], prog_name="exsearch")
    assert result.exit_code == code, result.output
    return result


def fails(*words: object, code: int) -> str:
    """The one line of a command that must fail."""
    (line,) = run(*words, code=code).stderr.strip().splitlines()
    assert line.startswith("exsearch: error: ")
    return line


def write(file: Path, traces: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(to_json(trace) + "\n" for trace in traces))
    return file


@pytest.fixture(scope="module")
def world() -> World:
    return World(30, seed=5)


@pytest.fixture(scope="module")
def evaluation(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten questions: eight wrong answers of known causes, a right one, and a failed one."""
    tales = world.tales[:10]
    plants = [asks_badly, early_stop, is_not_shown, does_not_record, misreads, never_answers]
    found = [plant(world, tale) for plant, tale in zip(plants, tales, strict=False)]
    found += [records_wrong(world, tales[6]), asks_badly(world, tales[7])]
    found.append(searches_on(world, tales[8]))
    failed = dataclasses.replace(
        world.good(tales[9]), stop_reason=StopReason.RETRIEVER_ERROR, error="no reply"
    )
    folder = tmp_path_factory.mktemp("by-hand") / "evaluation"
    write(folder / "trajectories.jsonl", [*found, failed])
    return folder


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index, without the town of the eighth question."""
    folder = tmp_path_factory.mktemp("by-hand") / "index"
    world.index(folder, without={world.tales[7].place.id})
    return folder


@pytest.fixture(scope="module")
def part(evaluation: Path, place: Path) -> dict[str, Any]:
    from exsearch.retrievers import open_retriever

    (only,) = diagnose([evaluation], open_retriever(place))["parts"]
    return only


def test_the_loss_budget_has_a_cause_for_each_wrong_answer(part: dict[str, Any]):
    budget = part["budget"]["all"]
    assert (budget["answers"], budget["wrong"], part["failed"]) == (9, 8, 1)
    causes = {name: count for name, count in budget["counts"].items() if count}
    assert causes == {
        "retrieval": 1,
        "query": 1,
        "stop": 1,
        "not shown": 1,
        "record": 2,
        "reading of the pool": 1,
        "format": 1,
    }
    shares = {name: share for name, share in budget["shares"].items() if name != "bound"}
    assert math.isclose(sum(share["value"] for share in shares.values()), 1)
    assert shares["record"]["value"] == 2 / 8
    assert shares["record"]["ci95"] == list(mean_interval([1.0] * 2 + [0.0] * 6))
    assert shares["stop"]["examples"] == ["q1#0"]
    assert part["budget"]["neither"] == budget  # no question can be guessed


def test_the_rates_are_those_by_hand(part: dict[str, Any]):
    """Of nine trajectories; the tenth failed."""

    def of(signature: str, name: str) -> tuple[float, int, int]:
        found = part[signature][name]
        return found["value"], found["n"], found["of"]

    # Eight ended by themselves; two of them stopped without a town that a search finds (of the
    # bad query and the early stop), and one town is in no passage.
    assert of("stops", "early_stop") == (2 / 8, 8, 8)
    # The answer was in the records of the misreader, the silent one, and the one that searched on.
    assert of("stops", "over_search") == (1 / 3, 3, 3)
    # Searches without support: one each of the two bad queries and of the one that searched on.
    values = [1 / 2, 0, 0, 0, 0, 0, 0, 1 / 2, 1 / 3]
    assert of("drift", "no_support") == (pytest.approx(sum(values) / 9), 9, 18)
    # Six questions miss a need, and that with wrong records both. One is lost by retrieval, the
    # bad query's and the early stop's by the query, the other three questions' by reading.
    assert of("lost_by", "retrieval") == (1 / 6, 6, 7)
    assert of("lost_by", "query") == (2 / 6, 6, 7)
    assert of("lost_by", "reading") == (3 / 6, 6, 7)
    assert sum(of("lost_by", n)[0] for n in ("retrieval", "query", "reading", "untold")) == 1


def test_cost_is_a_mean_over_all_trajectories(part: dict[str, Any]):
    actions = part["cost"]["actions"]
    steps = [2, 1, 2, 2, 2, 2, 2, 2, 3, 2]
    assert part["cost"]["searches"] == 2
    assert actions["record"]["calls"]["value"] == sum(steps) / 10
    assert actions["think"]["read"]["value"] == 3 * (sum(steps) + 10) / 10


def test_examples_open(evaluation: Path, part: dict[str, Any]):
    for rates in (part["stops"], part["spread"], part["drift"], part["budget"]["all"]["shares"]):
        for found in rates.values():
            assert len(found["examples"]) <= 5
            for id_ in found["examples"]:
                assert len(find_traces(evaluation, id_)) == 1
    assert part["spread"]["record_wrong"]["examples"] == ["q3#0", "q6#0"]


def test_the_command_shows_tables_and_gives_the_same_as_json(
    evaluation: Path, place: Path, part: dict[str, Any]
):
    shown = run("diagnose", evaluation, "--index", place).stdout
    assert "10 trajectories, 1 of them failed and left out; " in shown
    assert "stopped early %" in shown and "25.0 [7.1, 59.1] (8)" in shown
    assert f"exsearch show {evaluation}/trajectories.jsonl --id ID" in shown
    values = json.loads(run("diagnose", evaluation, "--index", place, "--json").stdout)
    assert values["parts"] == [part]
    assert values["runs"] == []


def test_other_places_are_refused_in_a_line(tmp_path: Path):
    assert "no such folder" in fails("diagnose", tmp_path / "none", code=7)
    assert "neither a run nor an evaluation" in fails("diagnose", tmp_path, code=7)
    empty = write(tmp_path / "e" / "trajectories.jsonl", [])
    assert "no trajectory" in fails("diagnose", empty.parent, code=3)
    empty.write_text("{}\n")
    assert "trajectories.jsonl:1" in fails("diagnose", empty.parent, code=3)


def test_another_index_is_told(evaluation: Path, place: Path):
    from exsearch.retrievers import open_retriever

    settings = evaluation / "settings.json"
    for identity, lines in ((open_retriever(place).identity(), 0), ("sha256:77aa", 1)):
        settings.write_text(json.dumps({"index": identity}))
        said = run("diagnose", evaluation, "--index", place).stderr.splitlines()
        assert len(said) == lines and all("made with another index" in line for line in said)
    settings.unlink()


def test_ids_and_names_can_not_steer_a_terminal(tmp_path: Path, world: World):
    tale = world.tales[0]
    evil = dataclasses.replace(tale.question, id="q\x1b[2J")
    trajectory = dataclasses.replace(early_stop(world, tale), question=evil, method="m\x1b[2J")
    file = write(tmp_path / "a" / "trajectories.jsonl", [trajectory])
    other = write(tmp_path / "b" / "trajectories.jsonl", [world.good(tale)])
    assert "\x1b" not in diagnosis_text(diagnose([file.parent, other.parent]))


# A run: one question in each round with two samples, and a dev question at each stage.


def weighted(world: World, tale: Tale, weights: tuple[float, float], right: int) -> list[Any]:
    """Two samples of a question, the first `right` of them right, with these weights."""
    found = []
    for sample, weight in enumerate(weights):
        one = world.good(tale) if sample < right else early_stop(world, tale)
        one = dataclasses.replace(one, sample=sample, iteration=1)
        found.append(WeightedTrajectory(one, weight, (math.log(weight),), ((7,),)))
    return found


@pytest.fixture
def training(world: World, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    tales = world.tales
    dev = tales[20:24]
    for stage, right in (("start", 2), ("iteration-01", 1)):
        done = [world.good(t) if n < right else misreads(world, t) for n, t in enumerate(dev)]
        write(folder / stage / "dev" / "trajectories.jsonl", done)
    samples = [
        *weighted(world, tales[10], (0.5, 0.5), 2),
        *weighted(world, tales[11], (0.95, 0.05), 1),
    ]
    write(folder / "iteration-01" / "trajectories.jsonl", samples)
    events = [
        {"stage": "iteration-01", "event": "e_step", "sampling_seconds": 2.5},
        {"stage": "iteration-01", "event": "m_step", "questions": 1, "hopeless": 1, "seconds": 4.0},
        {
            "stage": "iteration-01",
            "event": "objective",
            "mean": -2.0,
            "gain": {"difference": -1.0, "standard_error": 0.25},
        },
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return folder


def test_a_run_has_its_rounds_by_hand(training: Path):
    found = diagnose([training])
    kinds = [(part["stage"], part["kind"]) for part in found["parts"]]
    assert kinds == [("start", "dev"), ("iteration-01", "sampled"), ("iteration-01", "dev")]
    ((start, first),) = [run["rounds"] for run in found["runs"]]
    assert start["sampled"] is None and start["dev"]["em"]["value"] == 2 / 4
    sampled = first["sampled"]
    assert sampled["em"]["value"] == (1 + 1 / 2) / 2
    assert sampled["effective_samples"]["value"] == pytest.approx(
        (2 + 1 / (0.95**2 + 0.05**2)) / 2 / 2
    )
    assert sampled["objective"]["value"] == pytest.approx(math.log(1 / 2))
    assert sampled["surprise"]["value"] == pytest.approx(surprise_by_hand())
    assert first["weights"] == [1, 0, 0, 0, 0, 2, 0, 0, 0, 1]
    assert first["gap"]["em"]["value"] == 0.75 - 0.5  # both by the model before the round
    assert first["hopeless"]["value"] == 1 / 2
    assert first["journal"]["seconds"] == {"sampling": 2.5, "training": 4.0}
    assert [alarm["name"] for alarm in found["runs"][0]["alarms"]] == ["objective falls"]
    assert "1 |▄    █   ▄| 1" in diagnosis_text(found)


def surprise_by_hand() -> float:
    """A thought has two tokens with -log p of 1 and 0.5, a record one of 0.25."""
    good = (3 * 1.5 + 2 * 0.25) / (3 * 2 + 2)
    early = (2 * 1.5 + 0.25) / (2 * 2 + 1)
    return (good + (good + early) / 2) / 2


def test_a_damaged_journal_is_one_line(training: Path):
    (training / "metrics.jsonl").write_text(
        '{"stage": "iteration-01", "event": "objective", "gain": "better"}\n'
    )
    with pytest.raises(RunError, match="altered"):
        diagnose([training])


def test_needs_without_a_decomposition_are_the_supports():
    two = Question("q", "Who built it?", ("Ada",), ("a", "b"))
    bridge, holder = Passage("a", "", "It stands in Oslo."), Passage("b", "", "Ada built it.")
    other = Passage("c", "", "Ada sang.")
    step = Step("who", (bridge, holder, other), evidence=Evidence("Ada", ("b",)))
    tale = Tale(two, bridge, holder, "", "", "")
    a, b = fates(ended(tale, [step], "Ada"))
    assert (a.found, a.recorded, b.recorded) == (True, False, True)
    assert not needs(two)[1].said_by(other)
    (single,) = needs(dataclasses.replace(two, supporting=("b",)))
    assert single.said_by(other) and single.query == "Who built it?"
    (unnamed,) = needs(dataclasses.replace(two, supporting=()))
    assert unnamed.support_id is None
    assert needs(Question("q", "Is it old?", ("yes",))) == ()


@pytest.mark.parametrize(
    ("gold", "answer", "near"),
    [
        ("Dennis Publishing", "Dennis Publishing Ltd", True),
        ("2018", "February 25, 2018", True),
        ("Mexico", "Mexico City", False),
        ("Sidney Hall", "Kimber Leland Sidney Hall", False),
        ("Kerris Lilla Dorsey", "Kerris Dorsey", True),
        ("William I of Dampierre", "William II of Dampierre", False),
        ("4 July 1990", "July 1990", False),
        ("Chaplin, Charlie", "Charlie Chaplin", True),
        ("yes", "yes, both", True),
        ("yes", "yes and no", False),
        ("yes", "Oslo", False),
        ("Oslo", "", False),
    ],
)
def test_an_answer_is_right_in_other_words(gold: str, answer: str, near: bool):
    assert nearly_right(answer, Question("q", "Which?", (gold,))) is near


def test_a_difference_has_the_interval_of_both():
    """Of shares it is Newcombe's, here his table's 56 of 70 and 48 of 80 (method 10)."""
    after = rate([1.0] * 56 + [0.0] * 14)
    before = rate([1.0] * 48 + [0.0] * 32)
    found = difference(after, before)
    assert found["value"] == pytest.approx(0.2)
    assert found["ci95"] == pytest.approx([0.0524, 0.3339], abs=1e-4)


def test_a_question_with_more_samples_counts_no_more(tmp_path: Path, world: World):
    """One question stops early once in four samples, another always."""
    a, b = world.tales[:2]
    one: list[Trajectory] = [world.good(a) for _ in range(3)] + [early_stop(world, a)]
    two = [world.good(b), early_stop(world, b)]
    traces = [dataclasses.replace(t, sample=n) for ts in (one, two) for n, t in enumerate(ts)]
    (part,) = diagnose([write(tmp_path / "t.jsonl", traces)])["parts"]
    found = part["stops"]["early_stop"]
    assert (found["value"], found["n"], found["of"]) == ((1 / 4 + 1 / 2) / 2, 2, 6)
    assert found["examples"] == ["q0#3", "q1#1"]


def test_no_stage_gives_no_alarm():
    assert alarms([]) == []


def test_the_page_defines_what_is_shown():
    page = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    labels = [
        label.strip(" %").partition(": ")[2] or label.strip(" %")
        for name in ("stops", "spread", "drift", "lost_by")
        for label in TABLES[name][1].values()
    ]
    for term in [*labels, *Cause]:
        assert term.removeprefix("of it ").removeprefix("by a ") in page, term
    watched = [name for name, *_ in WATCHED]
    for term in [*watched, "overfitting", "weights collapse", "hopeless questions"]:
        assert term in page, term


def test_a_record_counts_where_it_says_what_the_passage_that_it_names_says():
    passages = (
        Passage("businger", "Joost Businger", "He is a professor at the University of Washington."),
        Passage("journal", "A journal", "It was established in 1970."),
    )
    question = Question("q", "When was his university founded?", ("1861",), ("businger", "uw"))
    for text, recorded in (("1970", False), ("University of Washington", True)):
        step = Step("his university", passages, evidence=Evidence(text, ("businger",)))
        calls = (Call(CallKind.RECORD, (1,), (2,)),)
        fate, _ = fates(Trajectory(question, (step,), calls, "1970", StopReason.ANSWERED))
        assert (fate.shown, fate.recorded) == (True, recorded), text


def test_the_agreement_with_a_reading_is_cohens_kappa():
    read = ["record"] * 6 + ["query"] * 4
    told = ["record"] * 5 + ["query"] * 4 + ["record"]
    # 8 of 10 the same; by chance .6 * .6 + .4 * .4 = .52
    assert kappa(read, told) == pytest.approx((0.8 - 0.52) / (1 - 0.52))


def test_what_was_read_stands_by_ids_and_labels_alone():
    for name in ("first", "second"):
        lines = (ROOT / "results" / "readings" / f"{name}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len({(row["part"], row["id"]) for row in rows}) == 60
        assert {row["cause"] for row in rows} <= set(Cause)
        assert all(row.keys() == {"id", "part", "cause"} for row in rows)
