"""The samples of another run's first E-step can be weighed anew, in place of drawing them again.

Estimators that are compared then differ in their weights alone. It samples and scores nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from exsearch.config import first_difference, to_plain, user_path
from exsearch.errors import RunError
from exsearch.json_files import read_json
from exsearch.models.settings import RECIPE_FILE
from exsearch.records import Question, WeightedTrajectory
from exsearch.training.e_step import weigh_anew
from exsearch.training.journal import Journal
from exsearch.training.recipe import Recipe
from exsearch.training.stages import RunFolder, iteration_name
from exsearch.trajectories import WeightedFile, by_question

_DRAWN_BY = ("seed", "model", "retriever", "method", "warm_up", "teacher")
_COST = ("samples", "failed", "sampling_seconds", "scoring_seconds", "turn_seconds")
_SCORED_BY = ("samples", "temperature", "top_p", "length_normalized")


def shared_samples(
    recipe: Recipe, questions: Sequence[Question]
) -> tuple[list[WeightedTrajectory], dict[str, Any]]:
    """The samples of the run `e_step.samples_of`, with the weights that `recipe` gives them.

    Args:
        recipe: The recipe of the run that borrows them.
        questions: The questions of its first E-step.

    Returns:
        The weighted samples, and what they cost the run that drew them: its counts and seconds, as
        `sample_and_weigh` gives them for a chunk.

    Raises:
        RunError: that run began from another model, drew its samples otherwise or from other
            questions, or has not drawn them yet.
        DataError: its trajectories can't be read.
    """
    run = RunFolder(user_path(recipe.e_step.samples_of))
    first = iteration_name(1)
    place = f"e_step.samples_of: {run.folder}"
    cost = Journal(run.metrics).find(first, "e_step") if run.metrics.is_file() else None
    if cost is None:
        raise RunError(f"{place} has not finished its first E-step; let it do so first")
    other = read_json(run.folder / RECIPE_FILE, RunError, recipe=dict)["recipe"]
    own = json.loads(json.dumps(to_plain(recipe)))
    if difference := first_difference(_drawn_by(other), _drawn_by(own)):
        raise RunError(f"{place} drew its samples otherwise: {difference}")
    items = list(WeightedFile(run.stage(first).trajectories))
    groups = by_question(items)
    if [group[0].trajectory.question for group in groups] != list(questions):
        raise RunError(f"{place} drew its samples for other questions")
    return weigh_anew(items, recipe.e_step), {name: cost[name] for name in _COST}


def _drawn_by(recipe: dict[str, Any]) -> dict[str, Any]:
    """The part of a recipe that decides which trajectories are sampled first, and their scores."""
    e_step = {name: recipe["e_step"].get(name) for name in _SCORED_BY}
    return {**{name: recipe.get(name) for name in _DRAWN_BY}, "e_step": e_step}
