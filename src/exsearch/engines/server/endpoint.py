"""An endpoint is a chat model behind HTTP that speaks OpenAI's protocol: turns in, a reply out.

It asks one address only, the one that the settings name, and follows no redirect. It knows nothing
of questions or of what the replies are for. A fault of one request is a `RefusedError`; a
`ModelServerError` means that nothing can be had from the endpoint.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import email.utils
import json
import logging
import os
import random
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from exsearch.engines.server.config import EndpointConfig
from exsearch.errors import ConfigError, EngineError, ModelServerError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_ASKING_AGAIN = 4  # requests at once: a service in trouble is not run over by all of them
MAX_RESPONSE_BYTES = 4_000_000
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # some models show their reasoning
_LOCAL = ("localhost", "127.0.0.1", "::1")
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


class _Unanswered(Exception):
    """An attempt that may succeed when repeated.

    Attributes:
        status: The HTTP status; 0 where there was no response.
        wait: The seconds that the endpoint asked to wait for; None where it did not.
    """

    def __init__(self, reason: str, status: int = 0, wait: float | None = None):
        super().__init__(reason)
        self.status = status
        self.wait = wait


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
        self._requests = self._prompt_tokens = self._output_tokens = 0
        try:
            self._url = httpx2.URL(config.base_url.rstrip("/") + "/chat/completions")
            self._url.host.encode("idna")  # as the resolver will
        except (httpx2.InvalidURL, ValueError) as error:
            raise ConfigError(f"{config.role}.base_url is no address: {error}") from None
        self._place = f"{config.role} at {self._url.netloc.decode()}"
        self._key = _key(config.api_key_env)
        if self._key:
            plain = self._url.scheme == "http" and self._url.host not in _LOCAL
            how = " unencrypted; use https, or unset it" if plain else ""
            logger.warning("%s gets the key in %s%s", self._place, config.api_key_env, how)

    async def __aenter__(self) -> Self:
        self._asking_again = asyncio.Semaphore(_ASKING_AGAIN)
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=None,  # a whole attempt is timed instead: a slow drip would outlive any other
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=self.config.concurrency),
        )
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
        return f"{self._place}: {self._requests} requests, {tokens}"

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
        reply = await self._try(body)
        if isinstance(reply, Reply):
            return reply
        due = self._due(reply, 0)
        async with self._asking_again:
            for attempt in range(1, self.config.retries + 1):
                await asyncio.sleep(due - time.monotonic())
                reply = await self._try(body)
                if isinstance(reply, Reply):
                    return reply
                due = self._due(reply, attempt)
        remedy = _REMEDIES.get(reply.status, "check base_url and that the server is up")
        times = self.config.retries + 1
        tried = f"tried {times} times" if times > 1 else "tried once"
        raise ModelServerError(f"{self._place}: {reply} ({tried}); {remedy}")

    async def _try(self, body: dict[str, Any]) -> Reply | _Unanswered:
        """Make one attempt, within the time for one; a failure that may pass is returned."""
        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._attempt(body)
        except TimeoutError:
            return _Unanswered(f"no reply within {self.config.timeout:g} s")
        except httpx2.RequestError as error:
            return _Unanswered(f"can't be reached ({type(error).__name__})")
        except _Unanswered as unanswered:
            return unanswered

    def _due(self, problem: _Unanswered, attempt: int) -> float:
        """When to ask again, on the monotonic clock: time spent in the queue counts."""
        wait = self._wait(problem, attempt)
        logger.info("%s: %s; asking again in %.1f s", self._place, problem, wait)
        return time.monotonic() + wait

    def _wait(self, problem: _Unanswered, attempt: int) -> float:
        """Seconds to the next attempt: what the endpoint asked for, or longer each time."""
        limit = self.config.max_wait
        if problem.wait is None:
            return min(limit, self.config.backoff * 2**attempt * random.uniform(0.5, 1.5))
        if problem.wait > limit:
            raise ModelServerError(
                f"{self._place}: {problem}, and asks to wait {problem.wait:.0f} s (max_wait is "
                f"{limit:g}); run the same command again later"
            )
        return problem.wait

    async def _attempt(self, body: dict[str, Any]) -> Reply:
        """Send a request and read its reply; a failure that may pass is an `_Unanswered`."""
        self._requests += 1
        async with self._client.stream("POST", self._url, json=body) as response:
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_RESPONSE_BYTES:
                    raise ModelServerError(
                        f"{self._place}: a reply of more than {MAX_RESPONSE_BYTES:,} bytes; check "
                        "that base_url is a chat endpoint"
                    )
        if response.is_success:
            return self._read(bytes(data))
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise _Unanswered(f"HTTP {status}", status, _retry_after(response.headers))
        if response.is_redirect:
            raise ModelServerError(
                f"{self._place}: HTTP {status}, a redirect, which is not followed; set base_url to "
                "the address that answers"
            )
        # What comes with a refused key may repeat a part of it.
        said = "" if status in (401, 403) else self._quote(bytes(data))
        if status in (400, 413, 422):
            raise RefusedError(f"{self._place}: HTTP {status}{said}; check {self.config.settings}")
        remedy = _REMEDIES.get(status, "check base_url")
        key = f"{self.config.api_key_env} ({'set' if self._key else 'not set'})"
        raise ModelServerError(f"{self._place}: HTTP {status}{said}; {remedy.format(key=key)}")

    def _read(self, data: bytes) -> Reply:
        try:
            value = json.loads(data)
            choice = value["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
            if not isinstance(text, str | None):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise _Unanswered("its reply is not a chat completion") from None
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._prompt_tokens += _count(usage.get("prompt_tokens"))
            self._output_tokens += _count(usage.get("completion_tokens"))
        reason = reason if isinstance(reason, str) else None
        return Reply(_THOUGHTS.sub("", text or "").strip(), reason)

    def _quote(self, data: bytes) -> str:
        """The start of what the endpoint said, on one line and without the key."""
        text = " ".join(data[:2000].decode(errors="replace").split())
        if self._key:
            text = text.replace(self._key, "***")
        return f" ({text[:200]!r})" if text else ""


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run asynchronous work to its end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _key(variable: str) -> str:
    """The key in an environment variable, or nothing: local servers need none."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {variable} has signs that no key has; set it anew")
    return key


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
