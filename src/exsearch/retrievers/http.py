"""An HTTP retriever asks a search server: `exsearch serve-retriever`, or any with `/retrieve`.

A search is sent in batches, again where a failure may pass, and ends by its deadline with what was
found or with an error. Nothing is indexed here.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from exsearch.errors import ConfigError, RetrieverError
from exsearch.http_client import BACKOFF, RETRIES, FailedRequest, HttpClient, bearer
from exsearch.json_files import MAX_LINE
from exsearch.records import Passage, refuse_text
from exsearch.retrievers.base import refuse_search
from exsearch.retrievers.protocol import read_fetched, read_found, read_identity
from exsearch.retrievers.servers.address import SECRETS

Result = TypeVar("Result")

KEY_VARIABLE = SECRETS["http"]
TIMEOUT = 60.0  # seconds
BATCH = 64  # queries
_CONNECTIONS = 8
_CHARACTERS = 500_000  # of the queries of a batch; a longer one goes alone
_PASSAGES = 10_000  # of a reply
_SETTINGS = {"timeout": float, "retries": int, "batch": int}
_REMEDIES = {
    401: f"check the key in the environment variable {KEY_VARIABLE}",
    403: f"check what the key in the environment variable {KEY_VARIABLE} is allowed",
    404: "check the address: no /retrieve is below it",
    429: "the server has too much to do; run fewer jobs at once",
}
_NOT_OURS = (404, 405, 501)  # how a server of another make answers to what it does not know


class HttpRetriever:
    """The retriever behind an address; threads may share it.

    Args:
        address: `http://HOST:PORT`, or https; a path may follow, with or without `/retrieve` at its
            end. What is in the environment variable `RETRIEVER_API_KEY` is sent as a bearer's key.
        timeout: Seconds until a search counts as failed, all its batches and attempts together.
        retries: The number of further attempts of a batch whose failure may pass.
        batch: The most queries of a request.

    Raises:
        ConfigError: the address or a setting can't be used.
    """

    def __init__(
        self, address: str, *, timeout: float = TIMEOUT, retries: int = RETRIES, batch: int = BATCH
    ):
        if not (timeout > 0 and retries >= 0 and batch >= 1):
            given = f"timeout={timeout:g}, retries={retries}, batch={batch}"
            raise ConfigError(f"{given}: expected timeout > 0, retries >= 0, batch >= 1")
        self.timeout, self.batch = timeout, batch
        url = _url(address)
        self._base = url.copy_with(path=url.path.rstrip("/").removesuffix("/retrieve"))
        self.place = str(self._base).rstrip("/")
        self._key = bearer(KEY_VARIABLE, self._base, self.place)
        self._client = HttpClient(
            self.place,
            max_bytes=MAX_LINE,
            connections=_CONNECTIONS,
            retries=retries,
            backoff=BACKOFF,
            max_wait=timeout,
            key=self._key,
        )
        self._portal: BlockingPortal | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, place: str) -> HttpRetriever:
        """The retriever at an address; nothing is asked yet.

        Args:
            place: The address; `?timeout=…&retries=…&batch=…` sets the arguments of these names.

        Raises:
            ConfigError: the address or a setting can't be used.
        """
        address, _, query = place.partition("?")
        settings: dict[str, Any] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in _SETTINGS:  # its value is not shown: it may be a key
                known = ", ".join(_SETTINGS)
                raise ConfigError(f"?{name}= is no setting of a search server's address: {known}")
            try:
                settings[name] = _SETTINGS[name](value)
            except ValueError:
                raise ConfigError(f"?{name}={value}: expected a number") from None
        return cls(address, **settings)

    @classmethod
    def build(cls, passages: Iterable[Passage], place: Any, *, progress: bool = True) -> NoReturn:
        """Refuse: such a server has an index of its own.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a server of the kind http can't be filled: run `exsearch index … --out DIR` and "
            "`exsearch serve-retriever DIR` on its machine"
        )

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """What the server finds for each query.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query.

        Raises:
            RetrieverError: the server did not answer in time, refused, or sent anything else.
            TypeError: `queries` is one text.
            ValueError: `k` is below 1.
        """
        refuse_search(queries, k)

        def ask(batch: list[str]) -> Coroutine[Any, Any, list[list[Passage]]]:
            body = {"queries": batch, "topk": k, "return_scores": True}
            return self._ask("retrieve", body, lambda data: read_found(data, len(batch), k))

        return self._in_batches(ask, queries, min(self.batch, max(1, _PASSAGES // k)))

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids.

        Raises:
            RetrieverError: the server failed, or is of another make and gives no passages by id.
            TypeError: `ids` is one text.
        """
        refuse_text("ids", ids)

        def ask(batch: list[str]) -> Coroutine[Any, Any, list[Passage | None]]:
            return self._ask("fetch", {"ids": batch}, lambda data: read_fetched(data, batch))

        return self._in_batches(ask, ids, self.batch)

    def identity(self) -> str:
        """The identity that the server tells; of one that has none, its address.

        Raises:
            RetrieverError: the server failed.
        """
        try:
            return self._wait(self._ask("identity", None, read_identity))
        except _UnknownError:
            return self.place

    def close(self) -> None:
        """Close the connections; a later call opens them anew."""
        with self._lock:
            if self._portal:
                self._portal = None
                self._closing()

    def _in_batches(
        self,
        ask: Callable[[list[str]], Coroutine[Any, Any, list[Result]]],
        items: Sequence[str],
        most: int,
    ) -> list[Result]:
        """What a request a batch gives for all items, in their order."""
        # Half of a surrogate pair is in no JSON; every index takes it for a sign, as it does `?`.
        texts = [item.encode(errors="replace").decode() for item in items]

        async def ask_all() -> list[Result]:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask(batch)) for batch in _batches(texts, most)]
            except BaseExceptionGroup as failures:  # the first has ended the others
                raise failures.exceptions[0] from None
            return [one for task in tasks for one in task.result()]

        return self._wait(ask_all()) if texts else []

    async def _ask(self, path: str, body: Any, read: Callable[[bytes], Result]) -> Result:
        url = self._base.copy_with(path=f"{self._base.path.rstrip('/')}/{path}")
        try:
            return await self._client.ask("POST" if body else "GET", url, read, body)
        except FailedRequest as failed:
            said = f"{self.place}: {failed}{failed.quoted(self._key)}"
            if path != "retrieve" and failed.status in _NOT_OURS:
                raise _UnknownError(f"{said}; this server gives no passages by id") from None
            remedy = _REMEDIES.get(failed.status, "check the address and that the server is up")
            raise RetrieverError(f"{said}; {remedy}") from None
        except ValueError as error:
            raise RetrieverError(f"{self.place} gave {error}; is it a search server?") from None

    def _wait(self, work: Any) -> Any:
        """Do asynchronous work on the thread of the connections, within the deadline."""

        async def in_time() -> Any:
            async with asyncio.timeout(self.timeout):
                return await work

        done = self._running().start_task_soon(in_time)
        try:
            return done.result()
        except TimeoutError:
            late = f"{self.place}: no reply within {self.timeout:g} s"
            raise RetrieverError(f"{late}; see that it works, or add ?timeout=SECONDS") from None
        finally:
            done.cancel()  # where the caller was interrupted

    def _running(self) -> BlockingPortal:
        """The thread of the connections, begun with the first request."""
        with self._lock:
            if self._portal is None:
                stack = ExitStack()
                self._portal = stack.enter_context(start_blocking_portal(name="search client"))
                stack.enter_context(self._portal.wrap_async_context_manager(self._client))
                self._closing = weakref.finalize(self, _close, stack)
            return self._portal


class _UnknownError(RetrieverError):
    """The server does not know what it is asked for: it is of another make."""


def _url(address: str) -> httpx2.URL:
    """An address that can be asked; where it can't, it is not shown: it may hold a password."""
    try:
        url = httpx2.URL(address)
        url.host.encode("idna")  # as the resolver will
    except (httpx2.InvalidURL, ValueError):
        raise ConfigError("the search server's address can't be read") from None
    usable = (
        url.scheme in ("http", "https")
        and url.host
        and url.port != 0
        and (url.port or 80) < 1 << 16
    )
    if url.userinfo:
        raise ConfigError(f"an address holds no user and no password: {KEY_VARIABLE} holds a key")
    if not usable or url.fragment:
        raise ConfigError(f"the address of a search server is http://HOST:PORT, not {url.scheme}:…")
    return url


def _close(stack: ExitStack) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        stack.close()
    else:  # the last to use the retriever was the thread that is to end
        threading.Thread(target=stack.close, daemon=True).start()


def _batches(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """Texts in their order, cut by number and by length."""
    batch: list[str] = []
    length = 0
    for text in texts:
        if batch and (len(batch) >= most or length + len(text) > _CHARACTERS):
            yield batch
            batch, length = [], 0
        batch.append(text)
        length += len(text)
    yield batch
