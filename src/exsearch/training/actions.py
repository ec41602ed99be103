"""Warm-up by action: examples that teach one action each, from what a question is annotated with.

In `notes` context every call is an example of its own, so a question without a decomposition can
still teach to record or to answer. Each prompt is made by the searcher, over passages that were
searched for, and shows what the reply says.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence

from exsearch.agent.replay import UnreplayableError, replay
from exsearch.agent.shown import shown_passages
from exsearch.engines.base import ChatTokenizer
from exsearch.errors import ConfigError, RetrieverError
from exsearch.evaluation.metrics import answer_recall, normalize
from exsearch.methods.base import Look, Method
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Hop,
    Passage,
    Question,
    Step,
    Trajectory,
    WeightedTrajectory,
)
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import guarded
from exsearch.training.recipe import Action
from exsearch.training.warm_up import (
    REFUSALS_IN_A_ROW,
    WarmUpData,
    example,
    fact,
    hops,
    searched_steps,
)

ANY = "*"  # stands for all data sets

_MORE = 10  # passages that are searched beyond those shown, for one that holds nothing
_IRRELEVANT = 0.3  # of the answers have a note that does not help among theirs


def action_data(
    questions: Sequence[Question],
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: Method,
    mix: Mapping[Action, Mapping[str, int]],
    *,
    seed: int = 0,
) -> WarmUpData:
    """Examples of single actions, so many of each and of each data set, as far as there are.

    `whole` is a whole trajectory, `think` a sub-query after some notes, `record` the fact in
    passages that hold it, `nothing` that passages without it hold nothing, `answer` the answer from
    notes, among which may be one that does not help. Sub-queries are drawn evenly over the words
    that they begin with.

    Args:
        questions: The questions; one gives at most one example of an action.
        retriever: The retriever that answers the sub-queries.
        tokenizer: The tokenizer of the model that learns.
        method: The searcher, with the settings that the model will be asked by.
        mix: The number of examples by action and by data set; `*` stands for all data sets.
        seed: Decides which questions give which action.

    Returns:
        The examples in a new order; and by reason, with the action before it, the ids of the
        questions that were tried and gave none.

    Raises:
        ConfigError: another method than the searcher, or one that is asked in one growing chat.
        RetrieverError: the searches of several questions in a row failed.
    """
    if not isinstance(method, SearcherMethod) or method.context != "notes":
        raise ConfigError('warm_up.mix teaches the searcher with context = "notes" alone')
    maker = _Maker(guarded(retriever), tokenizer, method, random.Random(f"{seed}/actions"))
    items: list[WeightedTrajectory] = []
    left_out: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    failed = 0  # searches in a row: then it is not the question
    for action, wanted in mix.items():
        for dataset, count in wanted.items():
            own = [q for q in questions if dataset in (ANY, q.dataset) and q.distinct_answers]
            random.Random(f"{seed}/{action}/{dataset}").shuffle(own)
            if action == "think":
                own = _spread(own)
            made: list[WeightedTrajectory] = []
            for question in own:
                if len(made) == count:
                    break
                try:
                    found, failed = maker.make(action, question), 0
                except RetrieverError:
                    found, failed = "search failed", failed + 1
                    if failed == REFUSALS_IN_A_ROW:
                        raise
                if isinstance(found, str):
                    left_out.setdefault(f"{action}: {found}", []).append(question.id)
                else:
                    made.append(found)
            items += made
            counts[f"{action}, {dataset}"] = len(made)
    random.Random(f"{seed}/mixed").shuffle(items)
    return WarmUpData(items, left_out, counts)


def _spread(questions: Sequence[Question]) -> list[Question]:
    """Questions in turn from the groups that their last sub-query's first two words make."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        if plan := hops(question):
            groups.setdefault(" ".join(plan[-1].question.lower().split()[:2]), []).append(question)
    turns = itertools.zip_longest(*groups.values())
    return [question for turn in turns for question in turn if question is not None]


