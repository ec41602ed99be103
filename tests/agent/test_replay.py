"""A replay gives the steps that it was given, or says that the method can't have made them."""

from __future__ import annotations

import pytest

from exsearch.agent.replay import UnreplayableError, replay
from exsearch.engines.scripted import ScriptedTokenizer
from exsearch.methods.searcher import SearcherMethod
from exsearch.methods.self_ask import SelfAskMethod
from exsearch.records import Evidence, Passage, Question, Step

TOKENIZER = ScriptedTokenizer()
QUESTION = Question("q", "Who?", ("he",))
FOUND = (Passage("a", "A", "one"), Passage("b", "B", "two"), Passage("c", "C", "three"))
FREE = Step("x", FOUND, None, Evidence("two", ("b",)))
CHOSEN = Step("x", FOUND, ("b",), Evidence("two", ("b",)))


def test_steps_of_the_same_method_come_back():
    for step, method in ((FREE, SearcherMethod()), (CHOSEN, SearcherMethod(select=True))):
        assert replay(QUESTION, [step], "he", method, TOKENIZER).steps == (step,)


@pytest.mark.parametrize(
    ("step", "method"),
    [
        (FREE, SearcherMethod(select=True)),  # would select nothing and record nothing
        (CHOSEN, SearcherMethod()),  # its label 1 would be another passage
        (FREE, SelfAskMethod()),  # notes the first passage, whatever was recorded
    ],
)
def test_steps_of_another_method_are_refused(step, method):
    with pytest.raises(UnreplayableError, match="otherwise than the step 'x'"):
        replay(QUESTION, [step], "he", method, TOKENIZER)
