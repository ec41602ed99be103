"""A decomposition becomes a trajectory in the searcher's own format, searched for real."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from exsearch.agent.episode import answer_ids, begin
from exsearch.errors import ConfigError, RetrieverError
from exsearch.methods import open_method
from exsearch.methods.base import Malformed
from exsearch.methods.format import parse_record, parse_select, parse_thought
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import CallKind, Evidence, Hop, Passage, Question, StopReason
from exsearch.training.warm_up import fact, hops, warm_up_data

METHOD = SearcherMethod(passages=3)


@pytest.fixture(scope="module")
def tokenizer(tiny_engine):
    return tiny_engine.tokenizer


@pytest.fixture
def make(sample_retriever, tokenizer):
    """The only trajectory of one question, or the reason why there is none."""

    def make(question, method=METHOD, **settings):
        data = warm_up_data([question], sample_retriever, tokenizer, method, examples=1, **settings)
        if data.items:
            assert not data.left_out
            return data.items[0]
        (reason,) = data.left_out
        assert data.left_out[reason] == [question.id]
        return reason

    return make


def texts(item, tokenizer):
    return [(c.kind.value, tokenizer.decode(c.output_ids)) for c in item.trajectory.calls]


TWO_WIKI = Question(
    "2wiki",
    "In what year was the university of Beethoven's birthplace founded?",
    ("1818",),
    ("s-0059", "s-0060"),
    (
        Hop("In which city was Ludwig van Beethoven born?",
            "Ludwig van Beethoven was born in Bonn.", "Bonn", "s-0059"),
        Hop("When was the university of #1 founded?", "The university of Bonn was founded in 1818.",
            "1818", "s-0060"),
    ),
)  # fmt: skip


def test_hops_with_references_as_in_2wiki(make, tokenizer):
    item = make(TWO_WIKI)
    searches = [text for kind, text in texts(item, tokenizer) if kind == "think"]
    assert searches == [
        "Search: In which city was Ludwig van Beethoven born?",
        "Search: When was the university of Bonn founded?",  # #1 is filled in with the short answer
        "Answer: 1818",
    ]
    trajectory = item.trajectory
    assert [s.evidence for s in trajectory.steps] == [
        Evidence("Ludwig van Beethoven was born in Bonn.", ("s-0059",)),
        Evidence("The university of Bonn was founded in 1818.", ("s-0060",)),
    ]
    for step in trajectory.steps:  # searched for real: what the searcher will see
        assert 1 <= len(step.passages) <= 3
        assert step.evidence.passage_ids[0] in {p.id for p in step.passages}
    assert (trajectory.answer, trajectory.stop_reason) == ("1818", StopReason.ANSWERED)
    assert (item.weight, item.answer_log_probs) == (1.0, (0.0,))
    assert item.answer_ids == ((*tokenizer.encode(" 1818"), tokenizer.end_id),)


def test_every_output_reads_back(sample_questions, sample_retriever, tokenizer):
    """Rendered and parsed: each call's tokens say what the trajectory says."""
    data = warm_up_data(sample_questions[:20], sample_retriever, tokenizer, METHOD, examples=20)
    assert len(data.items) >= 15
    for item in data.items:
        t = item.trajectory
        assert t.trainable
        steps = iter(t.steps)
        for call in t.calls:
            assert call.output_ids[-1] == tokenizer.end_id
            text = tokenizer.decode(call.output_ids)
            if call.kind is CallKind.THINK:
                assert not isinstance(parse_thought(text), Malformed)
            else:
                step = next(steps)
                assert parse_record(text, step.passages) == step.evidence
        # the same calls, taken in by a fresh episode, give the same trajectory
        episode = begin(t.question, METHOD, tokenizer)
        searched = iter(t.steps)
        for call in t.calls:
            assert episode.prompt_ids() == call.prompt_ids
            episode.take(call, finished=True)
            if episode.look is not None:
                step = next(searched)
                assert episode.look.query == step.query
                episode.found(step.passages)
        assert episode.trajectory() == t


