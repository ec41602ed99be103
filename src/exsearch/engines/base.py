"""An engine reads prompts and writes tokens; a tokenizer stands beside it and maps text to ids.

These are the protocols and the plain values that cross them. Nothing here knows about questions,
passages or training.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from exsearch.errors import EngineError


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["user", "assistant"]
    content: str


class TooLongError(EngineError):
    """A sequence does not fit the model's context: no failure, but a property of the sequence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that tokens are drawn from. Temperature 0 is greedy.

    Temperature 1 with `top_p` 1 is the model's own distribution, for which the E-step's weights
    are exact without a correction (`method.md`, E-step).
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    @property
    def is_model(self) -> bool:
        """True where tokens are drawn from the model's own distribution, unchanged."""
        return self.temperature == 1 and self.top_p == 1

    @property
    def truncates(self) -> bool:
        """True where some tokens can't be drawn at all: importance weights are then approximate."""
        return self.temperature == 0 or self.top_p < 1


GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue.

    `key` names the stream of randomness that this request draws from, so that what it samples does
    not depend on which other requests share its batch (see `random_key`). `forced_ids` are written
    in place of the first tokens drawn, for replay and for measuring; their log-probs are as usual.
    Only the transformers engine knows them.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    key: int = 0
    forced_ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """What an engine wrote: ids (the end token included, where it was reached) and two log-probs.

    `log_probs` at temperature 1, untruncated; `proposal_log_probs` under the `Sampling` in use.
    """

    output_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    proposal_log_probs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class ChatTokenizer(Protocol):
    """Text to ids and back, with the model's own chat template."""

    end_id: int  # ends an assistant turn
    model_ids: bool  # False: no model's, private to this process, and not to be written down

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text: no special tokens are added, none is recognised."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of a chat up to where the assistant's next turn begins."""
        ...

    def extend_chat(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], content: str
    ) -> tuple[int, ...]:
        """The ids seen and written so far, followed by one more user turn: a growing sequence."""
        ...


class Engine(Protocol):
    """A model that generates and scores, and that declares what it can do.

    Whether its token ids are the model's own is declared by its tokenizer (`model_ids`).

    Attributes:
        rows: Sequences that are written side by side; more wait.
        trains: True where the weights are here: they can be trained on `device` and taken over
            again by `load_weights`.
        scores: True where `log_prob` gives log-probs.
        streams: True where a session tells what is being written before it ends.
    """

    rows: int
    trains: bool
    scores: bool
    streams: bool
    device: Any  # a torch device; read only where `trains`

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer that belongs to the weights."""
        ...

    def open(self) -> Session:
        """A batch of its own; the engine may allow only one at a time."""
        ...

    def generate(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Sequence[Generation | EngineError]:
        """One generation a request, in their order; an error for one that can't be had alone.

        Both arguments may be given by name.

        Raises:
            EngineError: the model could not be run on one of these requests or more.
            ModelServerError: the model can't be had at all.
        """
        ...

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token after its prompt: temperature 1, natural logarithm."""
        ...

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a checkpoint folder of the same architecture."""
        ...


class Session(Protocol):
    """A batch under way: requests come and go while others are being written."""

    @property
    def busy(self) -> bool:
        """True while a request has no reply."""
        ...

    def submit(self, request: Request, sampling: Sampling) -> int:
        """Hand in a request; its ticket. Nothing is run before `step`."""
        ...

    def cancel(self, ticket: int) -> None:
        """Take a request back: it gets no reply, and what it held is free."""
        ...

    def written(self, ticket: int) -> Sequence[int]:
        """The ids written so far for a request; empty where none are, or the engine can't tell."""
        ...

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        """Go on by one pass; tickets and replies of the requests that it ended.

        A request that can't be run has its error for a reply, and leaves the others alone.

        Raises:
            EngineError: the model could not be run, for any of them; the session is over then.
        """
        ...


def random_key(*parts: str | int) -> int:
    """A 63-bit key for a stream of randomness, from whatever names it (seed, question, sample…)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
