"""A command writes only where it began or where nothing is, and names what stands there instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from exsearch.data import sample_path

Run = Callable[..., Result]
Fails = Callable[..., str]

WORK = "years of work"
QUESTION = {"id": "a", "question": "Who wrote the play?", "answers": ["Barrie"]}


def tree(folder: Path) -> dict[str, bytes | None]:
    files = (p for p in folder.rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else None for p in files}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(QUESTION) + "\n")
    return file


@pytest.fixture
def command(questions: Path, scripted: list[object]) -> Callable[[str, Path], list[object]]:
    """A command that would write to a place."""

    def command(name: str, out: Path) -> list[object]:
        recipe = questions.with_name("tiny.toml")
        recipe.write_text('name = "tiny"\n[model]\nname = "none"\n')
        source = questions.with_name("nq-open.jsonl")
        source.write_text('{"question": "Who?", "answer": ["Ada"]}\n')
        return {
            "index": ["index", sample_path("corpus")],
            "data": ["data", "convert", "--format", "nq-open", source],
            "rollout": ["rollout", "--questions", questions, *scripted],
            "evaluate": ["evaluate", "--questions", questions, *scripted],
            "train": ["train", recipe],
            "quickstart": ["quickstart", "--model", "none"],
        }[name] + ["--out", out]

    return command


ALL = ("index", "data", "rollout", "evaluate", "train", "quickstart")
CODES = {"index": 2, "data": 2}  # as for any option that can't be used; else as for a run


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_others_is_written_over(
    fails: Fails, command: Callable[..., list[object]], tmp_path: Path, name: str
):
    places = {kind: tmp_path / kind for kind in ("file", "folder", "link", "manifest")}
    places["file"].write_text(WORK)
    places["folder"].mkdir()
    for other in ("settings.json", "summary.json", "predictions.jsonl", "retriever.json"):
        (places["folder"] / other).write_text(json.dumps({"editor": WORK, "model": 1}))
    places["manifest"].mkdir()  # of a browser's extension, say
    (places["manifest"] / "manifest.json").write_text(json.dumps({"name": WORK}))
    places["link"].symlink_to(places["folder"])
    commands = {kind: command(name, place) for kind, place in places.items()}
    before = tree(tmp_path)
    for kind, words in commands.items():
        message = fails(*words, code=CODES.get(name, 7))
        assert str(places[kind]) in message
        assert "name a" in message or "name the place that is meant" in message
    assert tree(tmp_path) == before


def test_a_rollout_does_not_empty_its_own_questions(
    fails: Fails, command: Callable[..., list[object]], questions: Path
):
    assert "not begun by this command" in fails(*command("rollout", questions), code=7)
    assert json.loads(questions.read_text()) == QUESTION


def test_two_rollouts_whose_names_differ_in_their_ending(
    run: Run, fails: Fails, command: Callable[..., list[object]], tmp_path: Path
):
    run(*command("rollout", tmp_path / "a.jsonl"), "--samples", 3)
    first = (tmp_path / "a.jsonl").read_bytes()
    run(*command("rollout", tmp_path / "a.json"))
    run(*command("rollout", tmp_path / "a.jsonl"), "--samples", 3)
    assert (tmp_path / "a.jsonl").read_bytes() == first
    assert (tmp_path / "a.json").read_bytes().count(b"\n") == 1
    (tmp_path / "a.jsonl.bak").write_text(WORK)
    for name in ("a.jsonl.bak", "a.jsonl.chunks", "a.json.settings.json"):
        assert "not begun" in fails(*command("rollout", tmp_path / name), code=7)
    assert (tmp_path / "a.jsonl.bak").read_text() == WORK


def test_others_settings_beside_a_rollout_stay(
    fails: Fails, command: Callable[..., list[object]], tmp_path: Path
):
    other = tmp_path / "t.jsonl.settings.json"
    for text in ("{}", "[1]", "// comments\n{}"):
        other.write_text(text)
        assert str(other) in fails(*command("rollout", tmp_path / "t.jsonl"), code=7)
        assert other.read_text() == text


def test_an_index_and_a_data_set_take_the_place_of_their_own_kind_only(
    run: Run, fails: Fails, command: Callable[..., list[object]], tmp_path: Path
):
    for name, other in (("index", "data"), ("data", "index")):
        out = tmp_path / name
        run(*command(name, out))
        run(*command(name, out))
        before = tree(out)
        assert "name another folder" in fails(*command(other, out), code=2)
        assert tree(out) == before
        (out / "notes.txt").write_text(WORK)
        assert str(out / "notes.txt") in fails(*command(name, out), code=2)
        assert (out / "notes.txt").read_text() == WORK


def test_a_link_in_a_folder_from_elsewhere_is_not_followed(
    run: Run, fails: Fails, command: Callable[..., list[object]], tmp_path: Path
):
    out, thesis = tmp_path / "test", tmp_path / "thesis"
    run(*command("evaluate", out))
    thesis.write_text(WORK)
    for name in ("trajectories.jsonl", "trajectories.jsonl.chunks", "summary.json", "more"):
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(thesis)
        assert f"{out / name}: a link" in fails(*command("evaluate", out), code=7)
        (out / name).unlink()
        (out / name).touch()
    assert thesis.read_text() == WORK


def test_a_run_may_find_what_comes_before_it(
    fails: Fails, command: Callable[..., list[object]], tmp_path: Path
):
    out = tmp_path / "run"
    for file in ("index/manifest.json", "test/untrained/summary.json", "warm_up/teacher.jsonl"):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).touch()
    (out / ".git").mkdir()
    assert "no model 'none'" in fails(*command("train", out), code=5)
    (out / "warm_up" / "notes.txt").touch()
    (out / "recipe.json").unlink()
    (out / "environment.json").unlink()
    assert "warm_up/notes.txt: exists" in fails(*command("train", out), code=7)
