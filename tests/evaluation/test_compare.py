"""Systems are compared on the questions that all answered, seeds by their mean."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.errors import DataError, RunError
from exsearch.evaluation.compare import System, compare_systems, holm


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01, then 2 x 0.03, and no less after it
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(p, expected):
    assert holm(p) == pytest.approx(expected)


@pytest.fixture
def folder(tmp_path):
    def make(name, values, group="neither", tokens=100):
        (tmp_path / name).mkdir()
        rows = [
            {"id": id_, "em": em, "group": "yes/no" if id_ == "y" else group, "seconds": 2.0,
             "prompt_tokens": tokens, "output_tokens": 20}
            for id_, em in values.items()
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name / "predictions.jsonl").write_text(text)
        return tmp_path / name

    return make


def test_systems_by_hand(folder):
    ours = System.read(
        [
            folder("a1", {"1": 1, "2": 1, "3": 0, "y": 1}),
            folder("a2", {"3": 1, "2": 1, "1": 1, "y": 0}, tokens=300),
        ]
    )
    other = System.read([folder("b", {"1": 0, "2": 1, "3": 0, "y": 1, "more": 1})])
    third = System.read([folder("c", {"1": 1, "2": 1, "3": 1, "y": 1})])
    found = compare_systems([ours, other, third], "em")
    assert found["n"] == 4
    first = found["systems"][0]
    assert (first["em"], first["seeds"], first["seeds_sd"]) == (3 / 4, 2, 0.0)
    assert (first["tokens"], first["seconds"]) == (220, 2.0)
    assert found["systems"][1]["seeds_sd"] is None
    against = {one["name"]: one for one in found["against"]}
    mine = against[other.name]
    # A question's value is the mean of the seeds: 1, 1, 1/2, 1/2 against 0, 1, 0, 1.
    assert mine["difference"] == pytest.approx(1 / 4)
    assert (mine["better"], mine["worse"]) == (2, 1)
    assert against[third.name]["difference"] == pytest.approx(-1 / 4)
    assert mine["p_holm"] >= mine["p"]
    alone = compare_systems([ours, other], "em", "neither")
    assert (alone["n"], alone["against"][0]["difference"]) == (3, pytest.approx(1 / 2))


def test_the_command_line(folder):
    a, b = folder("a", {"1": 1, "2": 1}), folder("b", {"1": 0, "2": 1})
    result = CliRunner().invoke(cli, ["compare", str(a), str(b)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "2 questions that all answered"
    assert lines[-1].split()[-1] == "1-0"
    values = CliRunner().invoke(cli, ["compare", f"{a},{b}", str(b), "--json"])
    assert json.loads(values.stdout)["systems"][0]["seeds"] == 2
    for args, words in (
        ([a], "name two or more"),
        ([a, a / "none"], "no finished evaluation"),
        ([a, b, "--metric", "me"], "no metric 'me'"),
        ([a, b, "--group", "yes/no"], "no question of the group"),
    ):
        wrong = CliRunner().invoke(cli, ["compare", *map(str, args)])
        assert wrong.exit_code != 0
        assert words in f"{wrong.output}{wrong.exception}"


def test_what_can_not_be_compared_is_one_line(folder, tmp_path):
    a = System.read([folder("a", {"1": 1})])
    with pytest.raises(DataError, match="no question is in all evaluations"):
        compare_systems([a, System.read([folder("b", {"2": 1})])])
    with pytest.raises(RunError, match="no finished evaluation"):
        System.read([tmp_path])
