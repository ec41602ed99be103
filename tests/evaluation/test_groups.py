"""Groups are by the question and its answers alone; the chain says where an answer was lost."""

from __future__ import annotations

import dataclasses

import pytest

from exsearch.evaluation.evaluate import row, summarise
from exsearch.evaluation.groups import Group, chain, group_of
from exsearch.evaluation.metrics import all_metrics
from exsearch.records import Evidence, Passage, Question, Step, StopReason, Trajectory
from exsearch.show.figures import summary_text

PASSAGE = Passage("p", "Ada Fenn", "She was a poet. She was born in Quillmoor.")
WHERE = Question("where", "Where was Ada Fenn born?", ("Quillmoor",))
METRICS = all_metrics()


@pytest.mark.parametrize(
    ("question", "answers", "group"),
    [
        ("Which came first, Alpha or The Beta?", ("Beta",), Group.IN_QUESTION),
        ("Where was Ada born?", ("Quillmoor", "Ada"), Group.IN_QUESTION),
        ("Is Ada a poet?", ("Yes",), Group.YES_NO),
        ("Is yes a word?", ("yes",), Group.YES_NO),
        ("Where is Russia?", ("US",), Group.NEITHER),  # at word boundaries
        ("Where was Ada born?", ("Quillmoor",), Group.NEITHER),
        ("What is the?", ("The",), Group.NEITHER),  # which normalises to nothing
    ],
)
def test_groups_by_hand(question, answers, group):
    assert group_of(Question("q", question, answers)) is group


def trajectory(*, found=True, shown=True, record="", answer="", question=WHERE):
    passage = PASSAGE if found else dataclasses.replace(PASSAGE, text="She was a poet.")
    whole = (0, len(passage.text))
    spans = None if shown is None else (((whole if shown else (0, 15)),),)
    evidence = Evidence(record, ("p",)) if record else None
    step = Step("birthplace", (passage,), evidence=evidence, spans=spans)
    return Trajectory(question, (step,), (), answer, StopReason.ANSWERED)


def test_the_chain_by_hand():
    links = ("found", "shown", "recorded", "answered")

    def values(**facts):
        made = chain(trajectory(**facts))
        return tuple(made[link] for link in links)

    note = "She was born in Quillmoor."
    assert values(record=note, answer="Quillmoor") == (True, True, True, True)
    assert values(record="A poet.", answer="a poet") == (True, True, False, False)
    assert values(shown=False, record=note) == (True, False, True, False)
    assert values(found=False) == (False, False, None, False)  # nothing was recorded at all
    assert values(shown=None) == (True, None, None, False)  # of an older version
    closed = Question("yes", "Is she a poet?", ("yes",))
    assert values(question=closed, answer="Yes") == (None, None, None, True)


def test_a_record_is_shown_what_was_selected():
    other = Passage("o", "", "Nothing.")
    step = Step("q", (PASSAGE, other), ("o",), spans=(((0, 99),), ((0, 8),)))
    made = chain(Trajectory(WHERE, (step,), (), "", StopReason.ANSWERED))
    assert (made["found"], made["shown"]) == (True, False)


def test_figures_of_each_group_and_the_links_that_hold():
    note = "She was born in Quillmoor."
    first = Question("first", "Which came first, Alpha or Beta?", ("Alpha",))
    trajectories = [
        trajectory(record=note, answer="Quillmoor"),
        trajectory(record=note, answer="a town"),
        trajectory(record="A poet.", answer="Quillmoor"),  # right, but not by its notes
        trajectory(shown=False),
        trajectory(found=False),
        trajectory(question=first, found=False, answer="Beta"),
    ]
    summary = summarise([row(t, METRICS) for t in trajectories], METRICS)
    assert list(summary["groups"]) == ["in question", "neither"]
    neither, inside = summary["groups"]["neither"], summary["groups"]["in question"]
    assert neither["chain"] == {"found": 4, "shown": 3, "recorded": 2, "answered": 1, "lucky": 1}
    assert (neither["n"], neither["em"], neither["guess"]) == (5, 2 / 5, 0.0)
    assert (inside["n"], inside["em"], inside["guess"]) == (1, 0.0, 0.0)
    assert neither["ci95"]["em"][0] < 2 / 5 < neither["ci95"]["em"][1]
    text = summary_text(summary)
    (line,) = [line for line in text.splitlines() if line.startswith("neither")]
    assert line.split()[-6:] == ["4", "3", "2", "1", "+", "1"]


def test_a_link_that_nobody_knows_is_left_out():
    rows = [row(trajectory(shown=None, answer="Quillmoor"), METRICS)]
    (found,) = summarise(rows, METRICS)["groups"].values()
    links = {"found": 1, "shown": None, "recorded": None, "answered": 1, "lucky": 0}
    assert found["chain"] == links
