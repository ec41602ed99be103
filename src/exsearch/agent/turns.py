"""Turn scores say how likely the gold answer was after each search, and so which one helped.

a_t is log p(y*|x, z_≤t) with the answer's frame forced after the first t searches, summed over the
accepted answers; its differences are the turn gains (`method.md`, "Around the method"). They are no
part of the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from exsearch.agent.episode import answer_ids
from exsearch.engines.base import Engine, TooLongError
from exsearch.errors import ModelError
from exsearch.halves import by_halves
from exsearch.methods.format import ANSWER_FRAME
from exsearch.records import CallKind, Trajectory, log_sum_exp

_Pair = tuple[tuple[int, ...], tuple[int, ...]]  # prompt and answer


def can_score_turns(engine: Engine) -> bool:
    """True where an engine gives what turn scores are made of: token ids and scores."""
    return engine.scores and engine.tokenizer.model_ids


def with_turn_scores(trajectories: Sequence[Trajectory], engine: Engine) -> list[Trajectory]:
    """Trajectories with the likelihood of the gold answer after each of their searches.

    None are given to one without an accepted answer or without a call of the model, where an answer
    has no room after a prompt, and where the tokenizer joins frame and answer.

    Args:
        trajectories: The trajectories, soon after they ended: their prompts are still in the cache.
        engine: The engine that sampled them, with the same weights.
    """
    pairs: list[_Pair] = []
    owners: list[tuple[int, int]] = []  # trajectory and turn of each pair
    for i, trajectory in enumerate(trajectories):
        golds = trajectory.question.distinct_answers
        try:
            ids = [answer_ids(gold, engine.tokenizer) for gold in golds]
        except ModelError:
            continue
        for turn, prompt in enumerate(turn_prompts(trajectory, engine.tokenizer.encode)):
            pairs += [(prompt, answer) for answer in ids]
            owners += [(i, turn)] * len(ids)
    found = by_halves(
        lambda some: engine.log_prob([p for p, _ in some], [a for _, a in some]),
        pairs,
        TooLongError,
    )
    scores: list[dict[int, list[float]]] = [{} for _ in trajectories]
    for (i, turn), log_probs in zip(owners, found, strict=True):
        value = None if isinstance(log_probs, TooLongError) else sum(log_probs)
        scores[i].setdefault(turn, [])
        if value is not None:
            scores[i][turn].append(value)
    return [
        dataclasses.replace(t, turn_scores=tuple(log_sum_exp(values) for values in own.values()))
        if all(own.values())
        else t
        for t, own in zip(trajectories, scores, strict=True)
    ]


def turn_prompts(
    trajectory: Trajectory, encode: Callable[[str], Sequence[int]]
) -> list[tuple[int, ...]]:
    """The prompt of each thought or answer, with the answer's frame: the first has seen no search.

    Args:
        trajectory: The trajectory; without token ids it has none.
        encode: Turns the frame into token ids.
    """
    if not trajectory.trainable:
        return []
    frame = tuple(encode(ANSWER_FRAME))
    turns: list[tuple[int, ...]] = []
    for call in trajectory.calls:
        if call.kind is CallKind.THINK:
            turns.append((*call.prompt_ids, *frame))
        elif call.kind is CallKind.ANSWER:  # its frame is forced
            turns.append(call.prompt_ids)
    last = trajectory.calls[-1]
    if trajectory.answer_start is not None:  # as it was sampled
        turns[-1] = (*last.prompt_ids, *last.output_ids[: trajectory.answer_start])
    return turns
