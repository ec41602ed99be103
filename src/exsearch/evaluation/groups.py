"""Groups of questions by how they may be guessed, with figures of each and where answers are lost.

The chain of a question: its answer was found in a passage, shown in a prompt, recorded in a note,
and given. It looks at trajectories alone, so it stands beside every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from exsearch.agent.shown import shown_before
from exsearch.evaluation.metrics import answer_recall, exact_match, normalize
from exsearch.evaluation.significance import mean_figures
from exsearch.methods.guess import guess
from exsearch.records import Passage, Question, Trajectory

LINKS = ("found", "shown", "recorded", "answered")


class Group(StrEnum):
    """How a question may be guessed."""

    IN_QUESTION = "in question"  # an accepted answer stands in the question, as in "A or B?"
    YES_NO = "yes/no"
    NEITHER = "neither"  # the rule `guess` is never right here, by the way the groups are made


def group_of(question: Question) -> Group:
    """The group of a question that has an accepted answer."""
    golds = [gold for gold in map(normalize, question.answers) if gold]
    if any(gold in ("yes", "no") for gold in golds):
        return Group.YES_NO
    asked = f" {normalize(question.question)} "
    if any(f" {gold} " in asked for gold in golds):
        return Group.IN_QUESTION
    return Group.NEITHER


def chain(trajectory: Trajectory) -> dict[str, bool | None]:
    """Whether an accepted answer stood in what was found, shown, recorded and answered.

    None where it is not known what was shown, where nothing was recorded, and but for `answered`
    where the answer is yes or no, of which a passage that holds the word says nothing.

    Args:
        trajectory: The trajectory of a question with an accepted answer.
    """
    answers, steps = trajectory.question.answers, trajectory.steps
    links: dict[str, bool | None] = dict.fromkeys(LINKS)
    found = answer_recall(trajectory.passages, answers)
    if found is not None:
        shown = [shown_before(step) for step in steps]
        notes = [Passage("", "", evidence.text) for evidence in trajectory.evidence]
        links["found"] = found == 1
        if None not in shown:
            parts = [p for passages in shown for p in passages or ()]
            links["shown"] = answer_recall(parts, answers) == 1
        links["recorded"] = answer_recall(notes, answers) == 1 if notes else None
    return links | {"answered": exact_match(trajectory.answer, answers) == 1}


def guess_right(question: Question) -> float:
    """1 where the rule `guess` answers the question, which takes no model, else 0."""
    return exact_match(guess(question.question), question.answers)


def group_figures(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """The figures of each group of questions that there are.

    Args:
        rows: What `evaluate.row` gives for each question.
        names: The names of the figures of a row.
        seed: Decides the resampling of intervals.

    Returns:
        For each group by its name `{"n", <figure>, …, "ci95", "chain"}`, as `mean_figures` has
        them. A link of the `chain` counts the questions of which it and all links before it hold;
        `lucky` those answered though an earlier link does not. A link that is not known is None,
        and left out of the conditions.
    """
    found = {}
    for group in Group:
        own = [row for row in rows if row["group"] == group]
        if own:
            figures = {name: [row[name] for row in own] for name in names}
            links = {"chain": _links([row["chain"] for row in own])}
            found[group.value] = {"n": len(own), **mean_figures(figures, seed=seed), **links}
    return found


def _links(chains: Sequence[Mapping[str, bool | None]]) -> dict[str, int | None]:
    """How many chains hold up to each link, and how many end well all the same."""
    known = [link for link in LINKS if any(one[link] is not None for one in chains)]
    counts: dict[str, int | None] = dict.fromkeys(LINKS)
    for place, link in enumerate(known):
        counts[link] = sum(all(one[each] for each in known[: place + 1]) for one in chains)
    right = sum(one["answered"] is True for one in chains)
    return {**counts, "lucky": right - (counts["answered"] or 0)}
