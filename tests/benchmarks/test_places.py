"""The table of places is made from result files, with one index of all data sets behind it."""

from __future__ import annotations

import json
import sys

from benchmarks.place_kinds import variants

from benchmarks import places
from exsearch.data import sample_path


def make_data(folder):
    """Four data sets of the packaged sample, whose passages all have the same ids."""
    for name in places.SETS:
        (folder / name).mkdir(parents=True)
        for part, sample in (("corpus", "corpus"), ("dev", "dev"), ("test", "test")):
            lines = sample_path(sample).read_text(encoding="utf-8").splitlines(keepends=True)
            text = "".join(lines if part == "corpus" else lines[:6])
            (folder / name / f"{part}.jsonl").write_text(text, encoding="utf-8")


def test_ids_that_clash_get_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "ENDING", "jsonl")
    make_data(tmp_path)
    data = places.Data(tmp_path)
    ids = [p.id for p in data.passages()]
    assert len(ids) == len(set(ids)) == 4 * 298
    assert ids[0] == "hotpotqa/s-0001"
    questions = data.questions("dev", supporting=True)
    assert len(questions) == 24
    assert set(questions[-1].supporting) <= set(ids)
    assert questions[-1].id.startswith("2wikimultihopqa/")


def test_a_place_is_measured_once_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "ENDING", "jsonl")
    monkeypatch.setattr(places, "fresh", lambda work, *args: work(*args))
    make_data(tmp_path / "data")
    options = ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["places", *options, "--only", "bm25", "--json"])
    places.main()
    printed = capsys.readouterr().out
    figures = json.loads(printed.splitlines()[-1])
    assert figures["chosen"] == {"BM25": "bm25"}
    assert figures["test"]["bm25"]["queries_per_s"] > 0
    assert len(figures["test"]["bm25"]["rows"]) == 24
    assert "| BM25 | " in printed and "dense: left out (not asked for)" in printed
    places.main()
    again = capsys.readouterr().out
    assert "bm25: building" in printed and "bm25: " not in again
    assert json.loads(again.splitlines()[-1])["test"] == figures["test"]


def test_the_best_of_a_family_on_dev_is_taken():
    known = variants()

    def result(*values):
        return {"rows": [{"values": {places.CHOSEN_BY: value}} for value in values]}

    dev = {
        "bm25": result(1.0, 0.0),
        "hybrid-rrf": result(0.0, 0.0),
        "hybrid-weighted": result(1.0, 1.0),
        "hybrid-weighted-2-1": result(1.0, 1.0),
    }
    assert places.choose(dev, known) == {"BM25": "bm25", "hybrid": "hybrid-weighted"}