def test_musique_relations_become_plain_words(make, tokenizer):
    question = Question(
        "musique", "?", ("1818",), (),
        (Hop("Ludwig van Beethoven >> place of birth", "Bonn", None, "s-0059"),
         Hop("#1 >> university founded", "1818", None, "s-0060")),
    )  # fmt: skip
    item = make(question)
    queries = [s.query for s in item.trajectory.steps]
    assert queries == ["Ludwig van Beethoven place of birth", "Bonn university founded"]
    first, second = item.trajectory.evidence
    assert "Bonn" in first.text  # a sentence of the passage itself, since MuSiQue has short answers
    assert "1818" in second.text
    assert all(e.text for e in item.trajectory.evidence)


def test_a_reference_to_nowhere_stays(make):
    hop = dataclasses.replace(TWO_WIKI.decomposition[1], question="University of #7 in Bonn?")
    item = make(dataclasses.replace(TWO_WIKI, decomposition=(hop,)))
    assert item.trajectory.steps[0].query == "University of #7 in Bonn?"


def test_a_single_hop_question_is_its_own_sub_query(make):
    question = Question("nq", "Where was Ludwig van Beethoven born?", ("Bonn",), ("s-0059",))
    assert [h.question for h in hops(question)] == [question.question]
    item = make(question)
    assert [s.query for s in item.trajectory.steps] == [question.question]
    assert item.trajectory.evidence[0].passage_ids == ("s-0059",)


def test_without_annotation_the_support_is_a_passage_that_holds_the_answer(make):
    question = Question("nq", "Where was Ludwig van Beethoven born?", ("Bonn",), dataset="nq-open")
    (evidence,) = make(question).trajectory.evidence
    assert "Bonn" in evidence.text


def test_support_that_is_not_found(make, tokenizer):
    lost = dataclasses.replace(TWO_WIKI.decomposition[1], support_id="s-0001")
    question = dataclasses.replace(TWO_WIKI, decomposition=(TWO_WIKI.decomposition[0], lost))
    assert make(question) == "support not found"
    item = make(question, missing_support="nothing")
    assert ("record", "Nothing found.") in texts(item, tokenizer)
    assert item.trajectory.steps[1].evidence is None


def test_a_record_holds_nothing_that_its_prompt_does_not_show(make, tokenizer, sample_retriever):
    hop = TWO_WIKI.decomposition[0]
    support = sample_retriever.search([hop.question], 3)[0][0]
    assert support.id == hop.support_id
    question = dataclasses.replace(TWO_WIKI, answers=("Bonn",), decomposition=(hop,))
    before = len(support.text.split("Bonn")[0].split())
    cut = SearcherMethod(passages=3, passage_words=before)
    assert make(question, cut) == "support not found"
    item = make(question, cut, missing_support="nothing")
    assert texts(item, tokenizer)[1] == ("record", "Nothing found.")
    record = make(question, SearcherMethod(passages=3, passage_words=before + 1)).trajectory.calls[
        1
    ]
    assert "Bonn" in tokenizer.decode(record.prompt_ids)
    assert "Bonn" in tokenizer.decode(record.output_ids)


def test_a_record_of_text_without_blanks_is_one_sentence(tokenizer):
    class Found:
        def search(self, queries, k):
            return [[Passage("p", "北京", "城市很大。" * 4 + "它是中国的首都。" + "人很多。" * 9)]]

    hop = Hop("北京是什么", "首都", None, "p")
    question = Question("q", "北京是什么", ("首都",), ("p",), (hop,))
    data = warm_up_data([question], Found(), tokenizer, METHOD, examples=1)
    (evidence,) = data.items[0].trajectory.evidence
    assert evidence.text == "北京: 它是中国的首都。"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answers": ()}, "no answer"),
        ({"answers": ("", " ")}, "no answer"),
        ({"answers": (), "decomposition": (), "supporting": ("s-0059",)}, "no answer"),
        ({"decomposition": ()}, "no decomposition"),
        ({"decomposition": TWO_WIKI.decomposition * 3}, "more hops than max_steps"),
        ({"decomposition": (Hop(" ", "Bonn", None, None),)}, "does not read back"),
    ],
)
def test_questions_that_give_no_example(make, change, reason):
    assert make(dataclasses.replace(TWO_WIKI, **change)) == reason


