"""A citation is a span of a passage that was retrieved, and says how it supports a claim."""

from __future__ import annotations

import random

import pytest

from exsearch.agent.citations import Citation, Claim, Match, claims, copied, find
from exsearch.agent.shown import sentence_spans
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.records import Evidence, Passage, Question, Step, StopReason, Trajectory

HARBOUR = Passage(
    "h",
    "Quillmoor harbour",
    "It was built by Ada Fenwick,\nof Wales, in 1871. The sea is cold there.",
)
BREAD = Passage("b", "Bread", "Bread is baked from flour, water and salt.")


def cited(text: str, passage: Passage = HARBOUR) -> tuple[str, str] | None:
    found = find(text, passage)
    return found and (passage.text[found[0] : found[1]], found[2].value)


def test_a_fact_is_found_word_by_word_or_but_for_its_spelling():
    assert cited("built by Ada Fenwick, of Wales,") == (
        "built by Ada Fenwick,\nof Wales,",
        "exact",
    )
    assert cited("Quillmoor harbour: The sea is cold") == ("The sea is cold", "exact")
    assert cited("BUILT by Ada Fenwick of Wales") == (
        "built by Ada Fenwick,\nof Wales",
        "normalised",
    )
    assert cited("") is None and cited("...") is None


@pytest.mark.parametrize(
    "text, fact, span, how",
    [
        ("See [2] in\x00the\u200b text", "[2] in the", "[2] in\x00the", "exact"),
        ("See [2] in the text", "(2) in", "[2] in", "exact"),  # as prompts show it
        ("Die STRASSE - lang!", "die straße lang", "Die STRASSE - lang", "normalised"),
        ("a ab abc", "b abc", None, None),  # whole words only
        ("one two one two three", "one two three", "one two three", "exact"),
    ],
)
def test_a_copy_is_of_whole_words_as_prompts_show_them(text, fact, span, how):
    found = copied(fact, text)
    assert (found and (text[found[0] : found[1]], found[2].value)) == (span and (span, how))


def test_other_words_for_it_are_a_weak_citation():
    sentence = "It was built by Ada Fenwick,\nof Wales, in 1871."
    assert cited("Ada Fenwick of Wales was the one who built Quillmoor harbour, in 1871") == (
        sentence,
        "overlap",
    )
    assert cited("Ada Fenwick of Wales built Quillmoor harbour in 1872") is None  # another year
    assert cited("Quillmoor harbour") is None  # the title alone says nothing
    assert cited("Bread is baked by Ada Fenwick of Cornwall") is None


def trajectory(answer: str, *steps: Step) -> Trajectory:
    return Trajectory(
        Question("q", "Who built Quillmoor harbour?", ("Ada Fenwick",)),
        calls=(),
        steps=steps,
        answer=answer,
        stop_reason=StopReason.ANSWERED,
    )


def test_claims_are_the_facts_and_the_answer():
    step = Step("who built it", (BREAD, HARBOUR), None, Evidence("built by Ada Fenwick,", ("h",)))
    fact, answer = claims(trajectory("Ada Fenwick", step))
    assert fact == Claim("built by Ada Fenwick,", (Citation("h", 7, 28, Match.EXACT),))
    assert answer.citations == (Citation("h", 16, 27, Match.NORMALISED),)
    assert HARBOUR.text[16:27] == "Ada Fenwick" and answer.supported


def test_a_record_that_names_the_wrong_passage_is_cited_by_the_right_one():
    step = Step("who", (BREAD, HARBOUR), None, Evidence("built by Ada Fenwick,", ("b",)))
    assert claims(trajectory("", step))[0].citations[0].passage_id == "h"


def test_what_no_passage_says_is_unsupported():
    step = Step("who", (BREAD,), None, Evidence("Ada Fenwick built it", ("b",)))
    fact, answer = claims(trajectory("Ada Fenwick", step))
    assert not fact.supported and not answer.supported
    assert claims(trajectory("")) == ()


def test_yes_rests_weakly_on_what_was_recorded():
    step = Step("who", (HARBOUR,), None, Evidence("The sea is cold there.", ("h",)))
    _, answer = claims(trajectory("yes", step))
    assert [c.match for c in answer.citations] == [Match.OVERLAP]
    assert claims(trajectory("No."))[0] == Claim("No.")


def reworded(sentence: str, draw: random.Random) -> str:
    """Its words in another order, one in eight left out, with others around them."""
    words = [w for w in sentence.rstrip(".").split() if draw.random() > 1 / 8]
    cut = draw.randrange(1, max(2, len(words)))
    return " ".join(["As one reads,", *words[cut:], *words[:cut]])


@pytest.mark.parametrize("kind", ["copied", "reworded", "of another passage"])
def test_planted_facts_get_the_right_mark(kind):
    draw = random.Random(kind)
    passages = [p for p in read_corpus([sample_path("corpus")]) if p.text]
    right = 0
    for _ in range(100):
        passage, other = draw.sample(passages, 2)
        start, end = draw.choice(sentence_spans(passage.text))
        fact = passage.text[start:end]
        if kind == "copied":
            found = find(fact, passage)
            right += found == (start, end, Match.EXACT)
        elif kind == "reworded":
            found = find(reworded(fact, draw), passage)
            right += found is not None and found[2] is Match.OVERLAP
        else:
            right += find(fact, other) is None
        if kind != "of another passage":
            assert found is None or passage.text[found[0] : found[1]] in passage.text
    assert right >= 95
