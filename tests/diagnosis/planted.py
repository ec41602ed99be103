"""A small world of invented people, towns and rivers, and searchers that err in it in known ways.

Each question has two hops, `Where was ADA born?` and `Which river flows past #1?`. A good
trajectory searches for both, records both and answers; a planted one fails at one known link.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Hop,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
)
from exsearch.retrievers.bm25 import Bm25Retriever, build_bm25

_FIRST = ("Ka", "Lo", "Mi", "Nu", "Pe", "Ra", "Su", "To", "Ve", "Wi", "Za", "Bo", "Di", "Fe", "Gu")
_LAST = ("bran", "dok", "fell", "gard", "holm", "kast", "lund", "mark", "nir", "pol", "quist")
TRADES = ("lighthouses", "organs", "clocks", "windmills", "bridges")


@dataclasses.dataclass(frozen=True)
class Tale:
    """A question with the passages and the names that answer it."""

    question: Question
    person: Passage
    place: Passage
    town: str
    river: str
    trade: str


class World:
    """Tales of one random world, a corpus of all their passages, and its index."""

    def __init__(self, tales: int, seed: int = 0):
        self.draw = random.Random(seed)
        self._names: set[str] = set()
        self.tales = [self._tale(n) for n in range(tales)]
        self.passages = [p for tale in self.tales for p in (tale.person, tale.place)]

    def name(self) -> str:
        """A name that nothing else has; a large world has longer ones, too."""
        while True:
            length = 3 if len(self._names) < 20_000 else 4
            parts = "".join(self.draw.choices(_FIRST, k=length)).capitalize()
            name = parts + self.draw.choice(_LAST)
            if name not in self._names:
                self._names.add(name)
                return name

    def _tale(self, number: int) -> Tale:
        person, town, river = f"{self.name()} {self.name()}", self.name(), self.name()
        trade = self.draw.choice(TRADES)
        first = Passage(
            f"p{number}", person, f"{person} was a builder of {trade}. {person} was born in {town}."
        )
        second = Passage(
            f"t{number}", town, f"{town} is a harbour town. The river {river} flows past it."
        )
        question = Question(
            f"q{number}",
            f"Which river flows past the town where {person} was born?",
            (river,),
            (first.id, second.id),
            (
                Hop(f"Where was {person} born?", f"{person} was born in {town}.", town, first.id),
                Hop("Which river flows past #1?", river, None, second.id),
            ),
            "invented",
        )
        return Tale(question, first, second, town, river, trade)

    def index(self, folder: Path, *, without: set[str] | None = None) -> Bm25Retriever:
        """BM25 over all passages but some."""
        build_bm25([p for p in self.passages if p.id not in (without or set())], folder)
        return Bm25Retriever.open(folder)

    def others(self, tale: Tale, count: int) -> list[Passage]:
        """Passages of other tales."""
        far = [p for p in self.passages if p not in (tale.person, tale.place)]
        return self.draw.sample(far, count)

    def step(self, tale: Tale, query: str, found: Passage | None, note: str | None) -> Step:
        """A search that finds a passage, or none that matters, among others at a random rank."""
        passages = self.others(tale, 2 if found else 3)
        if found:
            passages.insert(self.draw.randrange(3), found)
        sources = (found or passages[0]).id
        return Step(
            query,
            tuple(passages),
            evidence=None if note is None else Evidence(note, (sources,)),
            spans=tuple(((0, len(p.text)),) for p in passages),
        )

    def first(self, tale: Tale, note: str | None = "") -> Step:
        """A good first step; the note is the fact, in one of two forms, unless it is given."""
        fact = self.draw.choice((tale.town, f"{tale.person.title} was born in {tale.town}."))
        query = self.draw.choice(("Where was {} born?", "{} birthplace", "birth town of {}"))
        kept = fact if note == "" else note
        return self.step(tale, query.format(tale.person.title), tale.person, kept)

    def second(self, tale: Tale, note: str | None = "", town: str = "") -> Step:
        """A good second step, or one about another town."""
        fact = self.draw.choice((tale.river, f"The river {tale.river} flows past it."))
        query = self.draw.choice(("Which river flows past {}?", "{} river"))
        kept = fact if note == "" else note
        return self.step(tale, query.format(town or tale.town), tale.place, kept)

    def good(self, tale: Tale) -> Trajectory:
        """A trajectory with nothing wrong."""
        return ended(tale, [self.first(tale), self.second(tale)], tale.river)


def ended(
    tale: Tale, steps: list[Step], answer: str, reason: StopReason = StopReason.ANSWERED
) -> Trajectory:
    """A trajectory of a tale's question with these steps, and a call for each action."""
    calls = [Call(CallKind.THINK, (1, 2, 3), (4, 5), (-1.0, -0.5), (-1.0, -0.5))]
    for _ in steps:
        calls.append(Call(CallKind.RECORD, (1, 2, 3, 4), (5,), (-0.25,), (-0.25,)))
        calls.append(Call(CallKind.THINK, (1, 2, 3), (4, 5), (-1.0, -0.5), (-1.0, -0.5)))
    return Trajectory(tale.question, tuple(steps), tuple(calls), answer, reason)


