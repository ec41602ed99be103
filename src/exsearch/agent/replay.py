"""A replay turns steps and an answer in text into the calls that a method would have made.

The text is spelled in a given tokenizer's ids, without log-probs: nothing was sampled. So warm-up
data, worked examples and a teacher's trajectories are written by the method itself. It asks no
model.
"""

from __future__ import annotations

from collections.abc import Sequence

from exsearch.agent.episode import Episode, begin
from exsearch.agent.examples import WorkedExamples
from exsearch.engines.base import ChatTokenizer, Message
from exsearch.methods.base import Answer, Ask, Method, Solved
from exsearch.methods.format import (
    Search,
    one_line,
    render_record,
    render_select,
    render_thought,
)
from exsearch.records import Call, CallKind, Question, Step, Trajectory
from exsearch.retrievers.base import Retriever

_THOUGHTS = (CallKind.THINK, CallKind.ANSWER)
_Calls = list[tuple[Ask, str]]  # what was asked, and the reply


class UnreplayableError(ValueError):
    """A method can't have made these steps, or a text does not read back as what it says."""


def replay(
    question: Question,
    steps: Sequence[Step],
    answer: str,
    method: Method,
    tokenizer: ChatTokenizer,
    *,
    within_limits: bool = False,
) -> Trajectory:
    """The trajectory in which a method makes these steps and gives this answer.

    Args:
        question: The question that is asked.
        steps: The searches in their order, each with what it found and what was recorded.
        answer: The answer that is given.
        method: The method that makes the calls and their prompts.
        tokenizer: The tokenizer whose ids the calls are written in.
        within_limits: Whether a text that takes more tokens than its call allows is refused.

    Returns:
        The trajectory, whose calls have no log-probs.

    Raises:
        UnreplayableError: the method, with its settings, can't have made these steps; or a text is
            no action of its format.
    """
    trajectory, calls = _replayed(question, steps, answer, method, tokenizer)
    for call, (ask, text) in zip(trajectory.calls, calls, strict=True):
        if within_limits and len(call.output_ids) > ask.max_tokens:
            raise UnreplayableError(f"{text!r} takes more than {ask.max_tokens} tokens")
    return trajectory


def worked_examples(
    trajectories: Sequence[Trajectory], method: Method, tokenizer: ChatTokenizer
) -> WorkedExamples:
    """Earlier turns for an untrained model: one thought and one call of each other kind from each.

    The first trajectory shows how to begin, the last how to end, those between what to ask next.

    Args:
        trajectories: Solved questions; their steps and answers are replayed.
        method: The method that the model will be asked by.
        tokenizer: Any tokenizer: the turns are text, which it only has to read back.

    Raises:
        UnreplayableError: a trajectory has no answer, or can't be replayed; or the method's prompts
            go on from one another, so that there is no place for examples.
    """
    made: list[_Calls] = []
    for trajectory in trajectories:
        if not trajectory.answer:
            raise UnreplayableError(f"trajectory {trajectory.id!r} has no answer to show")
        steps, answer = trajectory.steps, trajectory.answer
        made.append(_replayed(trajectory.question, steps, answer, method, tokenizer)[1])
    return _shown(made)


def demonstrations(
    solved: Sequence[tuple[Question, Solved]],
    method: Method,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
) -> WorkedExamples:
    """Earlier turns for an untrained model, of a method that says what is to be replied to it.

    Args:
        solved: Questions that are solved; the method's own searches are made anew.
        method: The method that the model will be asked by.
        retriever: The retriever that answers them.
        tokenizer: Any tokenizer: the turns are text, which it only has to read back.

    Raises:
        UnreplayableError: the method does not say what is to be replied, or can't read it.
        RetrieverError: a search failed.
    """
    return _shown(
        [
            _solve(question, solution, method, retriever, tokenizer)[1]
            for question, solution in solved
        ]
    )


def solve(
    question: Question,
    solved: Solved,
    method: Method,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
) -> Trajectory:
    """The trajectory in which a method's own searches are made and its calls are replied to.

    Args:
        question: The question that is asked.
        solved: Its solution, by which each call is replied to (`Ask.reply`).
        method: The method that asks.
        retriever: The retriever that answers its searches.
        tokenizer: The tokenizer whose ids the calls are written in; they have no log-probs.

    Raises:
        UnreplayableError: the method does not say what is to be replied, or can't read it.
        RetrieverError: a search failed.
    """
    return _solve(question, solved, method, retriever, tokenizer)[0].trajectory()


