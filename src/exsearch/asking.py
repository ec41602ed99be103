"""Asking is who is asked what, over which passages: what evaluations and rollouts share.

It opens files and names their content by hash; it asks nothing itself (`jobs` does).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from exsearch.agent.episode import AgentConfig
from exsearch.agent.format import WorkedExamples
from exsearch.build import resolve_model
from exsearch.config import to_plain
from exsearch.data import SAMPLES, sample_path
from exsearch.data.questions import load_questions
from exsearch.engines.base import Engine
from exsearch.errors import ConfigError
from exsearch.records import Question
from exsearch.retrievers.base import Retriever
from exsearch.runs import MANIFEST, sha256_file
from exsearch.training.recipe import ModelConfig


@dataclasses.dataclass(frozen=True)
class Asking:
    """Who is asked, how, over what.

    Attributes:
        questions: A question file, or `sample:test` and its like for the packaged ones.
        index: An index folder.
        model: The model and its engine.
        agent: Limits and context of the agent.
        limit: The first so many questions; None takes all.
        seed: Of all sampling.
    """

    questions: str
    index: Path
    model: ModelConfig
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    limit: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Showing:
    """Worked examples for an untrained model: so many, from this question file."""

    examples: int = 0
    source: str = ""


def worked(
    showing: Showing, retriever: Retriever, engine: Engine, agent: AgentConfig
) -> WorkedExamples | None:
    """Worked examples from a question file's decompositions; None where none are asked for.

    Raises:
        ConfigError: the agent's context has none, or the file gives too few.
    """
    if not showing.examples:
        return None
    from exsearch.agent.examples import worked_examples
    from exsearch.training.warm_up import warm_up_data

    if agent.select or agent.context != "notes":
        raise ConfigError("worked examples are for --context notes without --select")
    source = load_questions(question_file(showing.source))
    data = warm_up_data(source, retriever, engine.tokenizer, agent, examples=showing.examples)
    if len(data.items) < showing.examples:
        raise ConfigError(
            f"{showing.source}: {len(data.items)} of {showing.examples} worked examples could be "
            "made; they need questions with a decomposition whose support is found"
        )
    return worked_examples([item.trajectory for item in data.items], agent)


def question_file(name: str) -> Path:
    """A question file's path; `sample:test` and its like are the packaged ones."""
    prefix, colon, split = name.partition(":")
    if prefix == "sample" and colon and split in SAMPLES:
        return sample_path(split)
    return Path(name).expanduser()


def asked_questions(asking: Asking) -> list[Question]:
    """The questions; raises as `load_questions`."""
    return load_questions(question_file(asking.questions), asking.limit)


def identity(asking: Asking) -> dict[str, Any]:
    """What determines the answers, by content and not by path; where it runs does not count."""
    model = to_plain(asking.model)
    keys = ["engine", "system_prompt", "chat_template_kwargs"]
    if asking.model.engine == "openai":
        keys.append("base_url")  # one name may be another model elsewhere
    asked = {key: model[key] for key in keys}
    content = _model_hash(asking.model) or asking.model.name
    return {
        "questions": questions_hash(asking.questions),
        "limit": asking.limit,
        "index": content_hash(asking.index),
        "model": {"content": content, **asked},
        "agent": to_plain(asking.agent),
        "seed": asking.seed,
    }


def questions_hash(name: str) -> str:
    """The content of a question file, by hash; raises as `load_questions`."""
    path = question_file(name)
    load_questions(path, 1)  # says what is wrong with it, where something is
    return f"sha256:{sha256_file(path)}"


def _model_hash(model: ModelConfig) -> str | None:
    if model.engine in ("transformers", "vllm"):
        return content_hash(Path(resolve_model(model.name)))
    if model.engine == "openai":
        return None
    return content_hash(Path(model.name))


def content_hash(place: Path) -> str | None:
    """The hash of a file, or of a folder's manifest; None where there is neither."""
    file = place if place.is_file() else place / MANIFEST
    return f"sha256:{sha256_file(file)}" if file.is_file() else None
