"""Warm-up data are trajectories made from a question's own decomposition, searched for real.

Each hop becomes a sub-query, the retriever answers it as it will answer the searcher, and the
record holds the hop's fact. The targets are the searcher's own format; no model is involved.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from exsearch.agent.episode import AgentConfig, Episode, answer_ids
from exsearch.agent.format import (
    ANSWER_FRAME,
    Answer,
    Search,
    render_record,
    render_select,
    render_thought,
    shown_text,
)
from exsearch.engines.base import ChatTokenizer
from exsearch.errors import DataError
from exsearch.evaluation.metrics import normalize
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Hop,
    Passage,
    Question,
    Trajectory,
    WeightedTrajectory,
    from_json,
)
from exsearch.retrievers.base import Retriever

_REFERENCE = re.compile(r"#(\d+)")
_NO_IDS = (
    "the trajectory carries no token ids, so nothing can be learned from it; sample with --engine "
    "transformers"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclasses.dataclass(frozen=True)
class WarmUpData:
    """Trajectories with weight 1, and the ids of questions that gave none, by reason."""

    items: list[WeightedTrajectory]
    left_out: dict[str, list[str]]


def hops(question: Question) -> tuple[Hop, ...]:
    """A question's sub-questions; a single-hop question is its own."""
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
    agent: AgentConfig,
    *,
    examples: int,
    missing_support: Literal["leave_out", "nothing"] = "leave_out",
) -> WarmUpData:
    """Up to `examples` pseudo-trajectories, from the first questions that give one.

    Raises:
        RetrieverError: a search failed.
    """
    items: list[WeightedTrajectory] = []
    left_out: dict[str, list[str]] = {}
    for question in questions:
        if len(items) >= examples:
            break
        try:
            made = _trajectory(question, retriever, tokenizer, agent, missing_support)
        except _UnreadableError:
            made = "does not read back"
        if isinstance(made, str):
            left_out.setdefault(made, []).append(question.id)
            continue
        target = answer_ids(question.distinct_answers[0], tokenizer)
        items.append(WeightedTrajectory(made, 1.0, (0.0,), (target,)))
    return WarmUpData(items, left_out)


def read_examples(file: Path) -> list[WeightedTrajectory]:
    """The weighted trajectories of a file that exists already, such as `exsearch rollout` writes.

    Raises:
        DataError: the file can't be read, or a line of it is no weighted trajectory.
    """
    items: list[WeightedTrajectory] = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    item = from_json(WeightedTrajectory, line)
                except ValueError as error:
                    message = f"not a weighted trajectory: {_why_not(line, error)}"
                    raise DataError(message, file=file, line=number) from None
                if not item.trajectory.trainable:
                    raise DataError(_NO_IDS, file=file, line=number)
                items.append(item)
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", file=file) from None
    return items


def check_prompts(
    items: Sequence[WeightedTrajectory], file: Path, agent: AgentConfig, tokenizer: ChatTokenizer
) -> None:
    """Make sure that trajectories were sampled with this model's tokens and this agent's wording.

    Raises:
        DataError: one was not, so that its ids would mean something else.
    """
    for number, item in enumerate(items, start=1):
        asked = Episode(item.trajectory.question, 0, agent, tokenizer).prompt_ids()
        if item.trajectory.calls[0].prompt_ids != asked:
            raise DataError(
                "the trajectory was sampled from a model with other tokens, or with another system "
                "prompt or wording; sample it with this recipe's [model] and [agent]",
                file=file,
                line=number,
            )


def _why_not(line: bytes, error: ValueError) -> str:
    try:
        from_json(Trajectory, line)
    except ValueError:
        return str(error).splitlines()[0]
    return "it has no weight: its question has no answers, or its engine gives no token ids"


def _trajectory(
    question: Question,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
    agent: AgentConfig,
    missing_support: str,
) -> Trajectory | str:
    """The pseudo-trajectory, or why there is none."""
    plan = hops(question)
    if not question.distinct_answers:
        return "no answer"
    if not plan:
        return "no decomposition"
    if len(plan) > agent.max_steps:
        return "more hops than max_steps"
    episode = Episode(question, 0, agent, tokenizer)
    short: list[str] = []
    for hop in plan:
        query = _fill(hop.question, short)
        short.append(hop.answer_short or hop.answer)
        _say(episode, render_thought(Search(query)))
        passages = retriever.search([query], agent.passages)[0]
        support = _support(hop, passages, agent.passage_words)
        if support is None and missing_support == "leave_out":
            return "support not found"
        evidence = None
        if support:
            shown = shown_text(support, agent.passage_words)
            evidence = Evidence(_fact(hop, query, support.title, shown), (support.id,))
        episode.found(passages)
        if episode.kind is CallKind.SELECT:
            _say(episode, render_select([support.id] if support else [], passages))
        if episode.kind is CallKind.RECORD:
            _say(episode, render_record(evidence, episode.shown))
    answer = question.distinct_answers[0]
    forced = episode.kind is CallKind.ANSWER
    text = render_thought(Answer(answer))
    _say(episode, text.removeprefix(ANSWER_FRAME) if forced else text)
    return episode.trajectory()


def written(episode: Episode, text: str) -> Call:
    """The episode's next call with a given text in the model's place; it has no log-probs."""
    ids = (*episode.tokenizer.encode(text), episode.tokenizer.end_id)
    return Call(episode.kind, episode.prompt_ids(), ids)


class _UnreadableError(ValueError):
    """An annotated text is no action of the format: a blank sub-question, say."""


def _say(episode: Episode, text: str) -> None:
    """Take in an annotated output."""
    episode.take(written(episode, text), finished=True)
    if episode.malformed:
        raise _UnreadableError(f"{text!r} reads back as {episode.malformed}")


def _fill(question: str, short_answers: Sequence[str]) -> str:
    """A hop's question with `#n` replaced, and MuSiQue's `subject >> relation` as plain words."""

    def answer(match: re.Match[str]) -> str:
        n = int(match[1])
        return short_answers[n - 1] if 0 < n <= len(short_answers) else match[0]

    return " ".join(_REFERENCE.sub(answer, question).replace(">>", " ").split())


def _support(hop: Hop, passages: Sequence[Passage], words: int) -> Passage | None:
    """The annotated passage among those found; without an annotation, one that holds the answer.

    None as well where the answer stands in what is cut off after `words` words: a record of it
    would teach the model to make facts up.
    """
    wanted = f" {normalize(hop.answer_short or hop.answer)} "

    def holds(passage: Passage, text: str) -> bool:
        return wanted in f" {normalize(f'{passage.title} {text}')} "

    if hop.support_id is None:
        return next((p for p in passages if holds(p, shown_text(p, words))), None)
    support = next((p for p in passages if p.id == hop.support_id), None)
    if support and holds(support, support.text) and not holds(support, shown_text(support, words)):
        return None
    return support


def _fact(hop: Hop, query: str, title: str, text: str) -> str:
    """What the record says: the annotated sentence, or one of the shown text with the answer."""
    if hop.answer_short and hop.answer != hop.answer_short:
        return hop.answer
    wanted = normalize(hop.answer)
    for sentence in _SENTENCE.split(text):
        if wanted in normalize(sentence) and len(sentence.split()) <= 40:
            return sentence if title in sentence else f"{title}: {sentence}"
    return f"{query.rstrip('?')}: {hop.answer}"
