"""The journal has each event once, in strict JSON, however often the run was stopped."""

from __future__ import annotations

import json
import math

from exsearch.training.journal import Journal


def strict(line: str):
    def refuse(word):
        raise ValueError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_events_are_found_again_and_written_once(tmp_path):
    file = tmp_path / "metrics.jsonl"
    journal = Journal(file)
    assert journal.find("warm_up", "dev") is None
    journal.log("warm_up", "step", step=1, loss=2.0)
    journal.log("warm_up", "step", step=2, loss=1.5)
    journal.log("warm_up", "dev", em=0.25)
    again = Journal(file)
    again.log("warm_up", "step", step=2, loss=99.0)  # a resumed run repeats it
    again.log("warm_up", "dev", em=0.99)
    again.log("iteration-01", "dev", em=0.5)
    events = [strict(line) for line in file.read_text().splitlines()]
    assert [(e["stage"], e["event"], e["step"]) for e in events] == [
        ("warm_up", "step", 1),
        ("warm_up", "step", 2),
        ("warm_up", "dev", None),
        ("iteration-01", "dev", None),
    ]
    assert events[1]["loss"] == 1.5
    assert all(e["time"] > 0 for e in events)
    found = Journal(file).find("warm_up", "dev")
    assert found is not None
    assert found["em"] == 0.25


def test_what_json_has_no_number_for_is_null_wherever_it_stands(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.log("s", "e", a=math.nan, b={"c": -math.inf}, d=[1.0, math.inf], e=(math.nan,))
    (event,) = [strict(line) for line in journal.file.read_text().splitlines()]
    assert (event["a"], event["b"], event["d"], event["e"]) == (
        None,
        {"c": None},
        [1.0, None],
        [None],
    )


def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path):
    file = tmp_path / "metrics.jsonl"
    Journal(file).log("s", "first", x=1)
    with file.open("a") as torn:
        torn.write('{"stage": "s", "event": "sec')
    journal = Journal(file)
    assert journal.find("s", "sec") is None
    journal.log("s", "second", x=2)
    assert [strict(line)["event"] for line in file.read_text().splitlines()] == ["first", "second"]
