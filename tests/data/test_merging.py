"""Merged data sets have each passage once, and their questions find it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.data.corpus import read_corpus
from exsearch.data.merging import merge
from exsearch.data.questions import load_questions
from exsearch.errors import ConfigError, DataError


def write(file: Path, *rows: dict) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def sets(tmp_path):
    """Two data sets: one passage of both is the same, and one id stands for two passages."""
    first, second = tmp_path / "first", tmp_path / "second"
    same = {"title": "Ada", "text": "Born in Quillmoor."}
    write(first / "corpus.jsonl", {"id": "a", **same}, {"id": "x", "title": "", "text": "First."})
    write(second / "corpus.jsonl", {"id": "x", "title": "", "text": "Second."}, {"id": "b", **same})
    question = {"question": "Where?", "answers": ["Quillmoor"]}
    write(first / "dev.jsonl", {"id": "1", **question, "supporting": ["a", "x"]})
    hop = {"question": "Where?", "answer": "Quillmoor", "support_id": "b"}
    write(
        second / "dev.jsonl",
        {"id": "1", **question, "supporting": ["x", "b", "gone"], "decomposition": [hop, hop]},
    )
    write(second / "train.jsonl", {"id": "2", **question})
    return first, second


def test_questions_point_to_the_passages_that_are_kept(sets, tmp_path):
    out = tmp_path / "out"
    summary = merge(sets, out)
    assert summary == json.loads((out / "conversion.json").read_text())
    passages = {p.id: p.text for p in read_corpus([out / "corpus.jsonl"])}
    assert passages == {"a": "Born in Quillmoor.", "first/x": "First.", "second/x": "Second."}
    assert summary["passages"] == 3
    assert list(summary["notes"].values()) == [1]
    assert summary["questions"] == {
        "second-train.jsonl": 1, "train.jsonl": 1,
        "first-dev.jsonl": 1, "second-dev.jsonl": 1, "dev.jsonl": 2,
    }  # fmt: skip
    first, second = load_questions(out / "dev.jsonl")
    assert (first.id, first.dataset, first.supporting) == ("first/1", "first", ("a", "first/x"))
    assert (second.id, second.dataset) == ("second/1", "second")
    assert second.supporting == ("second/x", "a", "gone")
    assert [hop.support_id for hop in second.decomposition] == ["a", "a"]
    assert load_questions(out / "second-dev.jsonl") == [second]
    assert load_questions(out / "train.jsonl")[0].id == "2"  # no other has it


def test_the_command_line(sets, tmp_path):
    command = ["data", "merge", *map(str, sets), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "corpus.jsonl: 3 passages" in result.stdout
    assert "1 passages dropped that another data set has, too" in result.stdout


def test_what_can_not_be_merged_is_one_line(sets, tmp_path):
    first, second = sets
    with pytest.raises(DataError, match=r"no corpus\.jsonl in this folder"):
        merge([first, tmp_path], tmp_path / "out")
    with pytest.raises(DataError, match="two of the folders have one name"):
        merge([first, first], tmp_path / "out")
    with pytest.raises(ConfigError, match="exists"):
        merge(sets, first)
    (second / "corpus.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"stands there twice, beside corpus\.jsonl"):
        merge(sets, tmp_path / "out")
    assert not (tmp_path / "out").exists()
