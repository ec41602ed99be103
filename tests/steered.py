"""A steered engine is the tiny model, made to write what a script says; it is no test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exsearch.engines.base import Request, Sampling
from exsearch.engines.local.engine import TransformersEngine

GOES_ON = "…"  # ends a reply that the model itself is to go on with


class Steered:
    """The transformers engine, with each reply's tokens forced; so it runs, streams and scores.

    Args:
        inner: The engine.
        script: Either rules: the first text that occurs in the last user turn, or in what is forced
            after it, gives the reply; or a function of that turn and the request's key. A list
            stands for samples, one of which is taken by the request's key.
    """

    trains, scores, streams, device = False, True, True, None

    def __init__(
        self,
        inner: TransformersEngine,
        script: Mapping[str, str | Sequence[str]] | Callable[[str, int], str],
    ):
        self.inner, self.tokenizer, self.rows = inner, inner.tokenizer, inner.rows
        self.generate, self.log_prob = inner.generate, inner.log_prob
        self.load_weights = inner.load_weights
        self._script = script
        self.asked: list[tuple[int, ...]] = []  # the prompts as the model saw them

    def open(self) -> Any:
        session = self.inner.open()
        submit = session.submit

        def steered(request: Request, sampling: Sampling) -> int:
            self.asked.append(request.prompt_ids)
            reply = self._reply(request)
            forced = self.tokenizer.encode(reply.removesuffix(GOES_ON))
            if not reply.endswith(GOES_ON):
                forced = (*forced, self.tokenizer.end_id)
            return submit(dataclasses.replace(request, forced_ids=forced), sampling)

        session.submit = steered
        return session

    def _reply(self, request: Request) -> str:
        turn = self.tokenizer.decode(request.prompt_ids).rpartition("user\n")[2]
        if callable(self._script):
            return self._script(turn, request.key)
        replies = next(replies for part, replies in self._script.items() if part in turn)
        return replies if isinstance(replies, str) else replies[request.key % len(replies)]
