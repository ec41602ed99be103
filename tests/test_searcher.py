"""A searcher gives answer, evidence and trajectory, for one question or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import exsearch
from exsearch.methods.searcher import SearcherMethod
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import EngineError, IndexDamagedError, RetrieverError
from exsearch.records import Passage, StopReason
from exsearch.retrievers.base import Retriever

SCRIPT = {
    "Query: play about Peter Pan": "[1] Peter Pan was written by J. M. Barrie.",
    "1. play about Peter Pan": "Answer: J. M. Barrie",
    "Question: Who wrote Peter Pan?": "Search: play about Peter Pan",
    "Question: And what else?": "Answer: nothing",
}


class BrokenRetriever:
    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise RetrieverError("the disk is gone")


@pytest.fixture
def searcher(sample_retriever: Retriever) -> exsearch.Searcher:
    return exsearch.Searcher(ScriptedEngine(SCRIPT), sample_retriever)


def test_answer_and_evidence(searcher: exsearch.Searcher):
    found = searcher.ask("Who wrote Peter Pan?")
    assert found.answer == "J. M. Barrie"
    (evidence,) = found.evidence
    assert evidence.text == "Peter Pan was written by J. M. Barrie."
    (step,) = found.trajectory.steps
    assert evidence.passage_ids == (step.passages[0].id,)
    assert found.trajectory.stop_reason is StopReason.ANSWERED


def test_many_questions_keep_their_order(searcher: exsearch.Searcher):
    questions = ["And what else?", "Who wrote Peter Pan?", "And what else?"]
    found = searcher.ask_batch(questions)
    assert [f.answer for f in found] == ["nothing", "J. M. Barrie", "nothing"]
    assert [f.trajectory.question.question for f in found] == questions
    assert searcher.ask_batch([]) == []


def test_no_answer_is_empty_and_says_why(sample_retriever: Retriever):
    searcher = exsearch.Searcher(ScriptedEngine({"": "well"}), sample_retriever)
    found = searcher.ask("Who?")
    assert (found.answer, found.evidence) == ("", ())
    assert found.trajectory.stop_reason is StopReason.MALFORMED
    assert found.trajectory.retries == 1


def test_the_agent_can_be_limited(sample_retriever: Retriever):
    agent = SearcherMethod(max_steps=1, passages=1)
    script = {"Query": "Nothing found.", "Notes:\nnone": "Search: a play", "1.": "Barrie"}
    searcher = exsearch.Searcher(ScriptedEngine(script), sample_retriever, agent=agent)
    found = searcher.ask("Who wrote Peter Pan?")
    assert found.trajectory.stop_reason is StopReason.MAX_STEPS
    assert len(found.trajectory.steps[0].passages) == 1


def test_a_failure_is_an_exception(sample_retriever: Retriever):
    broken = exsearch.Searcher(ScriptedEngine(SCRIPT), BrokenRetriever())
    with pytest.raises(RetrieverError, match="the disk is gone"):
        broken.ask("Who wrote Peter Pan?")
    silent = exsearch.Searcher(ScriptedEngine({"x": "y"}), sample_retriever)
    with pytest.raises(EngineError, match="no reply"):
        silent.ask("Who?")


def test_a_missing_index_is_said_before_a_model_is_loaded(tmp_path: Path):
    with pytest.raises(IndexDamagedError, match="no such folder"):
        exsearch.Searcher("no-such-model", tmp_path / "none")


def test_names_and_paths(tiny_model_folder: Path, sample_retriever: Retriever):
    searcher = exsearch.Searcher(tiny_model_folder, sample_retriever, device="cpu", batch_size=2)
    first, second = searcher.ask_batch(["Who wrote Peter Pan?", "Where is Brno?"])
    alone = searcher.ask("Where is Brno?")
    assert alone.trajectory.calls[0].output_ids == second.trajectory.calls[0].output_ids
    assert first.trajectory.calls
