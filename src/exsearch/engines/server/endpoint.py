"""An endpoint is a chat model behind HTTP that speaks OpenAI's protocol: turns in, a reply out.

It asks one address only, the one that the settings name, and follows no redirect. It knows nothing
of questions or of what the replies are for. A fault of one request is a `RefusedError`; a
`ModelServerError` means that nothing can be had from the endpoint.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from exsearch.engines.server.config import EndpointConfig
from exsearch.errors import ConfigError, EngineError, ExSearchError, ModelServerError
from exsearch.http_client import FailedRequest, HttpClient, Unanswered, bearer

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_RESPONSE_BYTES = 4_000_000
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # some models show their reasoning
_REMEDY = "check base_url (it is a chat endpoint's) and that the server is up"
_REMEDIES = {
    401: "check the key in the environment variable {key}",
    403: "check what the key in the environment variable {key} is allowed",
    404: "check base_url (it usually ends in /v1) and the model's name",
    429: "the rate or the credit is used up; run the same command again later",
}


class RefusedError(EngineError):
    """The endpoint will not answer this one request, however often it is asked."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's turn.

    Attributes:
        text: What the model wrote, without its thoughts; empty where it wrote nothing.
        finish_reason: The endpoint's own word for why the turn ends, mostly `stop` or `length`;
            None where it says nothing.
    """

    text: str
    finish_reason: str | None = None


class ChatEndpoint:
    """`POST {base_url}/chat/completions`, with retries; `async with` opens and closes it.

    Closed, it may be opened anew, also on another event loop.

    Args:
        config: The address, the model's name, the key's variable, and how the model is asked.

    Raises:
        ConfigError: the key can't be used.
    """

    def __init__(self, config: EndpointConfig):
        self.config = config
        self._prompt_tokens = self._output_tokens = 0
        try:
            self._url = httpx2.URL(config.base_url.rstrip("/") + "/chat/completions")
            self._url.host.encode("idna")  # as the resolver will
        except (httpx2.InvalidURL, ValueError) as error:
            raise ConfigError(f"{config.role}.base_url is no address: {error}") from None
        self._place = f"{config.role} at {self._url.netloc.decode()}"
        self._key = bearer(config.api_key_env, self._url, self._place)
        self._client = HttpClient(
            self._place,
            max_bytes=MAX_RESPONSE_BYTES,
            connections=config.concurrency,
            retries=config.retries,
            backoff=config.backoff,
            max_wait=config.max_wait,
            timeout=config.timeout,
            key=self._key,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    @property
    def usage(self) -> str:
        """A line that says how much was asked so far, in the endpoint's own count of tokens."""
        tokens = f"{self._prompt_tokens} prompt tokens, {self._output_tokens} output tokens"
        return f"{self._place}: {self._client.requests} requests, {tokens}"

    async def reply(self, messages: Sequence[Mapping[str, Any]], **fields: Any) -> Reply:
        """Ask for the assistant's next turn.

        Args:
            messages: The turns so far, as `role` and `content`.
            fields: More fields of the request; they override those of the settings.

        Raises:
            RefusedError: this request is refused (HTTP 400, 413, 422).
            ModelServerError: nothing can be had from this endpoint; the message says where it is
                and what to do.
        """
        body: dict[str, Any] = {"model": self.config.model, "messages": list(messages)}
        if self.config.temperature is not None:
            body["temperature"] = self.config.temperature
        if self.config.max_tokens:
            body["max_tokens"] = self.config.max_tokens
        body |= {**self.config.extra, **fields}
        try:
            return await self._client.ask("POST", self._url, self._read, body)
        except FailedRequest as failed:
            raise self._error(failed) from None

    def _error(self, failed: FailedRequest) -> ExSearchError:
        """The error of a request that has failed: its own, or that of the whole endpoint."""
        text = f"{self._place}: {failed}{failed.quoted(self._key)}"
        if failed.status in (400, 413, 422):
            return RefusedError(f"{text}; check {self.config.settings}")
        redirected = 300 <= failed.status < 400
        other = "set base_url to the address that answers" if redirected else _REMEDY
        key = f"{self.config.api_key_env} ({'set' if self._key else 'not set'})"
        remedy = _REMEDIES.get(failed.status, other).format(key=key)
        return ModelServerError(f"{text}; {remedy}")

    def _read(self, data: bytes) -> Reply:
        try:
            value = json.loads(data)
            choice = value["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
            if not isinstance(text, str | None):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Unanswered("its reply is not a chat completion") from None
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._prompt_tokens += _count(usage.get("prompt_tokens"))
            self._output_tokens += _count(usage.get("completion_tokens"))
        reason = reason if isinstance(reason, str) else None
        return Reply(_THOUGHTS.sub("", text or "").strip(), reason)


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run asynchronous work to its end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
