"""Jobs that search go on where they were stopped, and a failed search is told, never empty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.queries import load_queries
from exsearch.errors import DataError, RetrieverError, RunError
from exsearch.evaluation.retrieval import Asked
from exsearch.jobs import retrieve as retrieving
from exsearch.jobs.evaluate_retrieval import asked_by, asked_of, evaluate_retrieval
from exsearch.jobs.retrieve import Place, retrieve
from exsearch.progress import Bars
from exsearch.records import Passage, Question, Step, StopReason, Trajectory, to_json
from exsearch.retrievers import build_index, open_retriever

SILENT = Bars(False)
DEV = str(sample_path("dev"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("retrieval") / "index"
    build_index(read_corpus([sample_path("corpus")]), folder, progress=False)
    return str(folder)


class Faulty:
    """A retriever in front of another, whose `fault` may raise for a query."""

    fault: Any = None

    def __init__(self, inner: Any):
        self.inner = inner

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        for query in queries:
            if Faulty.fault:
                Faulty.fault(query)
        return self.inner.search(queries, k)

    def identity(self) -> str:
        return self.inner.identity()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    monkeypatch.setattr(Faulty, "fault", None)
    monkeypatch.setattr(retrieving, "open_retriever", lambda place: Faulty(open_retriever(place)))
    return Faulty


def failing(*queries: str) -> Any:
    def fault(query: str) -> None:
        if query in queries:
            raise RetrieverError(f"no luck with {query}")

    return fault


QUERIES = load_queries(sample_path("dev"), 10)


@pytest.mark.parametrize("form", ["jsonl", "text", "trec"])
def test_a_retrieval_that_was_stopped_goes_on(index: str, tmp_path: Path, faulty: Any, form: str):
    place = Place(index, chunk=3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, counts = retrieve(QUERIES, place, 4, form, whole, bars=SILENT)
    assert counts == {"queries": 10, "passages": 40, "failed": 0}

    parts.write_bytes(b"")
    with pytest.raises(RunError, match="not begun by this command"):
        retrieve(QUERIES, place, 4, form, parts, bars=SILENT)
    parts.unlink()
    lines, again = retrieve(QUERIES, place, 4, form, parts, bars=SILENT)
    content = parts.read_bytes()
    # As a kill in the second chunk leaves it: one commit, and a torn chunk behind.
    searched: list[str] = []
    commits = parts.with_name("parts.chunks")
    first = commits.read_text().splitlines()[0]
    commits.write_text(first + "\n")
    parts.write_bytes(content[: json.loads(first)["bytes"] + 20])
    faulty.fault = searched.append
    assert retrieve(QUERIES, place, 4, form, parts, bars=SILENT) == (lines, again)
    assert parts.read_bytes() == content == whole.read_bytes()
    assert searched == list(QUERIES.values())[3:]
    with pytest.raises(RunError, match="begun with other settings"):
        retrieve(QUERIES, place, 5, form, parts, bars=SILENT)


def test_a_failed_search_is_told_and_the_others_go_on(index: str, tmp_path: Path, faulty: Any):
    bad = list(QUERIES.values())[-1]  # alone in the last chunk
    faulty.fault = failing(bad)
    file = tmp_path / "found.jsonl"
    _, counts = retrieve(QUERIES, Place(index, chunk=3), 4, "jsonl", file, bars=SILENT)
    assert counts == {"queries": 10, "passages": 36, "failed": 1}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(QUERIES)
    assert "passages" not in rows[-1]
    assert rows[-1]["error"] == f"no luck with {bad}"
    assert all(len(row["passages"]) == 4 and "error" not in row for row in rows[:-1])
    text, _ = retrieve(QUERIES, Place(index), 1, "text", bars=SILENT)
    assert "error: no luck" in text[-1]
    run, counts = retrieve(QUERIES, Place(index), 1, "trec", bars=SILENT)
    assert (len(run), counts["failed"]) == (9, 1)


def test_where_all_fails_nothing_is_written(index: str, tmp_path: Path, faulty: Any):
    faulty.fault = failing(*QUERIES.values())
    file = tmp_path / "found.jsonl"
    with pytest.raises(RetrieverError, match="no luck"):
        retrieve(QUERIES, Place(index, chunk=3), 4, "jsonl", file, bars=SILENT)
    assert not file.exists()
    with pytest.raises(RetrieverError, match="no luck"):
        retrieve(QUERIES, Place(index), 4, bars=SILENT)


def test_the_forms(index: str):
    query = {"q 1": "Who wrote the play about Peter Pan?"}
    (text,), _ = retrieve(query, Place(index), 2, "text", bars=SILENT)
    assert text.startswith("q 1: Who wrote the play about Peter Pan?\n  1. ")
    assert "s-0141  Peter Pan\n    Peter Pan is a boy" in text
    (line,), _ = retrieve(query, Place(index), 2, "jsonl", bars=SILENT)
    assert json.loads(line)["passages"][0]["id"] == "s-0141"
    with pytest.raises(DataError, match=r"the id 'q 1' can't stand in a run file"):
        retrieve(query, Place(index), 2, "trec", bars=SILENT)
    (run,), _ = retrieve({"q": "the play about Peter Pan"}, Place(index), 2, "trec", bars=SILENT)
    fields = [line.split(" ") for line in run.splitlines()]
    assert [f[:4] + f[5:] for f in fields] == [
        ["q", "Q0", "s-0141", "1", "exsearch"],
        ["q", "Q0", fields[1][2], "2", "exsearch"],
    ]
    assert float(fields[0][4]) > float(fields[1][4])
    lines, counts = retrieve({"q": "xyzzy"}, Place(index), 2, "text", bars=SILENT)
    assert (lines, counts["passages"]) == (["q: xyzzy\n  nothing found\n"], 0)


def test_an_evaluation_of_retrieval(index: str, tmp_path: Path):
    file, asked = asked_of(DEV)
    folder = tmp_path / "found"
    summary = evaluate_retrieval(file, asked, Place(index), folder, ks=(20, 5), bars=SILENT)
    retriever = open_retriever(index)
    found = retriever.search([one.question.question for one in asked], 20)
    support = [set(one.question.supporting) for one in asked]
    ids = [[p.id for p in one] for one in found]
    for k in (5, 20):
        recalls = [len(s & set(i[:k])) / len(s) for s, i in zip(support, ids, strict=True)]
        assert summary[f"recall@{k}"] == pytest.approx(sum(recalls) / len(recalls))
        shares = [recall == 1 for recall in recalls]
        assert summary[f"all_support@{k}"] == pytest.approx(sum(shares) / len(shares))
    assert (summary["n"], summary["searches"], summary["failed"]) == (len(asked), len(asked), 0)
    low, high = summary["ci95"]["all_support@5"]
    assert low < summary["all_support@5"] < high
    rows = [json.loads(line) for line in (folder / "retrieval.jsonl").read_text().splitlines()]
    assert [row["found"] for row in rows] == [[[i]] for i in ids]
    assert json.loads((folder / "summary.json").read_text()) == summary
    again = evaluate_retrieval(file, asked, Place(index), folder, ks=(5, 20), bars=SILENT)
    assert again == summary
    with pytest.raises(RunError, match="other settings"):
        evaluate_retrieval(file, asked, Place(index), folder, ks=(5,), bars=SILENT)


def test_an_evaluation_that_was_stopped_goes_on(index: str, tmp_path: Path, faulty: Any):
    file, asked = asked_of(DEV, 10)
    folder, place = tmp_path / "found", Place(index, chunk=4)
    kept = evaluate_retrieval(file, asked, place, folder, against=place, bars=SILENT)
    for name, commits in (("retrieval", 3), ("against", 1)):  # killed in the second place
        chunks = folder / f"{name}.jsonl.chunks"
        chunks.write_text("".join(chunks.read_text().splitlines(keepends=True)[:commits]))
    searched: list[str] = []
    faulty.fault = searched.append
    again = evaluate_retrieval(file, asked, place, folder, against=place, bars=SILENT)
    assert searched == [one.question.question for one in asked[4:]]
    for summary in (kept, again):
        del summary["seconds"], summary["against"]["figures"]["seconds"]
    assert again == kept


def test_two_places_are_compared_question_by_question(index: str, tmp_path: Path):
    other = tmp_path / "other"
    corpus = read_corpus([sample_path("corpus")])
    build_index(corpus, other, settings={"title_weight": 0}, progress=False)
    file, asked = asked_of(DEV)
    places = [Place(index), Place(str(other))]
    alone = [
        evaluate_retrieval(file, asked, place, tmp_path / str(n), bars=SILENT)
        for n, place in enumerate(places)
    ]
    both = evaluate_retrieval(
        file, asked, places[0], tmp_path / "both", against=places[1], bars=SILENT
    )
    found = both.pop("against")
    for summary in (*alone, both, found["figures"]):
        del summary["seconds"]
    assert both == alone[0]
    assert found["figures"] == alone[1]
    compared = found["compared"]["all_support@5"]
    assert compared["difference"] == pytest.approx(
        alone[0]["all_support@5"] - alone[1]["all_support@5"]
    )
    assert len(compared["gained"]) == compared["better"] > 0
    assert len(compared["lost"]) == compared["worse"]


def test_a_question_whose_search_failed_counts_as_missed(index: str, tmp_path: Path, faulty: Any):
    file, asked = asked_of(DEV, 10)
    faulty.fault = failing(asked[-1].question.question)
    place = Place(index, chunk=3)
    summary = evaluate_retrieval(file, asked, place, tmp_path / "found", bars=SILENT)
    assert (summary["n"], summary["failed"]) == (10, 1)
    rows = [json.loads(r) for r in (tmp_path / "found/retrieval.jsonl").read_text().splitlines()]
    assert rows[-1]["values"]["recall@20"] == 0
    assert rows[-1]["error"].startswith("no luck")
    assert {row["error"] for row in rows[:-1]} == {""}
    faulty.fault = failing(*(one.question.question for one in asked))
    with pytest.raises(RetrieverError, match="no luck"):
        evaluate_retrieval(file, asked, place, tmp_path / "none", bars=SILENT)
    assert not (tmp_path / "none/summary.json").exists()


def trajectory(question: Question, *queries: str, sample: int = 0) -> Trajectory:
    steps = tuple(Step(query, ()) for query in queries)
    return Trajectory(question, steps, (), "x", StopReason.ANSWERED, sample=sample)


def test_what_a_searcher_asked_is_searched_for(index: str, tmp_path: Path):
    question = asked_of(DEV, 1)[1][0].question
    support = open_retriever(index).fetch(question.supporting)
    titles = [passage.title for passage in support if passage]
    assert len(titles) == 2
    traces = [
        trajectory(question, *titles),
        trajectory(question, titles[0], sample=1),
        trajectory(Question("none", "?", ("x",), ("s-0001",))),
    ]
    file = tmp_path / "trajectories.jsonl"
    file.write_text("".join(to_json(trace) + "\n" for trace in traces))
    source, asked = asked_by(str(tmp_path))
    assert source == file
    assert asked == [
        Asked(question, (tuple(titles), (titles[0],))),
        Asked(traces[2].question, ((),)),
    ]
    summary = evaluate_retrieval(file, asked, Place(index), tmp_path / "out", ks=(1,), bars=SILENT)
    assert (summary["n"], summary["searches"]) == (2, 3)
    assert summary["union_recall@1"] == pytest.approx(((1 + 0.5) / 2 + 0) / 2)
    assert summary["union_all_support@1"] == pytest.approx((1 / 2 + 0) / 2)
    assert summary["single_recall@1"] == pytest.approx(0.5)
    assert summary["single_recall@1_n"] == 1
    file.write_text(to_json(traces[2]) + "\n")
    with pytest.raises(DataError, match="no trajectory has a search"):
        asked_by(str(file))


def test_questions_that_say_nothing_are_refused(index: str, tmp_path: Path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "a", "question": "Who?"}\n')
    path, asked = asked_of(str(file))
    with pytest.raises(DataError, match=r"q\.jsonl: no question says what should be found"):
        evaluate_retrieval(path, asked, Place(index), tmp_path / "out", bars=SILENT)
    assert not (tmp_path / "out").exists()
