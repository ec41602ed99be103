"""What is judged is drawn and ordered by a seed, tells no method, and is known again."""

from __future__ import annotations

import json
import random

import pytest
from judged_page import PLACES, write_places

from exsearch.errors import ConfigError, RunError
from exsearch.judging.agreement import alpha
from exsearch.judging.items import Kind
from exsearch.judging.study import Study, Verdict, checked_name
from exsearch.judging.summary import summarise
from exsearch.show.judging import summary_text


@pytest.fixture
def places(tmp_path):
    return write_places(tmp_path)


@pytest.fixture
def study(tmp_path, places):
    return Study(tmp_path / "judged.jsonl", places)


def of_kind(study, kind):
    return [item for item in study.items.values() if item.kind is kind]


def answer(study, question, text):
    """The id of the item of an answer."""
    (found,) = (
        item.id
        for item in of_kind(study, Kind.ANSWER)
        if f"engineer {question} " in item.content["question"] and item.content["answer"] == text
    )
    return found


def test_equal_things_are_one_item_with_many_uses(study):
    assert len(of_kind(study, Kind.PASSAGE)) == 8  # two a question, found by three methods
    assert len(of_kind(study, Kind.EVIDENCE)) == 4
    right = study.uses[answer(study, 2, "Wexcombe")]
    assert [use.part.place.name for use in right] == list(PLACES)


def test_an_item_tells_no_method_and_no_id_of_a_run(study):
    text = json.dumps([[item.id, item.content] for item in study.items.values()])
    assert not any(name.replace("-", sign) in text for name in PLACES for sign in "-_")
    assert '"q1' not in text


def test_a_query_comes_with_what_was_known_then(study):
    known = {i.content["query"]: i.content["known"] for i in of_kind(study, Kind.QUERY)}
    assert known["engineer 1 birthplace"] == []
    later = {q: facts for q, facts in known.items() if q.startswith("Wexcombe")}
    assert later and all(len(facts) == 1 for facts in later.values())


def test_the_order_is_of_the_seed_alone(tmp_path, places):
    orders = [
        [*Study(tmp_path / f"{n}.jsonl", own, seed=seed).items]
        for n, (own, seed) in enumerate([(places, 1), (places[::-1], 1), (places, 2)])
    ]
    assert orders[0] == orders[1] != orders[2] and {*orders[0]} == {*orders[2]}


def test_a_sample_has_the_same_questions_of_each_method(tmp_path, places):
    study = Study(tmp_path / "judged.jsonl", places, sample=2, seed=3)
    asked = [
        {u.trajectory.question.id for own in study.uses.values() for u in own if u.part is part}
        for part in study.parts
    ]
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) == 2


def test_judgements_outlive_the_study_and_the_last_counts(tmp_path, places, study):
    item = next(iter(study.items))
    study.add("Ada", item, Verdict.NO)
    study.add(" Ada ", item, Verdict.YES)
    study.add("Bert", item, Verdict.UNSURE)
    with study.file.open("ab") as file:
        file.write(b'{"judge": "Ada", "it')  # killed while it wrote
    again = Study(study.file)  # it remembers the places
    assert [*again.items] == [*study.items]
    assert [(j.judge, j.verdict) for j in again.judgements()] == [
        ("Ada", "yes"),
        ("Bert", "unsure"),
    ]
    again.add("Ada", [*study.items][1], Verdict.NO)
    assert len(study.file.read_bytes().splitlines()) == 5
    assert len(again.judgements()) == 3


def test_a_changed_run_is_noticed(tmp_path, places, study):
    study.add("Ada", next(iter(study.items)), Verdict.YES)
    with (places[1] / "trajectories.jsonl").open("a", encoding="utf-8") as file:
        file.write((places[0] / "trajectories.jsonl").read_text("utf-8").splitlines()[0] + "\n")
    with pytest.raises(RunError, match="has changed since"):
        Study(study.file)
    with pytest.raises(RunError, match="others were named"):
        Study(study.file, places[:1])


def test_a_moved_run_is_known_again(tmp_path, places, study):
    study.add("Ada", next(iter(study.items)), Verdict.YES)
    moved = [place.rename(tmp_path / f"moved-{n}") for n, place in enumerate(places)]
    assert len(Study(study.file, moved).judgements()) == 1


