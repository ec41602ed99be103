"""A method is a plan: in plain text it asks a model, looks passages up, and answers a question.

A plan is a generator. It yields an `Ask` and gets what the reply says, or a `Look` and gets the
passages that were found; it returns an `Answer`. A reply that can't be read never comes back to the
plan: the trajectory ends there. No tokens, no engine and no retriever are in sight, so the same
plan serves sampling, training data, replay and serving.

Glossary:
    frame   The fixed words that begin an action, such as `Answer:`.
    forced  Words that the reply is made to begin with. They belong to the prompt, so they carry no
            loss.
    hint    Text that is in view while a reply is sampled, and not in the prompt that is recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from exsearch.records import CallKind, Passage, Question, Step, StopReason

Show = Literal["start", "query"]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A reply, or the part of one, that answers the question.

    Attributes:
        text: The answer, without its frame.
        start: The character of the reply at which the answer begins, right after its frame; 0
            where the frame was forced.
        stop_reason: Why the trajectory ends with it: `answered`, or `max_steps` where the answer
            was forced because no search was left.
        thought: What the reply says before the frame, on one line.
    """

    text: str
    start: int = dataclasses.field(default=0, compare=False)
    stop_reason: StopReason = StopReason.ANSWERED
    thought: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Solved:
    """A question that is solved already, for examples that show a model what to reply.

    Attributes:
        facts: A sub-query and the fact that answers it, for each step on the way.
        answer: The answer.
    """

    facts: tuple[tuple[str, str], ...]
    answer: str


@dataclasses.dataclass(frozen=True, slots=True)
class Malformed:
    """A reply that is none of what was asked for.

    Attributes:
        kind: What is wrong with it, in a word such as `no_action`; replies are counted by it.
    """

    kind: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """A call of the model.

    Attributes:
        kind: What the call is for.
        prompt: The user turn.
        parse: Reads the reply's text. It returns a `Malformed` for what it can't read, an `Answer`
            where the reply ends the question, and anything else for the plan to go on with.
        max_tokens: The most tokens that the reply may take.
        forced: The words that the reply is made to begin with; empty where there are none.
        hint: Text shown after the prompt while sampling; empty where there is none. The recorded
            prompt is without it: log q is under the prompt with the hint, and log p is scored under
            the plain one (`method.md`, "Around the method").
        goes_on: True continues the chat of the call before, as one growing sequence; False begins
            a new chat.
        reply: What is replied, after what is forced, by someone who has solved the question; None
            where examples are made of a searcher's trajectories.
    """

    kind: CallKind
    prompt: str
    parse: Callable[[str], Any]
    max_tokens: int
    forced: str = ""
    hint: str = ""
    goes_on: bool = False
    reply: Callable[[Solved], str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """A search; the plan gets the passages as a tuple, best first.

    Attributes:
        query: The sub-query that is searched for.
        k: The most passages that the search returns.
        words: The number of words of each passage that the plan gets, and of text without blanks as
            much as so many words may take.
        show: Which words these are: the first ones of each text (`start`), or those of the
            sentences that fit the query, of better passages more (`query`).
    """

    query: str
    k: int
    words: int = 1000
    show: Show = "start"


Plan = Generator[Ask | Look, Any, Answer]
Found = tuple[Passage, ...]  # what a `Look` gives


@runtime_checkable
class Method(Protocol):
    """One way to answer a question: a frozen dataclass whose fields are the method's settings.

    Attributes:
        name: The method's name in recipes, on the command line and in trajectories.
    """

    name: ClassVar[str]

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        """A new plan for a question.

        The plan must be determined by the replies and passages that it is given, so that it can be
        replayed.

        Args:
            question: The question to answer.
            steps: A list to which the plan appends each finished search.
        """
        ...