def _solve(
    question: Question,
    solved: Solved,
    method: Method,
    retriever: Retriever,
    tokenizer: ChatTokenizer,
) -> tuple[Episode, _Calls]:
    episode = begin(question, method, tokenizer)
    calls: _Calls = []
    while episode.stop_reason is None:
        if episode.look is not None:
            episode.found(retriever.search([episode.look.query], episode.look.k)[0])
            continue
        assert episode.ask is not None
        if episode.ask.reply is None:
            raise UnreplayableError(f"the method {method.name} does not say what to reply to it")
        calls.append((episode.ask, episode.ask.reply(solved)))
        _say(episode, calls[-1][1])
    return episode, calls


def _shown(made: Sequence[_Calls]) -> WorkedExamples:
    """The turns that are shown of the calls of each solved question."""
    turns: dict[CallKind, list[Message]] = {}
    for n, calls in enumerate(made):
        if any(ask.goes_on for ask, _ in calls):
            raise UnreplayableError("worked examples need a method whose prompts are new chats")
        thoughts = [call for call in calls if call[0].kind in _THOUGHTS]
        if not thoughts:
            continue
        at = 0 if n == 0 else len(thoughts) - 1 if n == len(made) - 1 else len(thoughts) // 2
        for kind in _THOUGHTS:
            turns.setdefault(kind, []).extend(_turns(*thoughts[at]))
        for kind in (CallKind.SELECT, CallKind.RECORD):
            if others := [call for call in calls if call[0].kind is kind]:
                turns.setdefault(kind, []).extend(_turns(*others[n % len(others)]))
    return WorkedExamples({kind: tuple(messages) for kind, messages in turns.items()})


def _turns(ask: Ask, reply: str) -> list[Message]:
    said = f"{ask.forced}{reply}"
    return [Message(role="user", content=ask.prompt), Message(role="assistant", content=said)]


def _replayed(
    question: Question, steps: Sequence[Step], answer: str, method: Method, tokenizer: ChatTokenizer
) -> tuple[Trajectory, _Calls]:
    """The trajectory, and for each call what was asked and the reply as text."""
    episode = begin(question, method, tokenizer)
    calls: _Calls = []
    while episode.stop_reason is None:
        done = len(episode.steps)
        step = steps[done] if done < len(steps) else None
        if episode.ask is not None:
            calls.append((episode.ask, _reply(episode.ask, step, answer)))
            _say(episode, calls[-1][1])
        elif step is not None:
            if episode.look and len(step.passages) > episode.look.k:
                raise UnreplayableError(
                    f"method {method.name} searches otherwise than the step {step.query!r}: for at "
                    f"most {episode.look.k} passages"
                )
            episode.found(step.passages)
        else:
            raise UnreplayableError(f"method {method.name} searches more often than the steps")
    if len(episode.steps) < len(steps):
        raise UnreplayableError(f"method {method.name} searches less often than the steps")
    for made, given in zip(episode.steps, steps, strict=True):
        if _outline(made) != _outline(given):
            raise UnreplayableError(
                f"method {method.name} goes on otherwise than the step {given.query!r}"
            )
    return episode.trajectory(), calls


def _outline(step: Step) -> tuple[object, ...]:
    """What two equal steps have in common; the texts of evidence may have been tidied."""
    noted = step.evidence and step.evidence.passage_ids
    return one_line(step.query), step.selected_ids, noted


def _reply(ask: Ask, step: Step | None, answer: str) -> str:
    """The reply that the model would have written, after what is forced."""
    if ask.kind is CallKind.RECORD and step is not None:
        return render_record(step.evidence, step.shown)
    if ask.kind is CallKind.SELECT and step is not None:
        return render_select(step.selected_ids or (), step.passages)
    action = Answer(answer)
    if ask.kind is CallKind.THINK and step is not None:
        action = Search(step.query)
    return render_thought(action).removeprefix(ask.forced)


def _say(episode: Episode, text: str) -> None:
    assert episode.ask is not None
    ids = (*episode.tokenizer.encode(text), episode.tokenizer.end_id)
    episode.take(Call(episode.ask.kind, episode.prompt_ids(), ids), finished=True)
    if episode.malformed:
        raise UnreplayableError(f"{text!r} reads back as {episode.malformed}")
