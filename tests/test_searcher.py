"""A searcher gives answer, evidence and trajectory, for one question or many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

import exsearch
from exsearch.agent.events import Event, EventKind
from exsearch.engines.base import Sampling
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import EngineError, IndexDamagedError, RetrieverError
from exsearch.methods.searcher import SearcherMethod
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

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        raise RetrieverError("the disk is gone")

    def identity(self) -> str:
        return "broken"


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


def test_an_answer_that_rests_on_nothing_can_be_withheld(sample_retriever: Retriever):
    searcher = exsearch.Searcher(ScriptedEngine(SCRIPT), sample_retriever, abstain=1e-6)
    found = searcher.ask("And what else?")
    assert (found.answer, found.withheld) == ("", "no passage that was found says it")
    assert found.trajectory.answer == "nothing" and found.confidence.value == 0
    assert searcher.ask("Who wrote Peter Pan?").answer == "J. M. Barrie"


def test_the_method_can_be_limited(sample_retriever: Retriever):
    method = SearcherMethod(max_steps=1, passages=1)
    script = {"Query": "Nothing found.", "Notes:\nnone": "Search: a play", "1.": "Barrie"}
    searcher = exsearch.Searcher(ScriptedEngine(script), sample_retriever, method=method)
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


def test_a_question_that_fails_in_a_batch_leaves_the_others_alone(sample_retriever: Retriever):
    searcher = exsearch.Searcher(ScriptedEngine(SCRIPT), sample_retriever)
    fine, failed, also_fine = searcher.ask_batch(["And what else?", "Who?", "Who wrote Peter Pan?"])
    assert (fine.answer, fine.error) == ("nothing", None)
    assert (also_fine.answer, also_fine.error) == ("J. M. Barrie", None)
    assert failed.answer == ""
    assert "no reply for the prompt" in (failed.error or "")
    with pytest.raises(EngineError, match="no reply"):
        failed.or_raise()
    broken = exsearch.Searcher(ScriptedEngine(SCRIPT), BrokenRetriever())
    searched, answered = broken.ask_batch(["Who wrote Peter Pan?", "And what else?"])
    assert (searched.error, answered.error) == ("the disk is gone", None)


def test_an_answer_does_not_depend_on_what_else_is_asked(sample_retriever: Retriever):
    replies = [f"Answer: {n}" for n in range(9)]
    engine = ScriptedEngine({"": replies})
    sampled = exsearch.Searcher(engine, sample_retriever, sampling=Sampling())
    texts = [f"Question {n}?" for n in range(6)]
    alone = [sampled.ask(text).answer for text in texts]
    assert len(set(alone)) > 1
    assert [found.answer for found in sampled.ask_batch([*texts[::-1], *texts])] == [
        *alone[::-1],
        *alone,
    ]
    with ThreadPoolExecutor(6) as threads:
        assert [found.answer for found in threads.map(sampled.ask, texts)] == alone
    other = exsearch.Searcher(engine, sample_retriever, sampling=Sampling(), seed=1)
    assert [other.ask(text).answer for text in texts] != alone


def test_events_tell_what_happens_and_end(searcher: exsearch.Searcher):
    heard = list(searcher.events("Who wrote Peter Pan?"))
    assert [(event.kind, event.action) for event in heard] == [
        (EventKind.BEGUN, "think"),
        (EventKind.TEXT, "think"),
        (EventKind.SEARCH, None),
        (EventKind.PASSAGES, None),
        (EventKind.BEGUN, "record"),
        (EventKind.TEXT, "record"),
        (EventKind.EVIDENCE, None),
        (EventKind.BEGUN, "think"),
        (EventKind.TEXT, "think"),
        (EventKind.ANSWER, None),
        (EventKind.END, None),
    ]
    assert [event.text for event in heard if event.kind is EventKind.TEXT] == [
        "Search: play about Peter Pan",
        "[1] Peter Pan was written by J. M. Barrie.",
        "Answer: J. M. Barrie",
    ]
    assert heard[2].text == "play about Peter Pan"
    assert heard[6].step is not None and heard[6].step.passages == heard[3].passages
    assert (heard[-2].text, heard[-1].stop_reason) == ("J. M. Barrie", StopReason.ANSWERED)
    (*_, failed) = searcher.events("Who?")
    assert (failed.kind, failed.stop_reason) == (EventKind.END, StopReason.ENGINE_ERROR)
    assert "no reply for the prompt" in failed.text


def test_tasks_ask_side_by_side(searcher: exsearch.Searcher):
    async def ask() -> list[exsearch.Found]:
        texts = ("Who wrote Peter Pan?", "And what else?")
        return await asyncio.gather(*map(searcher.ask_async, texts))

    assert [found.answer for found in asyncio.run(ask())] == ["J. M. Barrie", "nothing"]
    with pytest.raises(EngineError, match="no reply"):
        asyncio.run(searcher.ask_async("Who?"))


class Held:
    """A script that waits, so that a question is under way for as long as a test wants."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def __call__(self, chat: str) -> str:
        self.asked.set()
        assert self.released.wait(20)
        return "Search: more" if "Notes:" in chat else "Nothing found."


