"""An experiment does what is not done, keeps no text of a data set, and its tables are its own."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.config import load_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.errors import ConfigError, DataError, RunError
from exsearch.evaluation.results import (
    evidence_spans,
    hop_count,
    read_result,
    without_copies,
)
from exsearch.jobs.experiment import (
    Experiment,
    main_table,
    results_table,
    run_experiment,
    tasks,
)
from exsearch.progress import Bars
from exsearch.records import Evidence, Hop, Passage, Question
from exsearch.retrievers import build_index
from exsearch.show.tables import write_tables
from exsearch.training.figures import training_cost

LIST = """
index = "index"
results = "kept"
work = "work"

[parts]
first = {file = "sample:test", limit = 3}
second = {file = "more.jsonl"}

[[cells]]
name = "guess"
engine = "scripted"
model = "script.jsonl"
method = {name = "guess"}
minutes = 1

[[cells]]
name = "searcher"
engine = "scripted"
model = "script.jsonl"
method = {name = "searcher", passages = 2, max_steps = 1}
seeds = [0, 7]
annotations = "nothing"
minutes = 2
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a list of cells, and all that it names."""
    build_index(read_corpus([sample_path("corpus")]), tmp_path / "index", progress=False)
    questions = load_questions(sample_path("test"))[3:5]
    lines = [
        json.dumps({"id": q.id, "question": q.question, "answers": list(q.answers)})
        for q in questions
    ]
    (tmp_path / "more.jsonl").write_text("\n".join(lines) + "\n")
    script = [
        {"contains": "Query:", "reply": "[1] it is so"},
        {"contains": "Notes:\nnone", "reply": "Search: Peter Pan"},
        {"contains": "Notes:", "reply": " Peter Pan"},
    ]
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "script.jsonl").write_text("".join(json.dumps(s) + "\n" for s in script))
    text = LIST.replace('"script.jsonl"', '"{work}/script.jsonl"')
    (tmp_path / "list.toml").write_text(text)
    return tmp_path


def run(place: Path, **options: Any) -> list[str]:
    return list(run_experiment(place / "list.toml", bars=Bars(False), **options))


def test_the_first_seed_of_all_comes_before_the_second_of_one(place):
    keys = [task.key for task in tasks(load_config(Experiment, place / "list.toml"))]
    assert keys == ["guess.0", "searcher.0", "searcher.7"]


def test_cells_are_done_once_and_the_rest_after_a_stop(place):
    assert run(place, only=["guess"]) == ["guess.0"]
    started = run_experiment(place / "list.toml", bars=Bars(False))
    assert next(started) == "searcher.0"
    started.close()  # as a stop does
    before = (place / "kept" / "searcher.0" / "predictions.jsonl.gz").read_bytes()
    assert run(place, only=["searcher.0"]) == []
    assert run(place, only=["searcher.7"]) == ["searcher.7"]
    assert run(place) == []
    assert (place / "kept" / "searcher.0" / "predictions.jsonl.gz").read_bytes() == before
    rows = list(read_result(place / "kept" / "searcher.0"))
    assert [row["part"] for row in rows] == ["first"] * 3 + ["second"] * 2
    assert rows[0]["id"].startswith("first/")
    (search,) = rows[0]["searches"]
    assert search["query"] == "Peter Pan" and len(search["passages"]) == 2
    assert search["evidence"] == [search["passages"][0], None, None]  # it is in no passage
    assert run(place, minutes=0) == []


def test_nothing_of_the_data_stands_in_the_results(place):
    run(place)
    texts = [p.text for p in read_corpus([sample_path("corpus")])]
    texts += [q.question for q in load_questions(sample_path("test"))]
    kept = "\n".join(
        json.dumps(row, ensure_ascii=False)
        for folder in sorted((place / "kept").iterdir())
        if folder.is_dir()
        for row in read_result(folder)
    )
    kept += "".join(f.read_text() for f in (place / "kept").rglob("*.json"))
    assert len(kept) > 1000
    for text in texts:
        words = text.split()
        for at in range(0, max(1, len(words) - 8), 4):
            assert " ".join(words[at : at + 8]) not in kept


def test_a_table_of_what_is_done_is_written_into_a_page(place):
    run(place)
    planned = load_config(Experiment, place / "list.toml")
    heads, guess, searcher = results_table(planned, place)
    assert heads[1:4] == ["first (3)", "second (1)", "all neither (4)"]
    assert heads[4:6] == ["3+ hops (1)", "all questions (5)"]
    assert guess[0] == "guess" and guess[1] == "0.0"  # by the way the groups are made
    assert (searcher[0], searcher[-1]) == ("searcher", "nothing")
    assert searcher[6] == "2, 0.0"  # two seeds, which differ by nothing
    assert guess[3].startswith("0.0 [0.0, ")
    page = place / "page.md"
    page.write_text("before\n<!-- begin results -->\nold\n<!-- end results -->\nafter\n")
    command = ["experiment", str(place / "list.toml"), "--dry-run", "--into", str(page), "--json"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout.splitlines()[-1])
    assert (values["left"], values["done"]) == (0, [])
    written = page.read_text()
    assert written.startswith("before\n<!-- begin results -->\n| method |")
    assert written.endswith("|\n<!-- end results -->\nafter\n")
    assert "old" not in written
    again = page.read_text()
    CliRunner().invoke(cli, command)
    assert page.read_text() == again
    brief = [["method", "all neither (4)"], ["guess", guess[3]], ["searcher", searcher[3]]]
    assert [row[:2] for row in main_table(planned, [heads, guess, searcher])] == brief
    sweep = dataclasses.replace(planned.cells[1], model="{work}/trained.{seed}/run")
    with_sweep = dataclasses.replace(planned, cells=[planned.cells[0], sweep])
    assert [row[:2] for row in main_table(with_sweep, [heads, guess, searcher])] == brief[:2]
    with pytest.raises(DataError, match="no <!-- begin other --> in it"):
        write_tables(page, {"other": [["a"]]})
    page.write_text("<!-- begin other -->\n")
    with pytest.raises(DataError, match="each once"):
        write_tables(page, {"other": [["a"]]})
    with pytest.raises(DataError, match="can't be read"):
        write_tables(place / "none.md", {"other": [["a"]]})


def test_results_are_compared_as_evaluations_are(place):
    run(place)
    folders = [str(place / "kept" / name) for name in ("searcher.0", "guess.0")]
    result = CliRunner().invoke(cli, ["compare", *folders, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n"] == 5


def test_what_is_left_and_how_long_it_takes(place):
    command = ["experiment", str(place / "list.toml"), "--dry-run"]
    result = CliRunner().invoke(cli, command)
    assert "3 cells are left, about 5 minutes" in result.stderr
    assert "no cell is done yet" in result.stdout
    result = CliRunner().invoke(cli, ["experiment", str(place / "list.toml")])
    assert result.exit_code == 0, result.output
    assert "searcher.0 is done; " not in result.stderr  # each on a line of its own
    assert "searcher.0 is done" in result.stderr
    assert "0 cells are left" in result.stderr
    assert result.stdout.splitlines()[0].startswith("method")


def test_other_settings_are_not_taken_for_the_same(place):
    run(place, only=["guess"])
    text = (place / "list.toml").read_text()
    (place / "list.toml").write_text(text.replace("limit = 3", "limit = 2"))
    with pytest.raises(RunError, match=r"guess\.0: made with other settings: .*limit"):
        run(place)
    (place / "list.toml").write_text(text)
    with pytest.raises(ConfigError, match="no cell is called 'gess'; there are guess, searcher"):
        run(place, only=["gess"])
    for wrong, words in (
        (text.replace('name = "searcher"\n', 'name = "guess"\n'), "two are called 'guess'"),
        (text.replace('name = "searcher"\n', 'name = "../x"\n'), "is no name"),
        (text.replace("seeds", "sedes"), "unknown key cells.2.sedes; did you mean cells.2.seeds"),
        (text.replace("limit", "limits"), "unknown key parts.first.limits"),
    ):
        (place / "list.toml").write_text(wrong)
        with pytest.raises(ConfigError, match=words):
            run(place)


def test_where_evidence_stands():
    passage = Passage("p", "T", "Ada  was born\nin Quillmoor, by the sea.")
    found = evidence_spans(Evidence("was born in Quillmoor,", ("p",)), [passage])
    assert found == ["p", 5, 27]
    assert passage.text[5:27] == "was born\nin Quillmoor,"
    assert evidence_spans(Evidence("made up", ("p",)), [passage]) == ["p", None, None]
    assert evidence_spans(Evidence("Ada", ()), [passage]) == [None, None, None]
    assert evidence_spans(None, [passage]) is None


def test_settings_of_a_cell_take_the_place_of_the_recipe_s(tmp_path):
    from exsearch.jobs.experiment import _overrides
    from exsearch.training.recipe import Recipe

    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n[warm_up.mix]\nrecord = {nq = 3}\nwhole = {nq = 1}\n')
    settings = {
        "warm_up.mix": {"whole": {"2wikimultihopqa": 5}},
        "model.name": "{work}/warm.{seed}/run",
        "method.record": False,
    }
    given = {"work": "/w", "seed": "7"}
    overrides = [o for k, v in settings.items() for o in _overrides(k, v, given)]
    made = load_config(Recipe, recipe, overrides)
    assert made.warm_up.mix == {"whole": {"2wikimultihopqa": 5}}
    assert made.model.name == "/w/warm.7/run"
    assert made.method.record is False  # pyright: ignore[reportAttributeAccessIssue]
    empty = load_config(Recipe, recipe, list(_overrides("warm_up.mix", {}, given)))
    assert empty.warm_up.mix == {}


def test_another_index_under_the_same_name_is_noticed(place):
    run(place, only=["guess"])
    passages = list(read_corpus([sample_path("corpus")]))
    shutil.rmtree(place / "index")
    build_index(passages[:-1], place / "index", progress=False)
    with pytest.raises(RunError, match=r"guess\.0: made with other settings: parts\.first\.index "):
        run(place, only=["guess"])


def test_what_training_took_stands_in_the_result(place, tiny_model_folder):
    (place / "small.toml").write_text(f"""
