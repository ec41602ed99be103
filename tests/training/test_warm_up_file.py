"""A warm-up file is looked for beside its recipe, and what is wrong with it is said in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from exsearch.agent.episode import begin
from exsearch.errors import DataError
from exsearch.jobs.train import train
from exsearch.methods.searcher import SearcherMethod
from exsearch.progress import Bars
from exsearch.records import Call, CallKind, StopReason, Trajectory, WeightedTrajectory, to_json
from exsearch.runs import is_complete, read_jsonl
from exsearch.training.warm_up import check_prompts, warm_up_data
from exsearch.trajectories import WeightedFile


def test_a_warm_up_file_beside_the_recipe_is_trained_on(
    tmp_path: Path,
    tiny_model_folder: Path,
    tiny_engine,
    sample_questions,
    sample_retriever,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = SearcherMethod(passages=3)
    data = warm_up_data(
        sample_questions, sample_retriever, tiny_engine.tokenizer, method, examples=2
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
    folder, best = train(home / "r.toml", out=tmp_path / "run", bars=Bars(False))
    assert best["stage"] == "warm_up"
    assert is_complete(folder / "warm_up" / "model")
    assert next(read_jsonl(folder / "metrics.jsonl"))["examples"] == 2
    assert "warm_up examples.jsonl" in (folder / "recipe.json").read_text()


def test_what_is_wrong_with_a_warm_up_file(tmp_path: Path, sample_questions, tiny_engine) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: can't be read"):
        WeightedFile(tmp_path / "none.jsonl")
    calls = (Call(CallKind.THINK, (1,), (2, 3)),)
    trajectory = Trajectory(sample_questions[0], (), calls, "x", StopReason.ANSWERED)
    file = tmp_path / "t.jsonl"
    weighted = WeightedTrajectory(trajectory, 1.0)
    file.write_text(to_json(weighted) + "\n" + to_json(trajectory) + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:2: .* has no weight: its question") as caught:
        list(WeightedFile(file))
    assert "\n" not in str(caught.value)
    file.write_text("[]\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1: not a trajectory \(expected a JSON"):
        list(WeightedFile(file))
    tokenizer, method = tiny_engine.tokenizer, SearcherMethod()
    with pytest.raises(DataError, match=r"t\.jsonl:1: .* a model with other tokens"):
        check_prompts([weighted], file, method, tokenizer)
    asked = begin(sample_questions[0], method, tokenizer).prompt_ids()
    fits = dataclasses.replace(trajectory, calls=(Call(CallKind.THINK, asked, (2, 3)),))
    check_prompts([WeightedTrajectory(fits, 1.0)], file, method, tokenizer)
    other = dataclasses.replace(fits, method="self-ask")
    with pytest.raises(DataError, match=r"t\.jsonl:2: .* with another system prompt, method or"):
        check_prompts([WeightedTrajectory(t, 1.0) for t in (fits, other)], file, method, tokenizer)
    without_ids = dataclasses.replace(trajectory, calls=(Call(CallKind.THINK, (), ()),))
    with pytest.raises(DataError, match=r"t\.jsonl:1: .* no token ids.*--engine transformers"):
        check_prompts([WeightedTrajectory(without_ids, 1.0)], file, method, tokenizer)
