"""A warm-up file is looked for beside its recipe, and what is wrong with it is said in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from exsearch import jobs
from exsearch.agent.episode import begin
from exsearch.methods.searcher import SearcherMethod
from exsearch.errors import DataError
from exsearch.records import Call, CallKind, StopReason, Trajectory, WeightedTrajectory, to_json
from exsearch.runs import is_complete, read_jsonl
from exsearch.training.warm_up import check_prompts, read_examples, warm_up_data


def test_a_warm_up_file_beside_the_recipe_is_trained_on(
    tmp_path: Path,
    tiny_model_folder: Path,
    tiny_engine,
    sample_questions,
    sample_retriever,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = SearcherMethod(passages=3)
    data = warm_up_data(
        sample_questions, sample_retriever, tiny_engine.tokenizer, agent, examples=2
    )
    home = tmp_path / "recipes"
    home.mkdir()
    lines = "".join(to_json(item) + "\n" for item in data.items)
    (home / "examples.jsonl").write_text(lines)
    (home / "r.toml").write_text(
        f'name = "r"\n[model]\nname = "{tiny_model_folder}"\ndevice = "cpu"\n'
        "[method]\npassages = 3\n"
        '[warm_up]\nfile = "examples.jsonl"\n[gem]\niterations = 0\ndev_questions = 1\n'
    )
    monkeypatch.chdir(tmp_path)
    folder, best = jobs.train(home / "r.toml", out=tmp_path / "run", progress=False)
    assert best["stage"] == "warm_up"
    assert is_complete(folder / "warm_up" / "model")
    assert next(read_jsonl(folder / "metrics.jsonl"))["examples"] == 2
    assert "warm_up examples.jsonl" in (folder / "recipe.json").read_text()


def test_what_is_wrong_with_a_warm_up_file(tmp_path: Path, sample_questions, tiny_engine) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: can't be read"):
        read_examples(tmp_path / "none.jsonl")
    calls = (Call(CallKind.THINK, (1,), (2, 3)),)
    trajectory = Trajectory(sample_questions[0], (), calls, "x", StopReason.ANSWERED)
    file = tmp_path / "t.jsonl"
    weighted = WeightedTrajectory(trajectory, 1.0)
    file.write_text(to_json(weighted) + "\n" + to_json(trajectory) + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:2: .* it has no weight: its question") as caught:
        read_examples(file)
    assert "\n" not in str(caught.value)
    tokenizer = tiny_engine.tokenizer
    with pytest.raises(DataError, match=r"t\.jsonl:1: .* a model with other tokens"):
        check_prompts([weighted], file, SearcherMethod(), tokenizer)
    asked = Episode(sample_questions[0], 0, SearcherMethod(), tokenizer).prompt_ids()
    fits = dataclasses.replace(trajectory, calls=(Call(CallKind.THINK, asked, (2, 3)),))
    check_prompts([WeightedTrajectory(fits, 1.0)], file, SearcherMethod(), tokenizer)
    file.write_text("[]\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1: not a weighted trajectory: expected a JSON"):
        read_examples(file)
    without_ids = dataclasses.replace(trajectory, calls=(Call(CallKind.THINK, (), ()),))
    file.write_text(to_json(WeightedTrajectory(without_ids, 1.0)) + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1: .* no token ids.*--engine transformers"):
        read_examples(file)