def test_a_blank_answer_before_a_good_one_is_passed_over(make, tokenizer):
    item = make(dataclasses.replace(TWO_WIKI, answers=("", "1818")))
    assert tokenizer.decode(item.answer_ids[0]) == " 1818"
    assert item.trajectory.answer == "1818"


def test_at_the_step_limit_the_frame_is_forced(make, tokenizer):
    t = make(TWO_WIKI, SearcherMethod(passages=3, max_steps=2)).trajectory
    assert (t.calls[-1].kind, t.stop_reason, t.answer_start) == (
        CallKind.ANSWER, StopReason.MAX_STEPS, 0,
    )  # fmt: skip
    assert tokenizer.decode(t.calls[-1].prompt_ids).endswith("Answer:")
    assert tokenizer.decode(t.calls[-1].output_ids) == " 1818"


def test_select_names_the_support_and_the_record_sees_it_alone(make, tokenizer):
    item = make(TWO_WIKI, SearcherMethod(passages=3, select=True))
    kinds = [kind for kind, _ in texts(item, tokenizer)]
    assert kinds == ["think", "select", "record"] * 2 + ["think"]
    selects = [c for c in item.trajectory.calls if c.kind is CallKind.SELECT]
    for call, step in zip(selects, item.trajectory.steps, strict=True):
        text = tokenizer.decode(call.output_ids)
        assert parse_select(text, step.passages) == step.selected_ids == step.evidence.passage_ids
    record = next(c for c in item.trajectory.calls if c.kind is CallKind.RECORD)
    assert "[2]" not in tokenizer.decode(record.prompt_ids)


def test_select_of_nothing_ends_the_step(make, tokenizer):
    lost = dataclasses.replace(TWO_WIKI.decomposition[0], support_id="s-0001")
    question = dataclasses.replace(TWO_WIKI, decomposition=(lost,))
    method = SearcherMethod(passages=3, select=True)
    item = make(question, method, missing_support="nothing")
    assert texts(item, tokenizer)[1] == ("select", "None.")
    assert [kind for kind, _ in texts(item, tokenizer)] == ["think", "select", "think"]


def test_a_transcript_is_one_growing_sequence(make):
    calls = make(TWO_WIKI, SearcherMethod(passages=3, context="transcript")).trajectory.calls
    for before, after in itertools.pairwise(calls):
        seen = (*before.prompt_ids, *before.output_ids)
        assert after.prompt_ids[: len(seen)] == seen


def test_no_more_examples_than_asked(sample_questions, sample_retriever, tokenizer):
    data = warm_up_data(sample_questions, sample_retriever, tokenizer, METHOD, examples=3)
    assert len(data.items) == 3
    assert not warm_up_data([], sample_retriever, tokenizer, METHOD, examples=3).items


@pytest.mark.parametrize("name", ["self-ask", "ircot", "guess"])
def test_decompositions_are_steps_of_the_searcher_alone(
    sample_questions, sample_retriever, tokenizer, name
):
    with pytest.raises(ConfigError, match=f"searcher, direct and rag, not {name}: .*teacher"):
        warm_up_data(
            sample_questions, sample_retriever, tokenizer, open_method({"name": name}), examples=1
        )


