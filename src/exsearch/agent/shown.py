"""What is shown of a text from outside is a part of it, bounded in words and in tokens.

A plan counts words, and some text has none: a script without blanks, a table, a long string. So an
episode hands its plan no more than these bounds, which ordinary text never reaches: of some 27,000
English passages (Wikipedia's) the first 100 words take at most 330 tokens of SmolLM2, the first 5
at most 48, a title at most 29 and a question at most 153. It knows nothing of prompts.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from exsearch.engines.base import ChatTokenizer
from exsearch.methods.base import Look
from exsearch.methods.format import one_line, word_spans
from exsearch.records import Passage, Question, Spans, Step
from exsearch.retrievers.analyser import Analyser

TITLE_TOKENS = 100
QUESTION_TOKENS = 1000
_CHARACTERS_A_TOKEN = 16  # more is not even tokenised
_OF_TITLE = 0.25  # what a word of the query counts that the title has, too: all sentences are of it

_END = re.compile(r"[.!?][\"')\]\u201d\u2019]*$")
_OPENING = re.compile(r"[\"'(\[\u201c\u2018]*[^\W_a-z]")  # a sentence begins with no small letter
_ABBREVIATION = re.compile(
    r"(?:[\"'(\[\u201c\u2018]*(?:[A-Z]|St|Mt|Ft|Dr|Mr|Mrs|Ms|Jr|Sr|Prof|Rev|Gen|Col|Lt|Capt|Sgt|Gov|Sen|vs|No"
    r"|ca|c|b|d|r|née))\.|.*\.[A-Za-z]\."
)


def passage_tokens(words: int) -> int:
    """The most tokens that are shown of a passage's text, where `words` words are to be shown."""
    return 100 + 4 * words


def shown_question(question: Question, tokenizer: ChatTokenizer) -> Question:
    """A question as its plan sees it: with the first `QUESTION_TOKENS` tokens of its text.

    Args:
        question: The question, of any length.
        tokenizer: The tokenizer of the model that is asked.
    """
    text = one_line(question.question)
    start = _start(text, QUESTION_TOKENS, tokenizer)
    return question if start == text else dataclasses.replace(question, question=start)


def shown_passages(
    passages: Sequence[Passage], look: Look, tokenizer: ChatTokenizer
) -> list[tuple[Passage, Spans]]:
    """The passages of a search as a plan sees them, with `look.words` words of each or on average.

    A title has at most `TITLE_TOKENS` tokens, and n words at most `passage_tokens(n)`.

    Args:
        passages: The passages, of any length, best first.
        look: The search that found them; its `show` says which of the words are taken.
        tokenizer: The tokenizer of the model that is asked.

    Returns:
        Each passage with what is shown of its title and text; and where the parts of the text begin
        and end in the whole.
    """
    words = [word_spans(passage.text) for passage in passages]
    if look.show == "query":
        taken = _shared(passages, words, look)
    else:
        taken = [list(range(min(look.words, len(own)))) for own in words]
    return [
        _part(passage, [own[n] for n in numbers], tokenizer)
        for passage, own, numbers in zip(passages, words, taken, strict=True)
    ]


def _part(
    passage: Passage, words: Sequence[tuple[int, int]], tokenizer: ChatTokenizer
) -> tuple[Passage, Spans]:
    """A passage with these words of its text, as far as the tokens allow."""
    title = _start(one_line(passage.title), TITLE_TOKENS, tokenizer)
    parts = [one_line(passage.text[start:end]) for start, end in words]
    text = _start(" ".join(parts), passage_tokens(len(words)), tokenizer)
    spans: list[tuple[int, int]] = []
    room = len(text)
    for (start, end), part in zip(words, parts, strict=True):
        if room <= 0:
            break
        end = min(end, start + room)
        if spans and not word_spans(passage.text[spans[-1][1] : start]):  # the next word
            start = spans.pop()[0]
        spans.append((start, end))
        room -= len(part) + 1
    return dataclasses.replace(passage, title=title, text=text), tuple(spans)


