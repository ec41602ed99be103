"""A cited answer is an answer as people read it: with the facts it rests on, and numbered sources.

Every face of an answer (terminal, server, page) shows this text, so a number means the same in all
of them. What supports a claim is `citations`' matter.
"""

from __future__ import annotations

import dataclasses

from exsearch.agent.citations import Citation, Claim, Match, claims, quote
from exsearch.agent.confidence import confidence
from exsearch.records import Passage, Trajectory


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """What a number stands for.

    Attributes:
        number: The number, from 1.
        passage: The passage that was retrieved.
        sentence: The sentences of it that a citation's span touches, as they stand.
    """

    number: int
    passage: Passage
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A place in the text where a source's number stands.

    Attributes:
        start: The first character of the mark, such as that of `[1]`.
        end: One after its last character.
        source: What the number stands for.
        citation: The span that supports the claim before the mark.
    """

    start: int
    end: int
    source: Source
    citation: Citation


@dataclasses.dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer with its sources.

    Attributes:
        answer: The answer alone; empty where there is none, or where it is withheld.
        text: The answer, then each recorded fact on a line of its own that begins with `- `; a
            claim without a source is marked as unsupported.
        marks: The places of the numbers, in the order of the text.
        sources: What the numbers stand for, in their order.
        claims: The facts, then the answer; none where it is withheld.
    """

    answer: str
    text: str
    marks: tuple[Mark, ...]
    sources: tuple[Source, ...]
    claims: tuple[Claim, ...]


def cited_answer(trajectory: Trajectory, abstain: float = 0.0) -> CitedAnswer:
    """The answer of a trajectory that ended, as people read it.

    Args:
        trajectory: A trajectory that ended, with or without an answer.
        abstain: The least confidence of an answer that is told. One below it is withheld: the text
            says so and why, and claims nothing.
    """
    said = claims(trajectory)
    asked = abstain and trajectory.answer
    if asked and (why := confidence(trajectory, said).withheld(abstain)):
        return CitedAnswer("", f"(withheld: {why})", (), (), ())
    facts = said[:-1] if trajectory.answer else said
    of = {passage.id: passage for passage in trajectory.passages}
    sources: dict[tuple[str, str], Source] = {}
    marks: list[Mark] = []
    text = ""

    def add(claim: Claim) -> None:
        nonlocal text
        text += claim.text
        for cited in claim.citations:
            passage = of[cited.passage_id]
            sentence = quote(cited, passage)
            new = Source(len(sources) + 1, passage, sentence)
            source = sources.setdefault((passage.id, sentence), new)
            weak = ", weak" if cited.match is Match.OVERLAP else ""
            mark = f"[{source.number}{weak}]"
            marks.append(Mark(len(text) + 1, len(text) + 1 + len(mark), source, cited))
            text += f" {mark}"
        if not claim.citations:
            text += " (unsupported)"

    if trajectory.answer:
        add(said[-1])
    else:
        text = f"(no answer: {trajectory.malformed or trajectory.stop_reason.value})"
    for fact in facts:
        text += "\n- "
        add(fact)
    if trajectory.answer and not facts:
        text += "\n(no evidence was recorded)"
    return CitedAnswer(trajectory.answer, text, tuple(marks), tuple(sources.values()), said)
