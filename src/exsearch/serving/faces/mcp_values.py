"""The values that MCP's tools take and give; their schemas are told to clients.

They are made of a question's log and of passages here; how they travel is `mcp`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict, Field

from exsearch.agent.citations import Match
from exsearch.records import Passage, StopReason
from exsearch.serving.log import QuestionLog

UrlOf = Callable[[Passage], str]  # the address of a passage


class Given(BaseModel):
    """The arguments of a tool: what is unknown or of another type is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Search(Given):
    """The arguments of `search`."""

    query: str = Field(description="What to look for, in a few words.")


class Fetch(Given):
    """The arguments of `fetch`."""

    id: str = Field(description="The id of a passage, as `search` or a citation has it.")


class Ask(Given):
    """The arguments of `ask`."""

    question: str = Field(description="One question about the indexed documents.")


class Hit(BaseModel):
    """A passage that was found."""

    id: str
    title: str
    url: str


class Hits(BaseModel):
    """What `search` gives."""

    results: list[Hit] = Field(description="The passages, best first.")


class Document(BaseModel):
    """What `fetch` gives."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, str]


class Cited(BaseModel):
    """A span of a passage that supports a claim."""

    source: int = Field(description="The number of the source.")
    passage_id: str
    url: str
    start: int = Field(description="The first character of the span in the passage's text.")
    end: int = Field(description="One after the span's last character.")
    match: Match = Field(
        description="exact: copied; normalised: but for case and punctuation; overlap: weak, the "
        "sentence only shares most of the claim's words."
    )


class Claimed(BaseModel):
    """Something that the answer says."""

    text: str
    citations: list[Cited] = Field(description="Empty where no passage supports the claim.")


class Numbered(BaseModel):
    """What a number in the text stands for."""

    number: int
    id: str = Field(description="The id of the passage.")
    title: str
    url: str
    sentence: str = Field(description="The sentences of the passage that are cited.")


class Answered(BaseModel):
    """What `ask` gives."""

    answer: str = Field(
        description="The short answer; empty where none was reached, or it is withheld."
    )
    text: str = Field(description="The answer and the facts it rests on, with numbered citations.")
    claims: list[Claimed] = Field(description="The recorded facts, then the answer.")
    sources: list[Numbered]
    stop_reason: StopReason
    error: str = Field(description="What was wrong with the model's text; empty for nothing.")


def hits_of(passages: Iterable[Passage], url_of: UrlOf) -> Hits:
    """What a search found."""
    return Hits(results=[Hit(id=p.id, title=p.title, url=url_of(p)) for p in passages])


def document_of(passage: Passage, url_of: UrlOf) -> Document:
    """A passage as a document; an index keeps no metadata of it."""
    return Document(
        id=passage.id,
        title=passage.title,
        text=passage.text,
        url=url_of(passage),
        metadata={},
    )


def answered_of(log: QuestionLog, url_of: UrlOf) -> Answered:
    """The answer of a question that ended and did not fail."""
    assert log.trajectory is not None
    cited = log.answer
    sources_of = {mark.citation: mark.source for mark in cited.marks}
    claims = [
        Claimed(
            text=claim.text,
            citations=[
                Cited(
                    source=sources_of[citation].number,
                    passage_id=citation.passage_id,
                    url=url_of(sources_of[citation].passage),
                    start=citation.start,
                    end=citation.end,
                    match=citation.match,
                )
                for citation in claim.citations
            ],
        )
        for claim in cited.claims
    ]
    sources = [
        Numbered(
            number=source.number,
            id=source.passage.id,
            title=source.passage.title,
            url=url_of(source.passage),
            sentence=source.sentence,
        )
        for source in cited.sources
    ]
    return Answered(
        answer=cited.answer,
        text=cited.text,
        claims=claims,
        sources=sources,
        stop_reason=log.trajectory.stop_reason,
        error=log.trajectory.malformed or "",
    )