# Searchers that err in one known way.


def early_stop(world: World, tale: Tale) -> Trajectory:
    return ended(tale, [world.first(tale)], tale.town)


def searches_on(world: World, tale: Tale) -> Trajectory:
    more = world.step(tale, f"history of {tale.river}", None, None)
    return ended(tale, [*world.good(tale).steps, more], tale.river)


def invents(world: World, tale: Tale) -> Trajectory:
    made_up = f"{world.name()} {world.name()}"
    return ended(tale, [world.first(tale, made_up), world.second(tale)], tale.river)


def misattributes(world: World, tale: Tale) -> Trajectory:
    step = world.first(tale)
    assert step.evidence
    other = next(p.id for p in step.passages if p != tale.person)
    wrong = dataclasses.replace(step.evidence, passage_ids=(other,))
    step = dataclasses.replace(step, evidence=wrong)
    return ended(tale, [step, world.second(tale)], tale.river)


def records_wrong(world: World, tale: Tale) -> Trajectory:
    """The trade for the town; the next query and the answer take it up."""
    steps = [world.first(tale, tale.trade), world.second(tale, tale.trade, town=tale.trade)]
    return ended(tale, steps, tale.trade)


def records_nothing(world: World, tale: Tale) -> Trajectory:
    return ended(tale, [world.first(tale, None), world.second(tale)], tale.river)


def recovers(world: World, tale: Tale) -> Trajectory:
    steps = [world.first(tale, tale.trade), world.first(tale), world.second(tale)]
    return ended(tale, steps, tale.river)


def does_not_recover(world: World, tale: Tale) -> Trajectory:
    steps = [world.first(tale, tale.trade), world.first(tale, tale.trade)]
    return ended(tale, steps, tale.trade)


def finds_nothing(world: World, tale: Tale) -> Trajectory:
    astray = world.step(tale, f"fame of {tale.person.title}", None, None)
    return ended(tale, [world.first(tale), astray, world.second(tale)], tale.river)


def repeats(world: World, tale: Tale) -> Trajectory:
    first = world.first(tale)
    again = dataclasses.replace(first, query=f"the {first.query.lower()}")
    return ended(tale, [first, again, world.second(tale)], tale.river)


def wanders_off(world: World, tale: Tale) -> Trajectory:
    off = dataclasses.replace(world.second(tale), query=f"{world.name()} {world.name()} song")
    return ended(tale, [world.first(tale), off], tale.river)


def good(world: World, tale: Tale) -> Trajectory:
    return world.good(tale)


def asks_badly(world: World, tale: Tale) -> Trajectory:
    astray = world.step(tale, f"fame of {tale.town}", None, world.name())
    return ended(tale, [world.first(tale), astray], world.name())


def hides(step: Step, words: str) -> Step:
    """A step whose prompt did not show some words."""
    spans = tuple(
        ((0, p.text.find(words)),) if words in p.text else ((0, 5),) for p in step.passages
    )
    return dataclasses.replace(step, spans=spans)


def is_not_shown(world: World, tale: Tale) -> Trajectory:
    hidden = hides(world.second(tale, None), tale.river)
    return ended(tale, [world.first(tale), hidden], world.name())


def does_not_record(world: World, tale: Tale) -> Trajectory:
    kept = world.draw.choice((None, world.name()))
    return ended(tale, [world.first(tale), world.second(tale, kept)], world.name())


def records_a_bridge_wrong(world: World, tale: Tale) -> Trajectory:
    """So that the second search finds nothing: the record broke first, not the query."""
    astray = world.step(tale, f"{tale.trade} river", None, world.name())
    return ended(tale, [world.first(tale, tale.trade), astray], world.name())


def misreads(world: World, tale: Tale) -> Trajectory:
    return dataclasses.replace(world.good(tale), answer=world.draw.choice((tale.town, *TRADES)))


def never_answers(world: World, tale: Tale) -> Trajectory:
    reason = world.draw.choice((StopReason.MALFORMED, StopReason.MAX_TOKENS))
    return dataclasses.replace(world.good(tale), answer="", stop_reason=reason)


def says_it_otherwise(world: World, tale: Tale) -> Trajectory:
    """With a word more, one less, or in another order."""
    question = dataclasses.replace(tale.question, answers=(f"River {tale.river} East",))
    said = (f"the River {tale.river} East shore", f"{tale.river} River", f"East River {tale.river}")
    answer = world.draw.choice(said)
    return dataclasses.replace(world.good(tale), answer=answer, question=question)
