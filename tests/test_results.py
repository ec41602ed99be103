"""What is published of results holds no text of a data set, and tables are written from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.config import load_config
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.evaluation.results import RESULT_FILE, read_result
from exsearch.jobs.experiment import Experiment, main_table, results_table, tasks
from exsearch.show.tables import write_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
DATA = ROOT / "data" / "four-sets"  # where it is there
MOST = 20_000_000  # bytes of all results
TOGETHER = 10  # words side by side are a text; a long name has 8, and a model may know it


def folders() -> list[Path]:
    return sorted(file.parent for file in RESULTS.glob(f"*/{RESULT_FILE}"))


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    return [t for each in value for t in strings(each)] if isinstance(value, list) else []


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + TOGETHER]) for n in range(len(words) - TOGETHER + 1)}


def test_results_hold_ids_and_scores():
    assert folders()
    for folder in folders():
        for row in read_result(folder):
            assert not {"question", "answers", "evidence", "queries"} & row.keys()
            for search in row["searches"]:
                assert search.keys() == {"query", "passages", "evidence"}
                source = search["evidence"]
                assert source is None or (len(source) == 3 and not strings(source[1:]))
    size = sum(file.stat().st_size for file in RESULTS.rglob("*") if file.is_file())
    assert size <= MOST


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
def test_no_text_of_a_data_set_stands_in_the_results_or_the_tests():
    said = {
        run
        for folder in folders()
        for row in read_result(folder)
        for text in strings(row)
        for run in runs(text)
    }
    for file in (ROOT / "tests").rglob("*.py"):
        said |= {
            run for line in file.read_text(encoding="utf-8").splitlines() for run in runs(line)
        }
    texts = [p.text for p in read_corpus([DATA / "corpus.jsonl"])]
    for split in ("train", "dev", "test"):
        texts += [q.question for q in load_questions(DATA / f"{split}.jsonl")]
    found = [" ".join(run) for text in texts for run in runs(text) & said]
    assert not found


@pytest.mark.parametrize("name", ["docs/results.md", "README.md"])
def test_the_tables_of_the_pages_are_written_from_the_results(tmp_path, name):
    plan = load_config(Experiment, RESULTS / "plan.toml")
    rows = results_table(plan, RESULTS)
    copy = tmp_path / "page.md"
    copy.write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    write_tables(copy, {"results": rows, "main results": main_table(plan, rows)})
    command = f"exsearch experiment results/plan.toml --dry-run --into {name}"
    assert copy.read_text() == (ROOT / name).read_text(encoding="utf-8"), f"run: {command}"


def test_each_result_is_a_cell_of_the_plan():
    plan = load_config(Experiment, RESULTS / "plan.toml")
    assert {folder.name for folder in folders()} <= {task.key for task in tasks(plan)}


@pytest.mark.parametrize(
    ("first", "second", "seeds", "told"),
    [
        ("posterior", "guess-title", (3, 1), "| +8.6 [4.1, 13.2] |"),
        ("posterior", "sft-rag", (3, 3), "| -4.0 [-8.1, 0.2] |"),
        ("posterior", "group-advantage", (3, 3), "| -1.5 [-3.6, 0.3] |"),
        ("posterior", "sft-direct", (3, 3), "`posterior` is 11.2 [7.2, 15.3] above it (p .0001"),
        ("posterior", "warmed-up", (3, 3), "`posterior` is -0.2 [-2.2, 1.9] to `warmed-up`"),
        ("warmed-up", "rag-3", (3, 1), "`warmed-up` is 11.3 [7.0, 15.8] above `rag-3`"),
        ("posterior", "without-search", (1, 1), "| 0.0 | +13.9 [8.8, 18.7] |"),
        ("posterior", "without-recording", (1, 1), "| 7.7 | +6.2 [1.6, 10.6] |"),
        ("posterior", "without-thinking", (1, 1), "| 17.5 | -3.6 [-8.2, 1.1] |"),
        ("gemma-270m-posterior", "gemma-270m-warmed-up", (1, 1), "+2.6 [-0.6, 5.7] to its warm-up"),
        ("without-thinking", "sft-rag", (1, 3), "`sft-rag` is (+0.3 [-3.6, 4.5],"),
    ],
)
def test_what_the_page_says_of_two_rows_is_what_compare_says(first, second, seeds, told):
    """The figures between the tables, by the command that the page names."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert told in " ".join(page.split())
    asked = [
        ",".join(str(RESULTS / f"{name}.{seed}") for seed in range(count))
        for name, count in zip((first, second), seeds, strict=True)
    ]
    made = CliRunner().invoke(cli, ["compare", *asked, "--group", "neither", "--json"])
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)["against"][0]
    low, high = (f"{100 * end:.1f}" for end in found["ci95"])
    shown = re.search(r"[-+]?([\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", told)
    assert shown and shown.groups() == (f"{100 * abs(found['difference']):.1f}", low, high)
