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
    """The distribution that tokens are drawn from.

    Temperature 1 with `top_p` 1 is the model's own distribution, for which the E-step's weights
    are exact without a correction (`method.md`, E-step).

    Attributes:
        temperature: The number that logits are divided by; 0 is greedy.
        top_p: The mass of the likeliest tokens that are drawn from, above 0; 1 leaves none out.

    Raises:
        ValueError: a value is out of range.
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

    Attributes:
        prompt_ids: The token ids of the prompt.
        max_tokens: The most tokens that are written.
        key: The name of the stream of randomness that the request draws from (`random_key`), so
            that what it samples does not depend on which other requests share its batch.
        forced_ids: Token ids that are written in place of the first ones drawn, with their usual
            log-probs. It is for measurements; only the transformers engine knows it.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    key: int = 0
    forced_ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """What an engine wrote for one request.

    Both lists of log-probs have one value an output token, natural logarithm, and are empty where
    the engine gives none.

    Attributes:
        output_ids: The token ids written, the end token included where it was reached.
        log_probs: log p of each token at temperature 1, untruncated.
        proposal_log_probs: log q of each token under the `Sampling` that it was drawn with.
        finish_reason: `stop` where the end token was reached, `length` at `max_tokens`.
    """

    output_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    proposal_log_probs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class ChatTokenizer(Protocol):
    """Maps text to token ids and back, with the model's own chat template.

    Attributes:
        end_id: The id that ends an assistant turn.
        model_ids: True where the ids are the model's. Where False they are private to this
            process and must not be written down.
    """

    end_id: int
    model_ids: bool

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
        """The ids seen and written so far, followed by one more user turn: a growing sequence.

        Args:
            prompt_ids: The prompt of the call before.
            output_ids: The reply of the call before.
            content: The text of the new user turn.
        """
        ...


class Engine(Protocol):
    """A model that generates and scores, and that declares what it can do.

    Whether its token ids are the model's own is declared by its tokenizer (`model_ids`).

    Attributes:
        rows: The number of sequences that are written side by side; more wait.
        trains: True where an M-step can train the weights on `device`, and `load_weights` takes
            them over again.
        scores: True where `log_prob` gives log-probs.
        streams: True where a session tells what is being written before it ends.
        device: The torch device of the weights; read only where `trains`.
    """

    rows: int
    trains: bool
    scores: bool
    streams: bool
    device: Any

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer that belongs to the weights."""
        ...

    def open(self) -> Session:
        """A new, empty session; the engine may allow only one at a time."""
        ...

    def generate(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Sequence[Generation | EngineError]:
        """Write a whole batch.

        Args:
            requests: The prompts to continue; the argument may be given by name.
            sampling: The distribution of tokens; the argument may be given by name.

        Returns:
            One generation a request, in their order; an error for a request that alone can't be
            had.

        Raises:
            EngineError: the model could not be run on one of these requests or more.
            ModelServerError: the model can't be had at all.
        """
        ...

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token after its prompt: temperature 1, natural logarithm.

        Args:
            prompts: Token ids, none of them empty.
            continuations: Token ids that follow each prompt.

        Returns:
            For each pair a value a token of the continuation.

        Raises:
            TooLongError: a pair does not fit the model's context.
            EngineError: the model can't be run, or the engine does not score.
        """
        ...

    def release(self) -> None:
        """Give back the memory of the weights and of what was kept, until `load_weights`.

        Training calls it where `trains`, since it needs that memory; an open session is over then.
        """
        ...

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a checkpoint folder of the same architecture.

        Raises:
            ModelError: they can't be loaded, or the engine does not train.
        """
        ...


class Session(Protocol):
    """A batch under way: requests come and go while others are being written."""

    @property
    def busy(self) -> bool:
        """True while a request has no reply."""
        ...

    def submit(self, request: Request, sampling: Sampling) -> int:
        """Hand in a request and return its ticket; nothing is run before `step`.

        Args:
            request: The prompt to continue.
            sampling: The distribution of its tokens.
        """
        ...

    def cancel(self, ticket: int) -> None:
        """Take the request with this ticket back: it gets no reply, and what it held is free."""
        ...

    def written(self, ticket: int) -> Sequence[int]:
        """The ids written so far for a ticket; empty where none are, or the engine can't tell."""
        ...

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        """Go on by one pass of the model.

        Returns:
            The tickets and replies of the requests that ended. A request that can't be run has its
            error for a reply, and leaves the others alone.

        Raises:
            EngineError: the model could not be run, for any of them; the session is over then.
        """
        ...


def random_key(*parts: str | int) -> int:
    """A 63-bit key for a stream of randomness, from whatever names it (seed, question, sample…)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