name = "small"
model.name = "{tiny_model_folder}"
retriever.index = "index"
method = {{max_steps = 2, passages = 2, thought_tokens = 40, record_tokens = 60}}
warm_up = {{examples = 3, questions_per_step = 2}}
e_step = {{questions = 2, samples = 2}}
gem = {{iterations = 0, dev_questions = 1}}
""")
    cells = (place / "list.toml").read_text().split("[[cells]]")[0]
    (place / "list.toml").write_text(f"""{cells}
[[cells]]
name = "warmed-up"
recipe = "small.toml"

[[cells]]
name = "further"
recipe = "small.toml"
settings = {{"model.name" = "{{work}}/warmed-up.{{seed}}/run", "warm_up.examples" = 2, "seed" = 3}}
""")
    assert run(place) == ["warmed-up.0", "further.0"]
    first, then = (
        json.loads((place / "kept" / f"{name}.0" / "result.json").read_text())
        for name in ("warmed-up", "further")
    )
    (one,) = first["training"]
    assert (one["run"], one["optimizer_steps"], one["sampled_tokens"]) == ("warmed-up.0", 2, 0)
    assert one["trained_tokens"] > 100
    assert [run["run"] for run in then["training"]] == ["warmed-up.0", "further.0"]
    assert then["training"][0] == one
    assert then["training"][1]["optimizer_steps"] == 1
    measured = sum(
        figures["seconds"] for name, figures in first["figures"].items() if name != "all"
    )
    assert first["seconds"] == pytest.approx(one["seconds"] + measured, abs=0.01)
    _, row, _ = results_table(load_config(Experiment, place / "list.toml"), place)
    assert row[-3] == f"2, {one['trained_tokens'] / 1000:.0f}"
    assert row[-2] == f"{first['seconds'] / 60:.0f}"


def test_how_many_hops_a_question_takes():
    hop = Hop("a", "b")
    assert hop_count(Question("q", "x?", ("a",), supporting=("d", "e"))) == 2
    assert hop_count(Question("q", "x?", ("a",), supporting=("d",), decomposition=(hop,) * 3)) == 3
    assert hop_count(Question("q", "x?", ("a",))) is None


def test_the_cost_of_training_is_that_of_its_stages():
    events = [
        {"event": "m_step", "optimizer_steps": 3, "tokens": 10, "seconds": 1.5},
        {"event": "dev", "em": 0.5},
        {
            "event": "e_step",
            "prompt_tokens": 7,
            "output_tokens": 2,
            "sampling_seconds": 2.0,
            "scoring_seconds": 0.25,
        },
        {"event": "m_step", "optimizer_steps": 1, "tokens": 5, "seconds": 0.5},
    ]
    assert training_cost(events) == {
        "optimizer_steps": 4,
        "trained_tokens": 15,
        "sampled_tokens": 9,
        "seconds": 4.25,
    }


def test_what_was_copied_is_a_span():
    sources = {
        "question": "Who wrote the play about the goat that would not grow?",
        "p": "Quill\nThe Goat of Quillmoor, or the Kid Who Wouldn't Eat Oats, is by Ada Fenwick.",
    }
    assert without_copies(sources["question"], sources) == "{question:0:10}?"
    copied = "He said: the goat OF quillmoor or the kid who wouldn t eat is it"
    assert without_copies(copied, sources) == "He said: {p:1:11} is it"
    short = "the play about the goat that would"
    assert without_copies(short, sources) == short  # seven words
    assert without_copies("", sources) == ""
    twice = f"{sources['question']} It is: {sources['question']}"
    assert without_copies(twice, sources) == "{question:0:10}? It is: {question:0:10}?"
