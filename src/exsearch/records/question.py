"""A question asks for what stands in the passages of a corpus; both come from outside.

What a model does about it is a trajectory.
"""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import urlsplit

_MOST_URL = 2000  # characters; programs cut what is longer
_WEB = re.compile(r"https?://[^\s<>\"\\^`{|}]+", re.IGNORECASE)
_CONTENTS = re.compile(r'"([^\n]*)"\n(.*)', re.DOTALL)


def refuse_text(name: str, value: object) -> None:
    """Refuse one text where a list of texts is meant: it would be taken for its letters.

    Args:
        name: The name of what was given, for the message.
        value: What was given.

    Raises:
        TypeError: it is one text.
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"{name} is one text, expected a list of texts: write [{value[:40]!r}]")


def is_web_address(text: object) -> bool:
    """Whether something is an http or https address that can be shown and linked as it stands.

    One that names a user is none, since it looks like another site's, and neither is one with
    blanks, signs that can't be seen, or those that end an address in a text.
    """
    if not (isinstance(text, str) and len(text) <= _MOST_URL and text.isprintable()):
        return False
    try:
        parts = urlsplit(text)
        return bool(_WEB.fullmatch(text) and parts.hostname and parts.port != 0) and (
            "@" not in parts.netloc
        )
    except ValueError:  # a port or a host that there can't be
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the corpus.

    Attributes:
        id: The passage's id, unique in its corpus.
        title: The title; empty where there is none.
        text: The text that is searched and shown.
        score: The score by which a search found it, higher is better; None outside a search.
        url: The address on the web of what the passage is from, for people to follow; empty where
            none is known. What is no plain http or https address becomes empty.
    """

    id: str
    title: str
    text: str
    score: float | None = None
    url: str = ""

    def __post_init__(self) -> None:
        if self.url != "" and not is_web_address(self.url):
            object.__setattr__(self, "url", "")

    @property
    def fields(self) -> dict[str, str]:
        """What a corpus and an index keep of it; `url` only where there is one."""
        kept = {"id": self.id, "title": self.title, "text": self.text}
        return kept | ({"url": self.url} if self.url else {})

    @property
    def contents(self) -> str:
        """Title and text in one, as public corpora and search servers have it."""
        return f'"{self.title}"\n{self.text}'


def split_contents(contents: str, title: str = "") -> tuple[str, str]:
    """The title and the text of `contents`; a text that begins otherwise has no title.

    Args:
        contents: A title in quotes on a line of its own, then the text.
        title: The title where it is known, which is then the only one that is looked for.
    """
    if title:
        return title, contents.removeprefix(f'"{title}"\n')
    found = _CONTENTS.fullmatch(contents)
    return (found[1], found[2]) if found else ("", contents)


@dataclasses.dataclass(frozen=True, slots=True)
class Hop:
    """One sub-question of an annotated decomposition.

    Attributes:
        question: The sub-question; `#n` stands for the `answer_short` of hop n, from 1.
        answer: The answer, which may be a sentence.
        answer_short: The answer in a few words; None where `answer` is short itself.
        support_id: The id of the passage that holds the answer; None where it is not known.
    """

    question: str
    answer: str
    answer_short: str | None = None
    support_id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question with its gold answers.

    Attributes:
        id: The question's id, unique in its file.
        question: The text of the question.
        answers: The accepted answers, the preferred one first; empty where they are not known.
        supporting: The ids of the passages that hold what is needed; empty where not known.
        decomposition: The annotated hops, in their order; empty where there are none.
        dataset: The name of the data set; `nq` and `nq-open` mark single-hop questions.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    supporting: tuple[str, ...] = ()
    decomposition: tuple[Hop, ...] = ()
    dataset: str | None = None

    def __post_init__(self) -> None:
        refuse_text("answers", self.answers)
        refuse_text("supporting", self.supporting)

    @property
    def distinct_answers(self) -> tuple[str, ...]:
        """The accepted answers with spare blanks and repeats dropped, in their order."""
        return tuple(dict.fromkeys(" ".join(a.split()) for a in self.answers if a.strip()))