@pytest.mark.parametrize("name", ["direct", "rag"])
def test_any_question_with_an_answer_is_an_example_without_steps(
    sample_questions, sample_retriever, tokenizer, name
):
    """For `sft-direct` and `sft-rag`: the question, its passages where it has some, the answer."""
    method = open_method({"name": name})
    unanswered = dataclasses.replace(sample_questions[0], id="none", answers=())
    plain = [dataclasses.replace(q, decomposition=(), supporting=()) for q in sample_questions[:2]]
    asked = [unanswered, *plain]
    data = warm_up_data(asked, sample_retriever, tokenizer, method, examples=9)
    assert data.left_out == {"no answer": ["none"]}
    for question, item in zip(plain, data.items, strict=True):
        trajectory, (call,) = item.trajectory, item.trajectory.calls
        assert item.answer_ids == (answer_ids(question.distinct_answers[0], tokenizer),)
        assert trajectory.answer_start == 0  # only the answer carries loss
        assert trajectory.method == name
        searched = [step.query for step in trajectory.steps]
        assert searched == ([question.question] if name == "rag" else [])
        prompt = tokenizer.decode(call.prompt_ids)
        found = sample_retriever.search([question.question], 5)[0] if name == "rag" else []
        assert all(passage.title in prompt for passage in found)


class Nothing:
    """A retriever that finds nothing."""

    def search(self, queries, k):
        return [[] for _ in queries]


@pytest.mark.parametrize("select", [False, True])
def test_a_search_that_finds_nothing(tokenizer, select):
    data = warm_up_data(
        [TWO_WIKI], Nothing(), tokenizer, SearcherMethod(select=select), examples=1,
        missing_support="nothing",
    )  # fmt: skip
    assert [s.evidence for s in data.items[0].trajectory.steps] == [None, None]
    data = warm_up_data([TWO_WIKI], Nothing(), tokenizer, METHOD, examples=1)
    assert data.left_out == {"support not found": ["2wiki"]}


def test_labels_inside_a_fact_cannot_forge_a_source(make, tokenizer):
    hop = dataclasses.replace(TWO_WIKI.decomposition[0], answer="[3] says that it was [2] Bonn.")
    evidence = make(dataclasses.replace(TWO_WIKI, decomposition=(hop,))).trajectory.evidence
    assert evidence == (Evidence("(3) says that it was (2) Bonn.", ("s-0059",)),)


def test_a_failed_search_leaves_its_question_out(tiny_engine, sample_questions, sample_retriever):
    class Failing:
        def __init__(self, *failing: int) -> None:
            self.failing, self.asked = failing, -1

        def search(self, queries, k):
            self.asked += 1
            if self.asked in self.failing:
                raise RetrieverError("away")  # another error would be tried again
            return sample_retriever.search(queries, k)

    def made(retriever, count=3):
        tokenizer = tiny_engine.tokenizer
        return warm_up_data(
            sample_questions, retriever, tokenizer, SearcherMethod(passages=1), examples=count
        )

    whole, missing = made(Failing()), made(Failing(0))
    first = whole.items[0].trajectory.question.id
    assert missing.left_out["search failed"] == [first]
    assert [i.trajectory.question.id for i in missing.items][:2] == [
        i.trajectory.question.id for i in whole.items
    ][1:]
    with pytest.raises(RetrieverError, match="away"):
        made(Failing(*range(5)))


def test_a_record_can_be_the_words_that_answer_alone():
    hop = Hop("Where was Ada born?", "Ada was born in Quillmoor.", "quillmoor")
    text = "Ada was a mason. She was born in Quillmoor."
    assert fact(hop, hop.question, "Ada", text, "words") == "Quillmoor"
    assert fact(hop, hop.question, "Ada", "Born in Wales.", "words") == "quillmoor"
    assert fact(hop, hop.question, "Ada", text) == "Ada was born in Quillmoor."


def test_the_words_are_what_the_prompt_asks_for(sample_questions, sample_retriever, tiny_engine):
    tokenizer = tiny_engine.tokenizer
    method = SearcherMethod(passages=2, facts="words")
    items = warm_up_data(
        sample_questions[:12], sample_retriever, tokenizer, method, examples=4
    ).items
    assert len(items) == 4
    for item in items:
        for step in item.trajectory.steps:
            assert step.evidence and len(step.evidence.text.split()) < 8
            assert step.evidence.text in " ".join(f"{p.title} {p.text}" for p in step.passages)
        records = [c for c in item.trajectory.calls if c.kind is CallKind.RECORD]
        assert all("Copy the words that" in tokenizer.decode(c.prompt_ids) for c in records)
