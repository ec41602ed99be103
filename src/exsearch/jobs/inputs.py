"""The inputs of a job are who is asked what, how, over which passages; they are opened once.

`identity` names them by content and not by path; where a job runs does not count. It loads no
model.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from exsearch.agent.examples import WorkedExamples
from exsearch.agent.replay import UnreplayableError, demonstrations, worked_examples
from exsearch.config import to_plain, user_path
from exsearch.data import SAMPLES, sample_path
from exsearch.data.questions import load_questions
from exsearch.engines import check_engine
from exsearch.engines.base import Engine
from exsearch.engines.config import ModelConfig
from exsearch.errors import ConfigError
from exsearch.methods import DEFAULT_METHOD, method_values, open_method
from exsearch.methods.base import Method, Solved
from exsearch.models.settings import resolve_model
from exsearch.records import Question, Trajectory
from exsearch.retrievers import open_retriever
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import TIMEOUT, guarded
from exsearch.runs import MANIFEST, sha256_file


@dataclasses.dataclass(frozen=True)
class Asking:
    """Which questions are put to which model, by which method, over which index.

    Attributes:
        questions: A question file, or `sample:test` and its like for the packaged ones.
        index: An index folder, or the address of a search server.
        model: The model and its engine.
        method: How questions are answered.
        limit: The number of questions that are asked, from the first on; None asks all.
        seed: Decides all sampling.
        timeout: Seconds until a search counts as failed.
    """

    questions: str
    index: str
    model: ModelConfig
    method: Method = dataclasses.field(default_factory=open_method)
    limit: int | None = None
    seed: int = 0
    timeout: float = TIMEOUT


@dataclasses.dataclass(frozen=True)
class ExampleSource:
    """The source of worked examples for an untrained model.

    Attributes:
        count: The number of solved questions that are shown; 0 shows none.
        file: A question file with decompositions, or `sample:train` and its like; the first
            questions that give an example are taken.
    """

    count: int = 0
    file: str = ""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The open inputs of a job.

    Attributes:
        questions: The questions that are asked.
        retriever: The retriever at the index.
        identity: All that determines the answers, as plain values: hashes, names and settings.
    """

    questions: list[Question]
    retriever: Retriever
    identity: dict[str, Any]


def open_inputs(asking: Asking) -> Inputs:
    """Open the questions and the retriever and name all inputs; the model is not loaded.

    Args:
        asking: The questions, the model, the method and the index.

    Raises:
        ExSearchError: a file, the index or a setting can't be used.
    """
    check_engine(asking.model)
    file = question_file(asking.questions)
    questions = load_questions(file, asking.limit)
    retriever = guarded(open_retriever(asking.index), asking.timeout)
    return Inputs(
        questions,
        retriever,
        {
            "questions": f"sha256:{sha256_file(file)}",
            "limit": asking.limit,
            "index": retriever.identity(),
            "model": model_identity(asking.model),
            "method": method_values(asking.method),
            "seed": asking.seed,
        },
    )


def with_today_s_method(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity of an older version, with today's defaults for settings its method had not."""
    return {**identity, "method": method_values(open_method(identity["method"]))}


def solved_examples(
    source: ExampleSource, retriever: Retriever, engine: Engine, method: Method
) -> WorkedExamples | None:
    """Worked examples from a question file's decompositions; None where none are asked for.

    Args:
        source: The question file, and how many examples to take from it.
        retriever: The retriever that answers the hops.
        engine: The engine whose model is shown the examples.
        method: The method that the model is asked by.

    Raises:
        ConfigError: the method has none, or the file gives too few.
        RetrieverError: a search failed.
    """
    if not source.count:
        return None
    from exsearch.training.warm_up import warm_up_data

    questions = load_questions(question_file(source.file))
    tokenizer = engine.tokenizer
    steps = method if method.name == DEFAULT_METHOD else open_method()
    data = warm_up_data(questions, retriever, tokenizer, steps, examples=source.count)
    if len(data.items) < source.count:
        raise ConfigError(
            f"{source.file}: {len(data.items)} of {source.count} worked examples could be made; "
            "they need questions with a decomposition whose support is found"
        )
    trajectories = [item.trajectory for item in data.items]
    try:
        if steps is method:
            return worked_examples(trajectories, method, tokenizer)
        solved = [(t.question, _solved(t)) for t in trajectories]
        return demonstrations(solved, method, retriever, tokenizer)
    except UnreplayableError as error:
        raise ConfigError(f"{error}: with the searcher, that is --context notes") from None


def _solved(trajectory: Trajectory) -> Solved:
    """What a searcher's trajectory found out, without how it did."""
    facts = ((step.query, step.evidence.text) for step in trajectory.steps if step.evidence)
    return Solved(tuple(facts), trajectory.answer)


def question_file(name: str) -> Path:
    """A question file's path; `sample:test` and its like are the packaged ones."""
    prefix, colon, split = name.partition(":")
    if prefix == "sample" and colon and split in SAMPLES:
        return sample_path(split)
    return user_path(name)


def content_hash(place: Path) -> str | None:
    """The hash of a file, or of a folder's manifest; None where there is neither."""
    file = place if place.is_file() else place / MANIFEST
    return f"sha256:{sha256_file(file)}" if file.is_file() else None


def model_identity(model: ModelConfig) -> dict[str, Any]:
    """What determines a model's answers: a hash of its content where it is here, and settings."""
    keys = ["engine", "system_prompt", "chat_template_kwargs"]
    kind, content = check_engine(model), None
    if kind.has_server:
        keys.append("base_url")  # one name may be another model elsewhere
    else:
        place = resolve_model(model.name) if kind.trains else model.name
        content = content_hash(Path(place))
    plain = to_plain(model)
    return {"content": content or model.name, **{key: plain[key] for key in keys}}
