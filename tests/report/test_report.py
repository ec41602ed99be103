"""A report says what its evaluations say, holds texts once and as text, and is one file."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from planted import World, asks_badly, does_not_record, good, misreads, searches_on

from exsearch.cli import cli
from exsearch.diagnosis.loss import Cause
from exsearch.errors import ConfigError, DataError, RunError
from exsearch.evaluation import evaluate
from exsearch.evaluation.evaluate import PREDICTIONS_FILE, SUMMARY_FILE, summarise
from exsearch.evaluation.metrics import all_metrics
from exsearch.evaluation.results import result_row, write_result
from exsearch.jobs.report import report
from exsearch.jobs.retrieve import Place
from exsearch.progress import Bars
from exsearch.report.sheets import find, guesses
from exsearch.report.tables import by_group
from exsearch.trajectories import TRAJECTORIES_FILE
from written_evaluations import MARKUP, scored, write_evaluation, write_run, write_systems

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[2]
SILENT = Bars(False)


@pytest.fixture(scope="module")
def systems(tmp_path_factory) -> list[Path]:
    return write_systems(tmp_path_factory.mktemp("systems"))


@pytest.fixture(scope="module")
def made(systems, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    report(systems, out, bars=SILENT)
    return out.read_text(encoding="utf-8")


def values(text: str) -> dict[str, Any]:
    found = re.search(r'id="values">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def piece(text: str, name: str) -> Any:
    found = re.search(rf'id="{name}">([A-Za-z0-9+/=]+)</script>', text)
    assert found, name
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_its_numbers_are_those_of_the_evaluations(systems, made):
    told = values(made)["main"]
    assert told["parts"] == ["rivers", "towns"]
    for place, row in zip(systems, told["rows"], strict=True):
        for part in told["parts"]:
            said = json.loads((place / part / SUMMARY_FILE).read_text())
            own = row["cells"][part]["by"]
            assert own[""]["n"] == said["n"] == 12
            assert own[""]["em"] == [said["em"], *said["ci95"]["em"]]
            neither = said["groups"]["neither"]
            assert own["neither"]["f1"] == [neither["f1"], *neither["ci95"]["f1"]]
    assert told["rows"][0]["all"]["by"][""]["em"][0] == 1
    assert told["rows"][1]["all"]["by"][""]["em"][0] == pytest.approx(1 / 3)
    assert told["guess"]["all"]["by"]["neither"]["em"][0] == 0
    against = values(made)["compared"][""]
    assert [(one["better"], one["worse"], one["n"]) for one in against] == [(0, 16, 24)]


def test_it_makes_the_table_of_the_docs_again():
    """Each row of docs/results.md, from what `results/` holds; here each seed has its own."""
    rows = find([ROOT / "results"]).rows
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = text.split("<!-- begin results -->")[1].split("<!-- end results -->")[0]
    heads, _, *lines = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
    column = next(n for n, head in enumerate(heads) if head.startswith("all neither"))
    assert len(lines) >= 3
    for line in lines:
        own = [row for row in rows if row.name.rpartition(".")[0] == line[0]]
        shown = [[100 * each for each in by_group(row.figures)["neither"]["em"]] for row in own]
        mean = sum(value for value, _, _ in shown) / len(shown)
        assert line[column].startswith(f"{mean:.1f} ["), line[0]
        if len(shown) == 1:
            _, low, high = shown[0]
            assert line[column] == f"{mean:.1f} [{low:.1f}, {high:.1f}]", line[0]


def test_every_cell_has_its_questions_and_every_question_its_trajectory(made):
    told, questions = values(made), piece(made, "questions")
    assert len(questions) == 24
    for number, sheet in enumerate(told["sheets"]):
        own = piece(made, f"sheet-{number}")
        start, end = own["traces"]
        assert end - start == sheet["n"] == len(own["question"])
        traces = piece(made, "traces-0")[start:end]
        asked = [questions[n][1] for n in own["question"]]
        assert [trace["question"] for trace in traces] == asked
        assert [trace["cause"] for trace in traces] == own["cause"]
        right = [em == 1 for em in own["values"]["em"]]
        assert right == [cause is None for cause in own["cause"]]
        assert all(len(trace["needs"]) == 2 and trace["steps"][0]["gain"] == 4 for trace in traces)
    # what one system did not find, the query of the other one does
    assert {*piece(made, "sheet-2")["cause"]} == {None, Cause.RECORD.value, Cause.QUERY.value}


def test_a_passage_is_stored_once(made):
    stored = [tuple(passage) for passage in piece(made, "passages-0")]
    assert len(stored) == len(set(stored))
    numbers = {p[0] for t in piece(made, "traces-0") for s in t["steps"] for p in s["passages"]}
    assert numbers == set(range(len(stored)))


def test_no_text_becomes_markup(made):
    assert piece(made, "questions")[0][1].endswith(MARKUP)
    assert "onerror" not in made and "<img" not in made
    assert made.count("</script>") == made.count("<script")
    assert not re.search(r"\beval\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write", made)
    assert not re.search(r'(?:src|href)="(?!data:|#)', made.split("<script")[0])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', made)
    assert policy and policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert ' style="' not in made


def test_it_is_the_same_each_time(systems, made, tmp_path):
    report(systems, tmp_path / "again.html", bars=SILENT)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == made


def test_figures_are_written_with_their_values(systems, tmp_path):
    report(systems, tmp_path / "r.html", figures=tmp_path / "f", bars=SILENT)
    names = {file.name for file in (tmp_path / "f").iterdir()}
    assert names >= {
        f"{n}.{e}" for n in ("differences", "cost", "budget") for e in ("svg", "png", "csv")
    }
    with (tmp_path / "f" / "differences.csv").open() as file:
        heads, line = csv.reader(file)
    assert heads[:2] == ["row", "difference"] and line[0] == "bad.0"
    assert float(line[1]) == pytest.approx(-100 * 16 / 24, abs=0.01)
    svg = (tmp_path / "f" / "differences.svg").read_text()
    assert ">bad.0</text>" in svg  # text stays text


def test_samples_and_base(systems, tmp_path):
    found = report(systems, tmp_path / "r.html", samples=3, base="bad.0", bars=SILENT)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert found["trajectories"] == 12 and found["questions"] == 48
    assert len(piece(text, "sheet-0")["question"]) == 12  # all questions are listed
    assert [one["name"] for one in values(text)["compared"][""]] == ["good.0"]
    with pytest.raises(ConfigError, match=r"no row is called 'x'; there are good\.0, bad\.0"):
        report(systems, tmp_path / "r.html", base="x", bars=SILENT)


def test_an_index_says_what_a_better_query_would_find(tmp_path):
    world = World(20)
    write_evaluation(tmp_path / "bad", [asks_badly(world, tale) for tale in world.tales])
    world.index(tmp_path / "index")
    report(
        [tmp_path / "bad"], tmp_path / "r.html", index=Place(str(tmp_path / "index")), bars=SILENT
    )
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert values(text)["searched"] > 0
    assert {*piece(text, "sheet-0")["cause"]} == {Cause.QUERY.value}

    (tmp_path / "bad" / "settings.json").write_text('{"index": "sha256:other"}')
    with pytest.raises(RunError, match="made with another index"):
        report(
            [tmp_path / "bad"],
            tmp_path / "r.html",
            index=Place(str(tmp_path / "index")),
            bars=SILENT,
        )


def test_a_run_has_its_stages_with_their_questions(tmp_path):
    out = tmp_path / "report.html"
    report([write_run(tmp_path / "mine")], out, figures=tmp_path / "f", bars=SILENT)
    text = out.read_text(encoding="utf-8")
    (run,) = values(text)["training"]
    before, after = run["stages"]
    assert run["name"] == "mine" and not run["finished"]
    assert (before["dev"][""]["em"][0], after["dev"][""]["em"][0]) == (0, 0.5)
    assert after["objective_error"] == 0.5 and after["questions"] == 8
    for sheet, right in (
        (before["dev_sheet"], 0),
        (after["dev_sheet"], 4),
        (after["sampled_sheet"], 8),
    ):
        assert sum(piece(text, f"sheet-{sheet}")["values"]["em"]) == right
    assert {file.stem for file in (tmp_path / "f").iterdir()} >= {"curves", "objective"}
    assert [len(one["heads"]) for one in values(text)["diagnosis"]] == [0, 3]


def test_every_cause_is_explained():
    told = (files("exsearch.report") / "page" / "report.js").read_text(encoding="utf-8")
    causes = told.split("const CAUSES = {")[1].split("};")[0]
    assert re.findall(r'^  "?([\w ]+)"?: "', causes, re.MULTILINE) == [each.value for each in Cause]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / SUMMARY_FILE).write_text("{"), "summary.json: damaged"),
        (lambda folder: (folder / SUMMARY_FILE).unlink(), "nothing evaluated in it"),
        (lambda folder: (folder / PREDICTIONS_FILE).write_text(""), "12 questions and pred.* 0"),
        (lambda folder: _drop_first_line(folder / TRAJECTORIES_FILE), "not the questions of"),
        (lambda folder: (folder / TRAJECTORIES_FILE).write_text("{}\n"), "not a trajectory"),
    ],
)
def test_what_is_damaged_is_said_in_one_line_and_the_file_stays(tmp_path, break_it, message):
    place = write_systems(tmp_path / "runs")[0] / "towns"
    out = tmp_path / "report.html"
    out.write_text("as it was")
    break_it(place)
    with pytest.raises((RunError, DataError), match=message) as caught:
        report([place], out, bars=SILENT)
    assert "\n" not in str(caught.value) and str(place) in str(caught.value)
    assert out.read_text() == "as it was" and not list(tmp_path.glob(".report*"))


def _drop_first_line(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))


def test_the_command_ends_with_one_line(tmp_path):
    result = CliRunner().invoke(
        cli, ["report", str(tmp_path / "none"), "--out", str(tmp_path / "r")]
    )
    assert result.exit_code == RunError.exit_code
    assert result.output.strip().endswith(
        "none: no such folder; name what `train` or `evaluate` wrote"
    )
    assert result.output.count("\n") == 1


def test_evaluations_of_the_same_questions_in_one_folder_are_rows(tmp_path):
    world = World(3)
    for name in ("a", "b"):
        write_evaluation(tmp_path / "tests" / name, [good(world, tale) for tale in world.tales])
    assert [each.name for each in find([tmp_path / "tests"]).rows] == ["tests/a", "tests/b"]
    (tmp_path / "tests" / "a" / SUMMARY_FILE).unlink()  # not finished: left out, and said so
    assert [each.name for each in find([tmp_path / "tests"]).rows] == ["tests"]


def test_a_result_and_an_evaluation_of_the_same_questions_stand_side_by_side(tmp_path):
    world = World(3)
    told = [good(world, tale) for tale in world.tales]
    write_evaluation(tmp_path / "mine" / "harbours", told)
    rows = [evaluate.row(trajectory, all_metrics()) for trajectory in told]
    kept = [result_row(r, t, "harbours") for r, t in zip(rows, told, strict=True)]
    figures = summarise(rows, all_metrics())
    write_result(tmp_path / "rag.0", {"figures": {"harbours": figures, "all": figures}}, kept)
    found = find([tmp_path / "rag.0", tmp_path / "mine"])
    result, evaluation = found.rows
    assert result.values.keys() == evaluation.values.keys()
    assert guesses(found.rows, "harbours")[""]["n"] == 3


@pytest.mark.slow
def test_ten_thousand_trajectories_make_a_small_file_quickly(tmp_path):
    world, kinds = World(2000), (good, asks_badly, does_not_record, misreads, searches_on)
    for n, kind in enumerate(kinds):
        made = [scored(kind(world, tale)) for tale in world.tales]
        write_evaluation(tmp_path / "runs" / f"system-{n}", made)
    began = time.process_time()
    found = report([tmp_path / "runs"], tmp_path / "all.html", bars=SILENT)
    assert time.process_time() - began < 60
    assert found["trajectories"] == 10_000 and found["bytes"] <= 25_000_000
    assert (
        report([tmp_path / "runs"], tmp_path / "r.html", samples=0, bars=SILENT)["bytes"]
        < 2_000_000
    )
