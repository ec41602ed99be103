"""An HTTP client asks a server one thing at a time, and again where a failure may pass.

Which failures may pass, how long to wait, and how much of a reply is read is decided here alone. It
follows no redirect. It knows nothing of what is asked: whoever asks makes an error of the tree of a
`FailedRequest`.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import logging
import os
import random
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from exsearch.errors import ConfigError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RETRIES = 4  # further attempts at a search server, before its search counts as failed
BACKOFF = 0.2  # seconds before the first of them
_LOCAL = ("localhost", "127.0.0.1", "::1")
_ASKING_AGAIN = 4  # requests at once: a service in trouble is not run over by all of them


class FailedRequest(Exception):
    """A request has failed for good.

    Attributes:
        status: The HTTP status; 0 where there was no response.
        body: What the server said.
    """

    def __init__(self, reason: str, status: int = 0, body: bytes = b""):
        super().__init__(reason)
        self.status = status
        self.body = body

    def quoted(self, secret: str = "") -> str:
        """The start of what the server said, in brackets, on one line and without a secret."""
        if self.status in (401, 403):  # what comes with a refused key may repeat a part of it
            return ""
        text = " ".join(self.body[:2000].decode(errors="replace").split())
        if secret:
            text = text.replace(secret, "***")
        return f" ({text[:200]!r})" if text else ""


class Unanswered(Exception):
    """An attempt that may succeed when repeated.

    Attributes:
        status: The HTTP status; 0 where there was no response.
        wait: The seconds that the server asked to wait for; None where it did not.
    """

    def __init__(self, reason: str, status: int = 0, wait: float | None = None):
        super().__init__(reason)
        self.status = status
        self.wait = wait


class HttpClient:
    """Requests with retries over a pool of connections; `async with` opens and closes it.

    Closed, it may be opened anew, also on another event loop.

    Args:
        place: The name of the server, for the log.
        max_bytes: The most bytes of a reply that are read.
        connections: The most connections at once.
        retries: The number of further attempts after 408, 429, 5xx, a timeout, a failed connection
            or a reply whose reading raised `Unanswered`.
        backoff: Seconds before the first further attempt; they double with each one.
        max_wait: The most seconds between attempts; a server that asks for more has failed.
        timeout: Seconds for one attempt, from connecting to the last byte; None sets no limit.
        key: The bearer's key that is sent with every request; empty sends none.

    Attributes:
        requests: The number of attempts so far.
    """

    def __init__(
        self,
        place: str,
        *,
        max_bytes: int,
        connections: int,
        retries: int = RETRIES,
        backoff: float = BACKOFF,
        max_wait: float = 60.0,
        timeout: float | None = None,
        key: str = "",
    ):
        self.requests = 0
        self._place, self._max_bytes, self._connections = place, max_bytes, connections
        self._retries, self._backoff, self._max_wait = retries, backoff, max_wait
        self._timeout, self._key = timeout, key

    async def __aenter__(self) -> Self:
        self._asking_again = asyncio.Semaphore(_ASKING_AGAIN)
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=None,  # a whole attempt is timed instead: a slow drip would outlive any other
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=self._connections),
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

    async def ask(
        self, method: str, url: httpx2.URL, read: Callable[[bytes], Result], body: Any = None
    ) -> Result:
        """Send a request, and again while its failure may pass.

        Args:
            method: The HTTP method.
            url: The address.
            read: A function of the reply's bytes; it may raise `Unanswered`.
            body: What is sent, as JSON; None sends nothing.

        Returns:
            What `read` makes of the reply.

        Raises:
            FailedRequest: the request has failed; its text says how, and how often it was tried.
        """
        found = await self._try(method, url, read, body)
        if not isinstance(found, Unanswered):
            return found
        due = self._due(found, 0)
        async with self._asking_again:
            for attempt in range(1, self._retries + 1):
                await asyncio.sleep(due - time.monotonic())
                found = await self._try(method, url, read, body)
                if not isinstance(found, Unanswered):
                    return found
                due = self._due(found, attempt)
        times = self._retries + 1
        tried = f"tried {times} times" if times > 1 else "tried once"
        raise FailedRequest(f"{found} ({tried})", found.status)

    async def _try(
        self, method: str, url: httpx2.URL, read: Callable[[bytes], Result], body: Any
    ) -> Result | Unanswered:
        """Make one attempt, within the time for one; a failure that may pass is returned."""
        try:
            async with asyncio.timeout(self._timeout):
                return read(await self._attempt(method, url, body))
        except TimeoutError:
            return Unanswered(f"no reply within {self._timeout:g} s")
        except httpx2.RequestError as error:
            return Unanswered(f"can't be reached ({type(error).__name__})")
        except Unanswered as unanswered:
            return unanswered

    async def _attempt(self, method: str, url: httpx2.URL, body: Any) -> bytes:
        """Send a request and read its reply; a failure that may pass is an `Unanswered`."""
        self.requests += 1
        async with self._client.stream(method, url, json=body) as response:
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > self._max_bytes:
                    raise FailedRequest(f"a reply of more than {self._max_bytes:,} bytes")
        if response.is_success:
            return bytes(data)
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise Unanswered(f"HTTP {status}", status, retry_after(response.headers))
        followed = ", a redirect, which is not followed" if response.is_redirect else ""
        raise FailedRequest(f"HTTP {status}{followed}", status, bytes(data))

    def _due(self, problem: Unanswered, attempt: int) -> float:
        """When to ask again, on the monotonic clock: time spent in the queue counts."""
        wait = self._wait(problem, attempt)
        logger.info("%s: %s; asking again in %.1f s", self._place, problem, wait)
        return time.monotonic() + wait

    def _wait(self, problem: Unanswered, attempt: int) -> float:
        """Seconds to the next attempt: what the server asked for, or longer each time."""
        if problem.wait is None:
            return min(self._max_wait, self._backoff * 2**attempt * random.uniform(0.5, 1.5))
        if problem.wait > self._max_wait:
            asks = f"asks to wait {problem.wait:.0f} s (at most {self._max_wait:g} are waited)"
            raise FailedRequest(f"{problem}, and {asks}", problem.status)
        return problem.wait


def read_key(variable: str) -> str:
    """The key or password in an environment variable; empty where none is set.

    Args:
        variable: The name of the variable.

    Raises:
        ConfigError: it has signs that no key has.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the value of {variable} has signs that no key has; set it anew")
    return key


def bearer(variable: str, url: httpx2.URL, place: str) -> str:
    """The key for a server, in an environment variable; a line of the log says who gets it.

    Args:
        variable: The name of the variable.
        url: The address that gets the key.
        place: The name of the server, for the log.

    Raises:
        ConfigError: what is there is no key.
    """
    key = read_key(variable)
    if key:
        plain = url.scheme == "http" and url.host not in _LOCAL
        how = " unencrypted; use https, or unset it" if plain else ""
        logger.warning("%s gets the key in %s%s", place, variable, how)
    return key


def retry_after(headers: httpx2.Headers) -> float | None:
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
