"""Every recipe in the project can be read, and says what it means."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from exsearch.config import load_config, parse_config, to_plain
from exsearch.errors import ConfigError
from exsearch.methods.searcher import SearcherMethod
from exsearch.training.recipe import Recipe

PROJECT = Path(__file__).parents[2]
RECIPES = sorted([*PROJECT.glob("recipes/*.toml"), *PROJECT.glob("src/exsearch/recipes/*.toml")])


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_in_the_project(file):
    recipe = load_config(Recipe, file)
    assert recipe.name == file.stem
    assert recipe.e_step.chunk > 0
    plain = json.loads(json.dumps(to_plain(recipe), allow_nan=False))  # strict JSON in the run
    assert parse_config(Recipe, plain, place="saved") == recipe


def test_defaults_are_the_methods():
    recipe = parse_config(Recipe, {"name": "r"}, place="here")
    assert recipe.e_step.weighting == "posterior"
    assert recipe.e_step.sampling.is_model
    assert recipe.e_step.weight_temperature == 1
    assert not recipe.e_step.length_normalized
    assert recipe.m_step.min_log_likelihood == -math.inf
    assert recipe.warm_up.examples == 0


def test_an_adapter_that_the_m_step_could_not_train_is_refused_at_once():
    warm_up = {"examples": 1, "lora_rank": 8}
    with pytest.raises(ConfigError, match=r"lora_alpha are 8 and 32, those of m_step 0 and 32"):
        parse_config(Recipe, {"name": "r", "warm_up": warm_up}, place="here")
    for more in ({"m_step": {"lora_rank": 8}}, {"gem": {"iterations": 0}}):
        assert parse_config(Recipe, {"name": "r", "warm_up": warm_up, **more}, place="here")
    assert parse_config(Recipe, {"name": "r", "warm_up": {"lora_rank": 8}}, place="here")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "batch_size", 0),
        ("e_step", "samples", 0),
        ("e_step", "chunk", 0),
        ("e_step", "temperature", -1.0),
        ("e_step", "weight_temperature", 0.0),
        ("e_step", "top_p", 1.5),
        ("e_step", "max_error_share", float("nan")),
        ("m_step", "questions_per_step", 0),
        ("m_step", "max_grad_norm", 0.0),  # learns nothing
        ("m_step", "max_grad_norm", -1.0),  # learns the contrary
        ("warm_up", "max_grad_norm", float("nan")),
        ("m_step", "min_weight", 1.5),
        ("m_step", "min_log_likelihood", float("nan")),
        ("gem", "checkpoint_seconds", -1.0),
        ("m_step", "epochs", 0),
        ("warm_up", "examples", -1),
        ("gem", "iterations", -1),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_at_once(section, key, value):
    with pytest.raises(ConfigError, match=rf"here: {section}: {key} is {value}, expected"):
        parse_config(Recipe, {"name": "r", section: {key: value}}, place="here")


def test_a_recipe_of_before_loads_under_its_old_names():
    steps = {"warm_up_share": 0.25}
    values = {"name": "r", "agent": {"max_steps": 3}, "m_step": steps, "warm_up": steps}
    recipe = parse_config(Recipe, values, place="here")
    assert recipe.method == SearcherMethod(max_steps=3)
    assert (recipe.m_step.rise_share, recipe.warm_up.rise_share) == (0.25, 0.25)
    both = {"name": "r", "agent": {}, "method": {}}
    with pytest.raises(ConfigError, match="here: agent is now called method: give only one"):
        parse_config(Recipe, both, place="here")


@pytest.mark.parametrize("name", ["searcher", "direct", "rag", "self-ask"])
def test_a_recipe_names_its_method(name):
    recipe = parse_config(Recipe, {"name": "r", "method": {"name": name}}, place="here")
    assert recipe.method.name == name
    assert to_plain(recipe)["method"]["name"] == name


def test_a_metric_that_is_none_chooses_no_iteration():
    gem = {"select_by": "answer_recall_at_k"}  # the earlier name of union_answer_recall
    assert parse_config(Recipe, {"name": "r", "gem": gem}, place="here").gem.select_by
    with pytest.raises(ConfigError, match=r"here: .*no metric 'em1'; did you mean em\?"):
        parse_config(Recipe, {"name": "r", "gem": {"select_by": "em1"}}, place="here")


def test_greedy_samples_of_one_question_are_not_weighed_against_each_other():
    for samples in (2, 4):
        e_step = {"temperature": 0.0, "samples": samples}
        with pytest.raises(ConfigError, match=rf"here: {samples} samples at temperature 0 are"):
            parse_config(Recipe, {"name": "r", "e_step": e_step}, place="here")
    parse_config(Recipe, {"name": "r", "e_step": {"temperature": 0, "samples": 1}}, place="here")


def test_gradients_may_be_left_unclipped():
    m_step = {"max_grad_norm": math.inf}
    assert parse_config(Recipe, {"name": "r", "m_step": m_step}, place="here")


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"e_step\.sample; did you mean e_step\.samples\?"):
        parse_config(Recipe, {"name": "r", "e_step": {"sample": 3}}, place="here")
