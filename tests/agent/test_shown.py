"""Whatever a passage, a title or a question holds, a prompt stays short; ordinary text stays."""

from __future__ import annotations

import pytest

from exsearch.agent.episode import begin
from exsearch.agent.rollout import rollout
from exsearch.agent.shown import (
    QUESTION_TOKENS,
    TITLE_TOKENS,
    passage_tokens,
    shown_before,
    shown_passages,
    shown_question,
)
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.engines.chat import HuggingFaceChat
from exsearch.engines.text import TextTokenizer
from exsearch.methods.base import Look
from exsearch.methods.direct import DirectMethod
from exsearch.methods.format import one_line
from exsearch.methods.rag import RagMethod
from exsearch.methods.searcher import SearcherMethod
from exsearch.methods.self_ask import SelfAskMethod
from exsearch.records import Call, Passage, Question, Step, StopReason

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
        ((shown, spans),) = shown_passages([passage], Look("?", 1, words), tokenizer)
        beginning = " ".join(one_line(passage.text).split(" ")[:words])
        assert (shown.title, shown.text) == (passage.title, beginning)
        assert [one_line(passage.text[start:end]) for start, end in spans] == [beginning]
    for question in sample_questions:
        assert shown_question(question, tokenizer) is question


def test_as_much_is_shown_as_fits(tiny_engine):
    tokenizer: HuggingFaceChat = tiny_engine.tokenizer
    for text in MONSTERS.values():
        ((shown, spans),) = shown_passages([Passage("p", text, text)], Look("?", 1, 20), tokenizer)
        assert " ".join(one_line(text[start:end]) for start, end in spans) == shown.text
        assert len(tokenizer.encode(shown.title)) <= TITLE_TOKENS
        assert len(tokenizer.encode(shown.text)) <= passage_tokens(20)
        assert one_line(text).startswith(shown.title)
    letters = Passage("p", "", MONSTERS["letters"])  # one word
    ((shown, _),) = shown_passages([letters], Look("?", 1, 20), tokenizer)
    assert len(tokenizer.encode(shown.text + "x" * 8)) > passage_tokens(1)


ADA = Passage(
    "a",
    "Ada Fenn",
    "Ada Fenn was a poet. She lived by the sea for years, with two cats. "
    "She was born in Quillmoor.",
)
SEA = Passage("s", "The sea", "The sea is wide. Ada wrote of it, and St. Ives was home to her.")


def shown(passages, query, words, show="query"):
    found = shown_passages(passages, Look(query, len(passages), words, show), TextTokenizer())
    for whole, (part, spans) in zip(passages, found, strict=True):
        assert " ".join(one_line(whole.text[start:end]) for start, end in spans) == part.text
    return [part.text for part, _ in found]


def test_the_sentence_that_fits_the_query_is_shown():
    # "born" is in the last sentence alone; "Ada" and "Fenn" of the title count a quarter.
    assert shown([ADA], "Where was Ada Fenn born?", 5) == ["She was born in Quillmoor."]
    # Of 10 words 5 are left for the next best, which has these two.
    both = "Ada Fenn was a poet. She was born in Quillmoor."
    assert shown([ADA], "Where was Ada Fenn born?", 10) == [both]
    assert shown([ADA], "Where was Ada Fenn born?", 5, "start") == ["Ada Fenn was a poet."]
    assert shown([ADA], "Where was Ada Fenn born?", 100) == [ADA.text]
    assert shown([ADA], "", 5) == ["Ada Fenn was a poet."]  # all alike: the first


def test_words_are_shared_among_the_passages_of_a_search():
    # 6 words each: 3 for the best sentence of each, then 6 for the best of all. "born" is worth 1,
    # "ada" 1/4 in ADA, where its title has it, and 1 in SEA, less 1 as the second passage.
    found = shown([ADA, SEA], "ada born", 6)
    assert found == ["Ada Fenn was a She was born in Quillmoor.", "Ada wrote of"]


def test_an_abbreviation_ends_no_sentence():
    assert shown([SEA], "home of Ada", 11) == ["Ada wrote of it, and St. Ives was home to her."]


@pytest.mark.parametrize("show", ["start", "query"])
def test_no_more_words_are_shown_than_were_asked_for(show, sample_retriever, sample_questions):
    for question in sample_questions[:20]:
        found = sample_retriever.search([question.question], 3)[0]
        texts = shown(found, question.question, 12, show)
        assert sum(len(text.split()) for text in texts) <= 36


def test_a_step_says_what_was_shown(tokenizer):
    method = RagMethod(passages=1, passage_words=5, show="query")
    episode = begin(Question("q", "Where was Ada Fenn born?"), method, tokenizer)
    episode.found([ADA])
    (step,) = episode.steps
    assert step.passages == (ADA,)
    assert step.spans == (((ADA.text.index("She was"), len(ADA.text)),),)
    (seen,) = shown_before(step) or ()
    assert seen.text == "She was born in Quillmoor."
    assert episode.ask is not None and "She was born in Quillmoor." in episode.ask.prompt
    assert shown_before(Step("?", (ADA,))) is None