def test_a_question_that_is_taken_back_goes_no_further(sample_retriever: Retriever):
    script, heard = Held(), list[Event]()
    searcher = exsearch.Searcher(ScriptedEngine(script), sample_retriever)
    future = searcher.submit("Who?", on_event=heard.append)
    assert script.asked.wait(20)
    assert future.cancel()
    script.released.set()
    with pytest.raises(CancelledError):
        future.result()
    searcher.ask("Who else?")  # goes all its steps meanwhile
    assert heard[-1].kind is EventKind.END
    assert (heard[-1].text, heard[-1].stop_reason) == ("cancelled", None)
    assert [event.kind for event in heard].count(EventKind.BEGUN) == 1


def test_a_closed_searcher_lets_nobody_wait(sample_retriever: Retriever):
    script = Held()
    with exsearch.Searcher(ScriptedEngine(script), sample_retriever) as searcher:
        future = searcher.submit("Who?")
        assert script.asked.wait(20)
        closing = threading.Thread(target=searcher.close)
        closing.start()
        while not searcher._closed:
            pass
        script.released.set()
        with pytest.raises(EngineError, match="the searcher was closed"):
            future.result(20)
        closing.join()
    with pytest.raises(RuntimeError, match="this searcher is closed"):
        searcher.ask("Who?")


def test_a_listener_that_fails_fails_its_own_question(searcher: exsearch.Searcher):
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    futures = [
        searcher.submit("Who wrote Peter Pan?", on_event=broken),
        searcher.submit("Who wrote Peter Pan?"),
    ]
    with pytest.raises(ZeroDivisionError):
        futures[0].result(20)
    assert futures[1].result(20).answer == "J. M. Barrie"


def test_a_missing_index_is_said_before_a_model_is_loaded(tmp_path: Path):
    with pytest.raises(IndexDamagedError, match="no such folder"):
        exsearch.Searcher("no-such-model", tmp_path / "none")


def test_names_and_paths(tiny_model_folder: Path, sample_retriever: Retriever):
    searcher = exsearch.Searcher(tiny_model_folder, sample_retriever, device="cpu", batch_size=2)
    first, second = searcher.ask_batch(["Who wrote Peter Pan?", "Where is Brno?"])
    alone = searcher.ask("Where is Brno?")
    assert alone.trajectory.calls[0].output_ids == second.trajectory.calls[0].output_ids
    assert first.trajectory.calls


def test_one_text_is_not_taken_for_many_questions(searcher: exsearch.Searcher):
    with pytest.raises(TypeError, match="questions is one text"):
        searcher.ask_batch("And what else?")
