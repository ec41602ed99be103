"""What is shown of a text from outside is its start, bounded in tokens: no text can fill a prompt.

A plan counts words, and some text has none: a script without blanks, a table, a long string. So an
episode hands its plan no more than these bounds, which ordinary text never reaches: of some 27,000
English passages (Wikipedia's) the first 100 words take at most 330 tokens of SmolLM2, the first 5
at most 48, a title at most 29 and a question at most 153. It knows nothing of prompts.
"""

from __future__ import annotations

import dataclasses

from exsearch.engines.base import ChatTokenizer
from exsearch.methods.format import one_line, shown_text
from exsearch.records import Passage, Question

TITLE_TOKENS = 100
QUESTION_TOKENS = 1000
_CHARACTERS_A_TOKEN = 16  # more is not even tokenised


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


def shown_passage(passage: Passage, words: int, tokenizer: ChatTokenizer) -> Passage:
    """A passage as a plan sees it: with the first `words` words of its text.

    A title has at most `TITLE_TOKENS` tokens, and those words at most `passage_tokens(words)`.

    Args:
        passage: The passage, of any length.
        words: The most words of its text.
        tokenizer: The tokenizer of the model that is asked.
    """
    title = _start(one_line(passage.title), TITLE_TOKENS, tokenizer)
    text = _start(shown_text(passage, words), passage_tokens(words), tokenizer)
    return dataclasses.replace(passage, title=title, text=text)


def _start(text: str, limit: int, tokenizer: ChatTokenizer) -> str:
    """The start of a text that takes at most `limit` tokens, as long as they allow."""
    some = text[: _CHARACTERS_A_TOKEN * limit]
    while len(ids := tokenizer.encode(some)) > limit:
        end = len(tokenizer.decode(ids[:limit]).rstrip("\ufffd"))
        # A tokenizer may spell what it reads otherwise, and longer.
        some = some[: end if end < len(some) else len(some) * 9 // 10].rstrip()
    return some
