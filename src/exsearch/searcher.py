"""A searcher answers questions over an index: the short way from Python to an answer with evidence.

It holds an engine and a retriever and nothing else; training and evaluation are elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exsearch.agent.episode import AgentConfig
from exsearch.agent.rollout import rollout
from exsearch.build import load_engine, load_retriever, model_settings
from exsearch.engines.base import GREEDY, Engine, Sampling
from exsearch.errors import EngineError, RetrieverError
from exsearch.records import Evidence, Question, StopReason, Trajectory
from exsearch.retrievers.base import Retriever


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a searcher found out about one question."""

    trajectory: Trajectory

    @property
    def answer(self) -> str:
        """The answer; empty where none was reached (`trajectory.stop_reason` says why)."""
        return self.trajectory.answer

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The facts that were recorded, each with the ids of the passages it came from."""
        return self.trajectory.evidence


class Searcher:
    """Answers questions with a model and an index.

    Args:
        model: A name, a Hugging Face id, a folder, a finished run, or an open engine.
        index: An index folder, or an open retriever.
        agent: Limits and context; by default as the model was trained, or `AgentConfig()`.
        sampling: Greedy by default.
        seed: Of the sampling.
        settings: For `load_engine`, where `model` is a name: device, batch_size, …

    Raises:
        ExSearchError: the model or the index can't be opened.

    Example:
        >>> searcher = Searcher("smollm2-135m", "my_index")  # doctest: +SKIP
        >>> searcher.ask("Who wrote Dune?").answer  # doctest: +SKIP
        'Frank Herbert'
    """

    def __init__(
        self,
        model: str | Path | Engine,
        index: str | Path | Retriever,
        *,
        agent: AgentConfig | None = None,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        **settings: Any,
    ):
        # The index first: that it is missing shows at once, and a model takes long to load.
        self.retriever = load_retriever(index) if isinstance(index, str | Path) else index
        if isinstance(model, str | Path):
            self.agent = agent or model_settings(model).agent
            self.engine = load_engine(model, **settings)
        else:
            self.agent = agent or AgentConfig()
            self.engine = model
        self.sampling, self.seed = sampling, seed

    def ask(self, question: str) -> Found:
        """Answer one question.

        Raises:
            RetrieverError: a search failed.
            EngineError: the model failed, or the question does not fit it.
            ServerError: the model's server can't be used.
        """
        return self.ask_batch([question])[0]

    def ask_batch(self, questions: Sequence[str]) -> list[Found]:
        """Answer questions side by side, which takes less time than one after the other.

        Raises:
            RetrieverError: a search failed.
            EngineError: the model failed, or a question does not fit it.
            ServerError: the model's server can't be used.
        """
        asked = [Question(id=str(n), question=text) for n, text in enumerate(questions)]
        trajectories = rollout(
            asked,
            self.engine,
            self.retriever,
            config=self.agent,
            sampling=self.sampling,
            seed=self.seed,
            retry_malformed=True,
        )
        for trajectory in trajectories:
            if trajectory.stop_reason.is_error:
                failed = trajectory.stop_reason is StopReason.RETRIEVER_ERROR
                kind = RetrieverError if failed else EngineError
                raise kind(trajectory.error or f"question {trajectory.question.question!r}")
        return [Found(trajectory) for trajectory in trajectories]
