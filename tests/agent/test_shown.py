"""Whatever a passage, a title or a question holds, a prompt stays short; ordinary text stays."""

from __future__ import annotations

import pytest

from exsearch.agent.episode import begin
from exsearch.agent.rollout import rollout
from exsearch.agent.shown import (
    QUESTION_TOKENS,
    TITLE_TOKENS,
    passage_tokens,
    shown_passage,
    shown_question,
)
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.engines.chat import HuggingFaceChat
from exsearch.engines.text import TextTokenizer
from exsearch.methods.direct import DirectMethod
from exsearch.methods.format import one_line, shown_text
from exsearch.methods.rag import RagMethod
from exsearch.methods.searcher import SearcherMethod
from exsearch.methods.self_ask import SelfAskMethod
from exsearch.records import Call, Passage, Question, StopReason

MONSTERS = {
    "letters": "x" * 40_000,
    "table": "|a|1|b" * 5_000,
    "spaced table": "| " * 20_000,
    "chinese": "北京是中国的首都。" * 2_000,
    "thai": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย" * 500,
    "burmese": "မြန်မာနိုင်ငံသည်" * 1_000,
    "emoji": "🜚🏳️‍🌈" * 5_000,
    "words": "long " * 20_000,
    "combining": "a" + "\u0301" * 40_000,
}


@pytest.fixture(params=["text", "tiny"])
def tokenizer(request, tiny_engine):
    return TextTokenizer() if request.param == "text" else tiny_engine.tokenizer


def prompts(question, passages, method, tokenizer):
    """Every prompt of a trajectory that searches twice and then answers."""
    episode = begin(question, method, tokenizer)
    replies = iter(["Search: a", "[1] b", "Search: c", "Nothing found.", "Answer: d"])
    if not isinstance(method, SearcherMethod):
        replies = iter(["Search: a", "Search: c", "Answer: d"])
    while episode.stop_reason is None:
        if episode.look is not None:
            episode.found(passages)
            continue
        assert episode.ask is not None
        text = " d" if episode.ask.forced else next(replies)
        ids = (*tokenizer.encode(text), tokenizer.end_id)
        episode.take(Call(episode.ask.kind, episode.prompt_ids(), ids), finished=True)
    assert episode.stop_reason.has_answer
    return episode


@pytest.mark.parametrize("monster", MONSTERS)
def test_no_text_fills_a_prompt(tokenizer, monster):
    text = MONSTERS[monster]
    question = Question("q", f"Who? {text}")
    passages = [Passage(str(n), text, f"{n} {text}", float(n)) for n in range(3)]
    for method in (
        SearcherMethod(max_steps=3, passages=3, passage_words=20),
        SelfAskMethod(max_steps=3, passage_words=20),
        RagMethod(passages=3, passage_words=20),
        DirectMethod(),
    ):
        episode = prompts(question, passages, method, tokenizer)
        most = 3 * (passage_tokens(20) + TITLE_TOKENS) + QUESTION_TOKENS + 200
        assert max(len(call.prompt_ids) for call in episode.calls) <= most
        trajectory = episode.trajectory()
        assert trajectory.question == question
        assert all(step.passages == tuple(passages) for step in trajectory.steps)  # whole


def test_a_transcript_of_such_passages_stays_short(tokenizer):
    passages = [Passage("p", "", MONSTERS["chinese"])]
    method = SearcherMethod(passage_words=20, context="transcript")
    episode = prompts(Question("q", "Who?"), passages, method, tokenizer)
    assert len(episode.calls[-1].prompt_ids) <= 2 * passage_tokens(20) + 500


@pytest.mark.parametrize("monster", ["letters", "chinese", "thai"])
def test_no_question_that_finds_such_a_passage_is_lost(tiny_engine, monster):
    class Found:
        def search(self, queries, k):
            return [[Passage(str(n), "T", MONSTERS[monster]) for n in range(k)] for _ in queries]

    method = RagMethod(passages=3, passage_words=100, answer_tokens=2)
    (trajectory,) = rollout([Question("q", "Who?")], tiny_engine, Found(), method=method)
    assert trajectory.stop_reason is not StopReason.ENGINE_ERROR, trajectory.error
    assert len(trajectory.calls) == 1


@pytest.mark.parametrize("words", [1, 5, 32, 100])
def test_ordinary_text_is_shown_as_far_as_its_words_go(tokenizer, sample_questions, words):
    for passage in read_corpus([sample_path("corpus")]):
        shown = shown_passage(passage, words, tokenizer)
        assert (shown.title, shown.text) == (passage.title, shown_text(passage, words))
    for question in sample_questions:
        assert shown_question(question, tokenizer) is question


def test_as_much_is_shown_as_fits(tiny_engine):
    tokenizer: HuggingFaceChat = tiny_engine.tokenizer
    for text in MONSTERS.values():
        shown = shown_passage(Passage("p", text, text), 20, tokenizer)
        assert len(tokenizer.encode(shown.title)) <= TITLE_TOKENS
        assert len(tokenizer.encode(shown.text)) <= passage_tokens(20)
        assert one_line(text).startswith(shown.title)
    letters = shown_passage(Passage("p", "", MONSTERS["letters"]), 20, tokenizer).text
    assert len(tokenizer.encode(letters + "x" * 8)) > passage_tokens(20)