def shown_before(step: Step) -> tuple[Passage, ...] | None:
    """The passages of a step with what a record was shown of their texts; None if not known."""
    if step.spans is None:
        return None
    spans_of = {p.id: spans for p, spans in zip(step.passages, step.spans, strict=True)}
    return tuple(dataclasses.replace(p, text=_parts(p.text, spans_of[p.id])) for p in step.shown)


def _parts(text: str, spans: Spans) -> str:
    return " ".join(one_line(text[start:end]) for start, end in spans)


def _shared(
    passages: Sequence[Passage], words: Sequence[Sequence[tuple[int, int]]], look: Look
) -> list[list[int]]:
    """The numbers of the words that are taken of each passage.

    Half of the words go to the best sentences of each passage alike, the others to the best of all.
    A sentence has a value for each word that it shares with the query, the less the more sentences
    of its passage have the word, and 1 less for each passage before its own. Of equal ones the
    first comes first, and the last to find room is cut. (Chosen on dev questions of four data sets
    by how often the answer was shown, given that it was found.)
    """
    sentences = [
        (value - rank, rank, numbers)
        for rank, (passage, own) in enumerate(zip(passages, words, strict=True))
        for value, numbers in _valued(passage, own, look.query)
    ]
    sentences.sort(key=lambda sentence: -sentence[0])
    taken: list[set[int]] = [set() for _ in passages]
    for _, rank, numbers in sentences:
        taken[rank] |= set(numbers[: look.words // 2 - len(taken[rank])])
    room = look.words * len(passages) - sum(map(len, taken))
    for _, rank, numbers in sentences:
        more = [n for n in numbers if n not in taken[rank]][:room]
        taken[rank] |= set(more)
        room -= len(more)
    return [sorted(numbers) for numbers in taken]


def _valued(
    passage: Passage, words: Sequence[tuple[int, int]], query: str
) -> Iterator[tuple[float, range]]:
    """Each sentence of a passage by the numbers of its words, and what it shares with a query."""
    sentences = list(_sentences(passage.text, words))
    analyse = analyser().words
    asked = dict.fromkeys(analyse(query))
    texts = (passage.text[words[s.start][0] : words[s.stop - 1][1]] for s in sentences)
    held = [set(analyse(text)) & asked.keys() for text in texts]
    count = Counter(word for own in held for word in own)
    titled = set(analyse(passage.title))
    for numbers, own in zip(sentences, held, strict=True):
        # In the query's order, so that a sum is the same each time.
        found = [word for word in asked if word in own]
        yield sum((_OF_TITLE if w in titled else 1.0) / count[w] for w in found), numbers


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text begins and ends."""
    words = word_spans(text)
    return [(words[s.start][0], words[s.stop - 1][1]) for s in _sentences(text, words)]


def _sentences(text: str, words: Sequence[tuple[int, int]]) -> Iterator[range]:
    """The numbers of the words of each sentence."""
    first = 0
    for n in range(len(words)):
        word = text[slice(*words[n])]
        last = n + 1 == len(words)
        ends = _END.search(word) and not _ABBREVIATION.fullmatch(word)
        if last or (ends and _OPENING.match(text, words[n + 1][0])):
            yield range(first, n + 1)
            first = n + 1


@cache
def analyser() -> Analyser:
    """The analyser by which the words of prompts and claims are compared."""
    return Analyser()


def _start(text: str, limit: int, tokenizer: ChatTokenizer) -> str:
    """The start of a text that takes at most `limit` tokens, as long as they allow."""
    some = text[: _CHARACTERS_A_TOKEN * limit]
    while len(ids := tokenizer.encode(some)) > limit:
        end = len(tokenizer.decode(ids[:limit]).rstrip("\ufffd"))
        # A tokenizer may spell what it reads otherwise, and longer.
        some = some[: end if end < len(some) else len(some) * 9 // 10].rstrip()
    return some
