"""Action figures say how well a model does each action by itself, where all before it was right.

Of questions with a decomposition, every call of the gold trajectory is made anew, greedily: so an
action is not blamed for what went wrong before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exsearch.engines.base import GREEDY, Engine, Generation, Request
from exsearch.errors import ConfigError
from exsearch.evaluation.metrics import answer_recall, exact_match
from exsearch.evaluation.significance import mean_figures
from exsearch.methods.base import Answer, Method
from exsearch.methods.format import Search, parse_record, parse_thought
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Call, CallKind, Evidence, Passage, Question, Trajectory
from exsearch.retrievers.base import Retriever
from exsearch.training.warm_up import hops, warm_up_data

NAMES = ("query_finds_support", "record_right", "answer_right")


def action_figures(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    method: Method,
    *,
    most: int,
) -> dict[str, Any]:
    """How often each action is right after gold steps.

    Args:
        questions: The questions; those with a decomposition whose support is found and shown count.
        engine: The engine that writes.
        retriever: The retriever that answers queries.
        method: The searcher; in `transcript` context the gold chat stands before each call.
        most: The most questions.

    Returns:
        `{"questions", "query_finds_support", "record_right", "answer_right", …, "ci95"}`, shares
        with their numbers (`record_right_n`) and 95 % intervals: of thoughts that should search,
        whose query finds the supporting passage; of records of passages that hold the answer of the
        sub-question, which hold it, too; of answers after all gold notes, which match.

    Raises:
        ConfigError: another method: the actions are the searcher's.
        RetrieverError: a search failed.
        EngineError: the model could not be run.
    """
    if not isinstance(method, SearcherMethod):
        raise ConfigError(
            f"gem.action_questions judges the searcher's actions, not {method.name}'s"
        )
    tokenizer = engine.tokenizer
    data = warm_up_data(questions, retriever, tokenizer, method, examples=most)
    trajectories = [item.trajectory for item in data.items]
    calls = [(t, n, call) for t in trajectories for n, call in enumerate(t.calls)]
    limits = {CallKind.RECORD: method.record_tokens, CallKind.SELECT: method.select_tokens}
    requests = [
        Request(call.prompt_ids, limits.get(call.kind, method.thought_tokens))
        for _, _, call in calls
    ]
    values: dict[str, list[float]] = {name: [] for name in NAMES}
    for (trajectory, number, call), reply in zip(
        calls, engine.generate(requests, GREEDY), strict=True
    ):
        text = None
        if isinstance(reply, Generation) and reply.finish_reason == "stop":
            text = tokenizer.decode(reply.output_ids)
        if judged := _judge(trajectory, number, call, text, method, retriever):
            values[judged[0]].append(float(judged[1]))
    numbers = {f"{name}_n": len(own) for name, own in values.items()}
    return {"questions": len(trajectories), **mean_figures(values), **numbers}


def _judge(
    trajectory: Trajectory,
    number: int,
    call: Call,
    text: str | None,
    method: SearcherMethod,
    retriever: Retriever,
) -> tuple[str, bool] | None:
    """The name of the figure that a call counts for, and whether it was right."""
    plan = hops(trajectory.question)
    step = sum(before.kind is CallKind.RECORD for before in trajectory.calls[:number])
    last = number + 1 == len(trajectory.calls)
    if last:
        answers = trajectory.question.answers
        return NAMES[2], text is not None and exact_match(_answer(call, text), answers) == 1
    if call.kind is CallKind.THINK:
        thought = parse_thought(text or "")
        support = plan[step].support_id or next(iter(_sources(trajectory, step)), "")
        if not isinstance(thought, Search):
            return NAMES[0], False
        found = retriever.search([thought.query], method.passages)[0]
        return NAMES[0], support in {passage.id for passage in found}
    if call.kind is CallKind.RECORD:
        answers = [plan[step].answer_short or plan[step].answer]
        if answer_recall([], answers) is None:
            return None  # a hop of yes or no: a record that holds the word says nothing
        record = parse_record(text or "", trajectory.steps[step].shown)
        note = record.text if isinstance(record, Evidence) else ""
        return NAMES[1], answer_recall([Passage("", "", note)], answers) == 1
    return None


def _answer(call: Call, text: str) -> str:
    """The answer in a reply to the last call; empty where there is none."""
    if call.kind is CallKind.ANSWER:
        return text
    thought = parse_thought(text)
    return thought.text if isinstance(thought, Answer) else ""


def _sources(trajectory: Trajectory, step: int) -> Sequence[str]:
    evidence = trajectory.steps[step].evidence
    return evidence.passage_ids if evidence else ()