def test_a_file_is_gone_on_with_as_it_was_begun(tmp_path, places, study):
    with pytest.raises(ConfigError, match="no such file"):
        Study(tmp_path / "none.jsonl")
    study.add("Ada", next(iter(study.items)), Verdict.YES)
    with pytest.raises(ConfigError, match="was begun with sample None"):
        Study(study.file, sample=3)
    with pytest.raises(ConfigError, match="was begun with seed 0"):
        Study(study.file, seed=1)
    head = study.file.read_bytes().splitlines()[0]
    for wrong in (b"[]", b'{"form": 9, "seed": 0, "parts": []}', head.replace(b"sha256", b"sha1")):
        study.file.write_bytes(wrong + b"\n")
        with pytest.raises(RunError, match="no file of judgements"):
            Study(study.file)
    study.file.write_bytes(head + b'\n{"judge": "Ada", "item": "x", "verdict": "yes", "at": ""}\n')
    with pytest.raises(RunError, match=r"jsonl:2: damaged"):
        Study(study.file).judgements()


@pytest.mark.parametrize("name", ["", "  ", "A\nda", "Ada\u202e", "A" * 65, "\x1b[1mAda"])
def test_a_name_that_can_not_be_seen_is_refused(name):
    with pytest.raises(ValueError, match="a judge's name"):
        checked_name(name)


def test_alpha_of_two_judges_as_worked_out_by_hand():
    # Ten items, of which two are disputed. Of the 20 values 10 are yes and 10 no.
    # Observed disagreement: 2 * 2 / 20 = 0.2. Expected: 2 * 10 * 10 / (20 * 19) = 10 / 19.
    # Alpha: 1 - 0.2 * 19 / 10 = 0.62.
    said = {"Ada": "yyyynnnnyn", "Bert": "yyynnnnnyy"}
    triples = [(judge, str(n), v) for judge, own in said.items() for n, v in enumerate(own)]
    value, items = alpha(random.Random(0).sample(triples, len(triples)))
    assert value == pytest.approx(0.62) and items == 10


def test_alpha_of_three_judges_who_left_some_out_as_worked_out_by_hand():
    # Item a has yes, yes, no: each of the 4 ordered unlike pairs counts 1 / (3 - 1). Item b has
    # no, no. Item c has one value, which is left out. So of 5 values 2 are yes and 3 no.
    # Observed: 4 / 2 / 5 = 0.4. Expected: 2 * 2 * 3 / (5 * 4) = 0.6. Alpha: 1 - 0.4 / 0.6 = 1 / 3.
    triples = [("A", "a", "yes"), ("B", "a", "yes"), ("C", "a", "no")]
    triples += [("A", "b", "no"), ("C", "b", "no"), ("B", "c", "yes")]
    value, items = alpha(triples)
    assert value == pytest.approx(1 / 3) and items == 2


def test_alpha_is_not_defined_where_nothing_differs_or_nobody_shares():
    assert alpha([]) == (None, 0)
    assert alpha([("A", "a", "yes"), ("B", "a", "yes")]) == (None, 1)
    assert alpha([("A", "a", "yes"), ("B", "b", "no")]) == (None, 0)


def test_a_summary_sets_what_judges_say_beside_the_metrics(study):
    for question, text, verdict in (
        (0, "Wexcombe", "yes"),
        (1, "the town of Wexcombe", "yes"),  # right, and EM says no
        (0, "Quillmoor", "no"),
        (1, "Quillmoor", "no"),
        (2, "Wexcombe", "no"),  # of all three: EM says yes, the judge no
    ):
        study.add("Ada", answer(study, question, text), Verdict(verdict))
    study.add("Bert", answer(study, 0, "Quillmoor"), Verdict.YES)
    study.add("Bert", answer(study, 2, "Wexcombe"), Verdict.UNSURE)
    found = summarise(study)
    assert found["judges"] == {"Ada": 5, "Bert": 2}
    first, second, third = (part["rates"] for part in found["parts"])
    assert (first["answer"]["value"], first["answer"]["n"]) == (pytest.approx(2 / 3), 3)
    assert first["em"]["value"] == pytest.approx(2 / 3)
    assert first["right_not_em"]["examples"] == ["q1#0"]
    assert first["em_not_right"]["examples"] == ["q2#0"]
    assert second["answer"]["value"] == pytest.approx(0.5 / 3)  # the judges differ on one
    assert third["answer"]["value"] == pytest.approx(1 / 3)
    against = found["against"][0]
    assert against["n"] == 3 and against["em"]["difference"] == pytest.approx(1 / 3)
    assert against["answer"]["difference"] == pytest.approx(0.5)
    assert found["agreement"]["answer"] == {"alpha": 0.0, "n": 1}
    text = summary_text(found)
    assert "q1#0" in text and "66.7 [" in text and "+50.0 [" in text