class _Maker:
    """Makes the examples of single questions."""

    def __init__(
        self,
        retriever: Retriever,
        tokenizer: ChatTokenizer,
        method: SearcherMethod,
        draw: random.Random,
    ):
        self.retriever, self.tokenizer, self.method, self.draw = retriever, tokenizer, method, draw

    def make(self, action: Action, question: Question) -> WeightedTrajectory | str:
        """An example of an action, or why the question gives none."""
        steps: list[Step] | str
        if action == "nothing":
            steps = self._nothing(question)
        elif action in ("record", "answer") and not hops(question):
            steps = self._supported(question)
        else:
            steps = searched_steps(
                question, self.retriever, self.tokenizer, self.method, "leave_out"
            )
        if isinstance(steps, str):
            return steps
        if action == "answer":
            if not _noted(question, steps):
                return "the notes do not hold the answer"
            steps = self._with_irrelevant(question, steps)
        answer = question.distinct_answers[0]
        try:
            whole = replay(question, steps, answer, self.method, self.tokenizer)
        except UnreplayableError:
            return "does not read back"
        return self._single(action, example(whole, self.tokenizer))

    def _single(self, action: Action, item: WeightedTrajectory) -> WeightedTrajectory | str:
        """The example with the calls of one action alone."""
        trajectory = item.trajectory
        *before, last = trajectory.calls
        if action == "whole":
            return item
        if action == "answer":
            return dataclasses.replace(
                item, trajectory=dataclasses.replace(trajectory, calls=(last,))
            )
        kind = CallKind.THINK if action == "think" else CallKind.RECORD
        calls = [call for call in before if call.kind is kind]
        if not calls:
            return "no such call"
        return without_answer(trajectory, calls[self.draw.randrange(len(calls))])

    def _look(self, query: str, k: int | None = None) -> list[Passage]:
        return self.retriever.search([query], k or self.method.passages)[0]

    def _shown(self, query: str, passages: Sequence[Passage]) -> list[Passage]:
        method = self.method
        look = Look(query, method.passages, method.passage_words, method.show)
        return [part for part, _ in shown_passages(passages, look, self.tokenizer)]

    def _supported(self, question: Question) -> list[Step] | str:
        """A search for the question itself, whose record is the sentence that has the answer."""
        passages = self._look(question.question)
        shown = self._shown(question.question, passages)
        for answer in question.distinct_answers:
            for part in shown:
                of_support = not question.supporting or part.id in question.supporting
                if of_support and answer_recall([part], [answer]) == 1:
                    hop = Hop(question.question, answer)
                    text = fact(hop, question.question, part.title, part.text, self.method.facts)
                    evidence = Evidence(text, (part.id,))
                    selected = (part.id,) if self.method.select else None
                    return [Step(question.question, tuple(passages), selected, evidence)]
        return "answer not shown"

    def _nothing(self, question: Question, query: str = "") -> list[Step] | str:
        """A search of which only passages without the answer are left.

        Args:
            question: The question.
            query: What is searched for; empty takes its first sub-query.
        """
        plan = hops(question)
        hop = plan[0] if plan and not query else None
        golds = [hop.answer_short or hop.answer] if hop else list(question.distinct_answers)
        if answer_recall([], golds) is None:
            return "a question of yes or no"
        query = query or (hop.question if hop else question.question)
        found = self._look(query, self.method.passages + _MORE)
        known = {*question.supporting, *(each.support_id for each in plan)}
        left = [p for p in found if p.id not in known and not answer_recall([p], golds)]
        passages = tuple(left[: self.method.passages])
        selected = () if self.method.select else None
        return [Step(query, passages, selected)] if passages else "nothing is left"

    def _with_irrelevant(self, question: Question, steps: list[Step]) -> list[Step]:
        """The steps, sometimes after a search for the question itself that found nothing."""
        if len(steps) >= self.method.max_steps or self.draw.random() >= _IRRELEVANT:
            return steps
        other = self._nothing(question, question.question)
        return steps if isinstance(other, str) else [*other, *steps]


def without_answer(trajectory: Trajectory, call: Call) -> WeightedTrajectory:
    """An example of one call that is not the answer; all that it wrote is learned.

    Args:
        trajectory: The trajectory that it is from.
        call: The call.
    """
    part = dataclasses.replace(trajectory, calls=(call,), answer="", answer_start=None)
    return WeightedTrajectory(part, 1.0)


def _noted(question: Question, steps: Sequence[Step]) -> bool:
    """Whether the notes hold an answer; one of yes or no follows from all of them together."""
    golds = [f" {normalize(answer)} " for answer in question.distinct_answers]
    if any(gold.strip() in ("yes", "no") for gold in golds):
        return all(step.evidence for step in steps)
    notes = [f" {normalize(step.evidence.text)} " for step in steps if step.evidence]
    return any(gold in note for gold in golds for note in notes)
