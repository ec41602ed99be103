"""Warm-up data are trajectories made from a question's own decomposition, searched for real.

Each hop becomes a sub-query, the retriever answers it as it will answer the searcher, and the
record holds the hop's fact. The searcher itself writes the calls (`replay`); no model is involved.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from exsearch.agent.episode import answer_ids, begin
from exsearch.agent.replay import UnreplayableError, replay, solve
from exsearch.agent.shown import shown_passages
from exsearch.data.corpus import FULL_STOPS, count_words
from exsearch.engines.base import ChatTokenizer
from exsearch.errors import ConfigError, DataError, RetrieverError
from exsearch.evaluation.metrics import normalize
from exsearch.methods.base import Look, Method, Solved
from exsearch.methods.format import pooled
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import (
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

WITHOUT_STEPS = ("direct", "rag")  # methods that any question with an answer is an example of
REFUSALS_IN_A_ROW = 5  # of questions: then it is not the questions, it is the settings
_REFERENCE = re.compile(r"#(\d+)")
_SENTENCE = re.compile(rf"(?<=[.!?])\s+|(?<=[{FULL_STOPS}])")


@dataclasses.dataclass(frozen=True)
class WarmUpData:
    """Trajectories to learn from as they stand.

    Attributes:
        items: The trajectories, each with weight 1.
        left_out: The ids of the questions that gave none, by reason.
        counts: The number of examples by action and data set, where these were asked for.
    """

    items: list[WeightedTrajectory]
    left_out: dict[str, list[str]]
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


def example(trajectory: Trajectory, tokenizer: ChatTokenizer) -> WeightedTrajectory:
    """A trajectory to learn from as it stands: with weight 1 and its question's first gold answer.

    Args:
        trajectory: A trajectory of a question with an answer.
        tokenizer: The tokenizer of the model that learns.

    Raises:
        ModelError: the tokenizer joins frame and answer.
    """
    target = answer_ids(trajectory.question.distinct_answers[0], tokenizer)
    return WeightedTrajectory(trajectory, 1.0, (0.0,), (target,))


def hops(question: Question) -> tuple[Hop, ...]:
    """A question's sub-questions; a single-hop question is its own, and any other has none.

    Single-hop are questions with one supporting passage, or of the data sets `nq` and `nq-open`.
    """
    if question.decomposition:
        return question.decomposition
    if not question.distinct_answers:
        return ()
    if len(question.supporting) == 1 or question.dataset in ("nq", "nq-open"):
        support = question.supporting[0] if question.supporting else None
        return (Hop(question.question, question.distinct_answers[0], None, support),)
    return ()


def warm_up_data(
    questions: Sequence[Question],
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: Method,
    *,
    examples: int,
    missing_support: Literal["leave_out", "nothing"] = "leave_out",
) -> WarmUpData:
    """Up to `examples` pseudo-trajectories, from the first questions that give one.

    The searcher's steps are those of the decomposition. The methods `direct` and `rag` take no
    steps of their own: any question with an answer is an example of them.

    Args:
        questions: The questions, in their order; one without hops is left out.
        retriever: The retriever that answers the sub-queries.
        tokenizer: The tokenizer of the model that learns.
        method: The method, with the settings that the model will be asked by.
        examples: The number of trajectories that are wanted.
        missing_support: What to do where the support is not found or not shown: `leave_out` leaves
            the question out, `nothing` has the record say that nothing was found.

    Raises:
        ConfigError: another method than these three.
        RetrieverError: the searches of several questions in a row failed.
    """
    if not isinstance(method, SearcherMethod) and method.name not in WITHOUT_STEPS:
        raise ConfigError(
            f"questions make examples for the methods searcher, direct and rag, not {method.name}: "
            'take warm_up.source = "teacher", or a warm_up.file'
        )
    items: list[WeightedTrajectory] = []
    left_out: dict[str, list[str]] = {}
    retriever, failed = guarded(retriever), 0
    for question in questions:
        if len(items) >= examples:
            break
        try:
            made = _made(question, retriever, tokenizer, method, missing_support)
            failed = 0
        except RetrieverError:
            made, failed = "search failed", failed + 1
            if failed == REFUSALS_IN_A_ROW:
                raise
        except UnreplayableError:
            made, failed = "does not read back", 0
        if isinstance(made, str):
            left_out.setdefault(made, []).append(question.id)
        else:
            items.append(example(made, tokenizer))
    return WarmUpData(items, left_out)


def _made(
    question: Question,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: Method,
    missing_support: str,
) -> Trajectory | str:
    """The trajectory that answers a question, or why there is none."""
    if not question.distinct_answers:
        return "no answer"
    answer = question.distinct_answers[0]
    if not isinstance(method, SearcherMethod):
        return solve(question, Solved((), answer), method, retriever, tokenizer)
    steps = searched_steps(question, retriever, tokenizer, method, missing_support)
    return steps if isinstance(steps, str) else replay(question, steps, answer, method, tokenizer)


def check_prompts(
    items: Sequence[WeightedTrajectory], file: Path, method: Method, tokenizer: ChatTokenizer
) -> None:
    """Make sure that trajectories were sampled with this model's tokens and this method's wording.

    Args:
        items: The trajectories to learn from.
        file: The file that they come from, for messages.
        method: The method that the model will be asked by.
        tokenizer: The tokenizer of the model that learns.

    Raises:
        DataError: a trajectory was sampled otherwise, so that its ids would mean something else; or
            it has no ids.
    """
    for number, item in enumerate(items, start=1):
        trajectory, wrong = item.trajectory, ""
        episode = begin(trajectory.question, method, tokenizer)
        if not trajectory.trainable:
            wrong = (
                "the trajectory carries no token ids, so nothing can be learned from it; sample "
                "with --engine transformers"
            )
        elif trajectory.method != method.name or (
            episode.ask and trajectory.calls[0].prompt_ids != episode.prompt_ids()
        ):
            wrong = (
                "the trajectory was sampled from a model with other tokens, or with another system "
                "prompt, method or wording; sample it with this recipe's [model] and [method]"
            )
        if wrong:
            raise DataError(wrong, file=file, line=number)


def searched_steps(
    question: Question,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    method: SearcherMethod,
    missing_support: str,
) -> list[Step] | str:
    """The steps that the decomposition describes, searched for real; or why there are none.

    Args:
        question: A question with an answer.
        retriever: The retriever that answers the sub-queries.
        tokenizer: The tokenizer of the model that learns.
        method: The searcher, with the settings that the model will be asked by.
        missing_support: As in `warm_up_data`.

    Raises:
        RetrieverError: a search failed.
    """
    plan = hops(question)
    if not plan:
        return "no decomposition"
    if len(plan) > method.max_steps:
        return "more hops than max_steps"
    short: list[str] = []
    steps: list[Step] = []
    if not method.think and len(plan) > 1:
        return "more hops than the one search without thoughts"
    for hop in plan:
        query = filled(hop.question, short)
        if not query:  # a search server may refuse it, and would end the work
            return "does not read back"
        short.append(hop.answer_short or hop.answer)
        if not method.search:
            steps.append(
                Step(query, (), evidence=Evidence(fact(hop, query, "", "", method.facts), ()))
            )
            continue
        look = Look(query, method.passages, method.passage_words, method.show)
        passages = tuple(retriever.search([query], look.k)[0])
        shown = [part for part, _ in shown_passages(passages, look, tokenizer)]
        support = _support(hop, passages, shown)
        if support is None and missing_support == "leave_out":
            return "support not found"
        selected = None
        if method.select and passages:
            selected = (support.id,) if support else ()
        evidence = None
        if not method.record:
            evidence = pooled([p for p in shown if selected is None or p.id in selected])
        elif support:
            said = fact(hop, query, support.title, support.text, method.facts)
            evidence = Evidence(said, (support.id,))
        steps.append(Step(query, passages, selected, evidence))
    return steps


def filled(question: str, short_answers: Sequence[str]) -> str:
    """A hop's question with `#n` replaced, and MuSiQue's `subject >> relation` as plain words.

    Args:
        question: The sub-question.
        short_answers: The answers of the hops before it, in their order.
    """

    def answer(match: re.Match[str]) -> str:
        n = int(match[1])
        return short_answers[n - 1] if 0 < n <= len(short_answers) else match[0]

    return " ".join(_REFERENCE.sub(answer, question).replace(">>", " ").split())


def _support(hop: Hop, passages: Sequence[Passage], shown: Sequence[Passage]) -> Passage | None:
    """What is shown of the annotated passage; without an annotation, of one that has the answer.

    None as well where the answer stands in what is not shown: a record of it would teach the model
    to make facts up.
    """
    wanted = f" {normalize(hop.answer_short or hop.answer)} "

    def holds(passage: Passage) -> bool:
        return wanted in f" {normalize(f'{passage.title} {passage.text}')} "

    if hop.support_id is None:
        return next((p for p in shown if holds(p)), None)
    for whole, support in zip(passages, shown, strict=True):
        if whole.id == hop.support_id:
            return None if holds(whole) and not holds(support) else support
    return None


def fact(hop: Hop, query: str, title: str, text: str, kind: str = "sentence") -> str:
    """What the record says: the annotated sentence, or one of the shown text with the answer.

    Where words alone are wanted, these are the answer as the text spells it, or else as the
    annotation does.

    Args:
        hop: The sub-question, with its answer.
        query: The query as it was searched.
        title: The title of the passage that holds the answer.
        text: What is shown of its text.
        kind: `sentence` or `words` (`SearcherMethod.facts`).
    """
    if kind == "words":
        answer = hop.answer_short or hop.answer
        found = re.search(re.escape(answer), text, re.IGNORECASE)
        return found[0] if found else answer
    if hop.answer_short and hop.answer != hop.answer_short:
        return hop.answer
    wanted = normalize(hop.answer)
    for sentence in _SENTENCE.split(text):
        if wanted in normalize(sentence) and count_words(sentence) <= 40:
            return sentence if title in sentence else f"{title}: {sentence}"
    return f"{query.rstrip('?')}: {hop.answer}"
