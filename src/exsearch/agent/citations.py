"""A citation names the passage, and the span of its text, that says what an answer claims.

A claim is a recorded fact or the final answer. Its span is looked for in what the trajectory really
retrieved, so it is a substring of a passage, or there is none and the claim is unsupported. What
copies a passage is told from what only shares words with it. No model is involved.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from exsearch.agent.shown import analyser, sentence_spans
from exsearch.methods.format import one_line, word_spans
from exsearch.records import Evidence, Passage, Trajectory

FLOOR = 0.6  # the least share of a claim's words that a sentence has, to be cited for it at all
_YES_NO = ("yes", "no")
_PLAIN = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+")


class Match(StrEnum):
    """How a span says what is claimed."""

    EXACT = "exact"  # word by word
    NORMALISED = "normalised"  # but for case and punctuation
    OVERLAP = "overlap"  # a sentence that shares most of its words: weak


@dataclasses.dataclass(frozen=True, slots=True)
class Citation:
    """A span of a retrieved passage that supports a claim.

    Attributes:
        passage_id: The id of the passage.
        start: The first character of the span in the passage's text.
        end: One after its last character.
        match: How the span says it.
    """

    passage_id: str
    start: int
    end: int
    match: Match


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Something that an answer says.

    Attributes:
        text: A recorded fact, or the answer itself.
        citations: What supports it, best first; empty where nothing does.
    """

    text: str
    citations: tuple[Citation, ...] = ()

    @property
    def supported(self) -> bool:
        """Whether a passage that was retrieved says it, be it with other words."""
        return bool(self.citations)


def claims(trajectory: Trajectory) -> tuple[Claim, ...]:
    """What a trajectory claims: each recorded fact, and its answer as the last one.

    A fact is looked for in the passages that its record names, and where none says it, in the
    others of its search. The answer is looked for in the spans that the facts cite, then in all
    passages; one of yes or no, which stands in no passage, rests weakly on all of them.

    Args:
        trajectory: A trajectory that ended, with or without an answer.
    """
    facts: list[Claim] = []
    for step in trajectory.steps:
        if step.evidence is not None:
            facts.append(_fact(step.evidence, step.passages))
    if not trajectory.answer:
        return tuple(facts)
    return (*facts, _answer(trajectory, facts))


def _fact(evidence: Evidence, passages: Sequence[Passage]) -> Claim:
    named = [p for p in passages if p.id in evidence.passage_ids]
    others = [p for p in passages if p.id not in evidence.passage_ids]
    found = list(_best(evidence.text, named)) or list(_best(evidence.text, others))[:1]
    return Claim(evidence.text, tuple(found))


def _answer(trajectory: Trajectory, facts: Sequence[Claim]) -> Claim:
    answer = trajectory.answer
    cited = [citation for fact in facts for citation in fact.citations]
    if answer.strip(" .").lower() in _YES_NO:
        weak = (dataclasses.replace(citation, match=Match.OVERLAP) for citation in cited)
        return Claim(answer, tuple(dict.fromkeys(weak)))
    of = {passage.id: passage for passage in trajectory.passages}
    for citation in cited:  # the words of the answer within what is cited already
        text = of[citation.passage_id].text[citation.start : citation.end]
        if span := copied(answer, text):
            start, end, match = span
            place = citation.start + start, citation.start + end
            return Claim(answer, (Citation(citation.passage_id, *place, match),))
    for passage in trajectory.passages:
        if span := copied(answer, passage.text):
            return Claim(answer, (Citation(passage.id, *span),))
    return Claim(answer)


def _best(text: str, passages: Iterable[Passage]) -> Iterator[Citation]:
    """For each passage the span that says a fact, copies before what only shares words."""
    found = [(p, span) for p in passages if (span := find(text, p))]
    found.sort(key=lambda each: list(Match).index(each[1][2]))
    return (Citation(passage.id, *span) for passage, span in found)


def find(text: str, passage: Passage) -> tuple[int, int, Match] | None:
    """Where a passage's text says a fact: first and last character, and how; None for nowhere.

    Args:
        text: The fact. Before it may stand the passage's title and a colon, as records have it.
        passage: The passage.
    """
    title = one_line(passage.title)
    for part in dict.fromkeys((text, text.removeprefix(f"{title}: "))):
        if span := copied(part, passage.text):
            return span
    return _shared(text, passage)


def quote(citation: Citation, passage: Passage) -> str:
    """The sentences of a passage that a citation's span touches, as they stand."""
    spans = sentence_spans(passage.text)
    touched = [s for s in spans if s[0] < citation.end and citation.start < s[1]]
    return passage.text[touched[0][0] : touched[-1][1]]


def copied(claim: str, text: str) -> tuple[int, int, Match] | None:
    """Where the words of a claim stand in a text one after the other, and how; None for nowhere.

    Args:
        claim: What is said.
        text: The text of a passage.
    """
    wanted = one_line(claim)
    if (first := _run(wanted, one_line(text))) is not None:
        spans = word_spans(text)
        return spans[first][0], spans[first + wanted.count(" ")][1], Match.EXACT
    wanted = _plain(claim)
    if (first := _run(wanted, _plain(text))) is not None:
        places = list(_PLAIN.finditer(text))
        last = first + wanted.count(" ")
        return places[first].start(), places[last].end(), Match.NORMALISED
    return None


def _run(wanted: str, text: str) -> int | None:
    """The number of the word at which a text begins to say others; words have one blank between."""
    start = f" {text} ".find(f" {wanted} ") if wanted else -1
    return None if start < 0 else text.count(" ", 0, start)


def _plain(text: str) -> str:
    return " ".join(_PLAIN.findall(text)).casefold()


def _shared(claim: str, passage: Passage) -> tuple[int, int, Match] | None:
    """The sentence that shares the most words with a claim, if they are enough.

    The title counts as said, as its passage is about it, but can't be all; and every number of the
    claim has to be there, since another year makes another fact.
    """
    wanted = set(_words(claim))
    titled = set(_words(passage.title))
    numbers = set(_NUMBER.findall(claim))
    best: tuple[float, int, int] | None = None
    for start, end in sentence_spans(passage.text):
        sentence = passage.text[start:end]
        own = set(_words(sentence))
        if not wanted & own - titled or numbers - {*_NUMBER.findall(f"{passage.title} {sentence}")}:
            continue
        share = len(wanted & (own | titled)) / len(wanted)
        if share >= FLOOR and (best is None or share > best[0]):
            best = share, start, end
    return None if best is None else (best[1], best[2], Match.OVERLAP)


def _words(text: str) -> list[str]:
    return analyser().words(text)
