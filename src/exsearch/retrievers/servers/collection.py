"""A collection holds one corpus at a server: how it is asked, and what it says of itself.

Each kind of server fills in the abstract methods. They may fail as their client fails: `asked`
tries again what may pass, and makes a `RetrieverError` of the rest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

from exsearch.errors import IndexDamagedError, RetrieverError
from exsearch.http_client import BACKOFF
from exsearch.json_files import check_shape, parse_json
from exsearch.records import Passage
from exsearch.retrievers.servers.address import Address

if TYPE_CHECKING:
    from exsearch.retrievers.encoder import Encoder

Given = ParamSpec("Given")
Result = TypeVar("Result")

BUSY = (429, 502, 503, 504)  # HTTP: too much to do, or no server behind the gate
MOST_ID = 512  # bytes: what every server takes as a key
_VERSION = 1
_MOST_SAID = 300  # characters of a server's message


class Row(NamedTuple):
    """A passage as a server keeps it.

    Attributes:
        id: The passage's id.
        title: Its title.
        text: Its text.
        hash: `content_hash` of the passage, which shows later that it is still the same. Where the
            passage has a `url`, a blank and the URL follow, so servers need no field for it.
        score: The score of a search, higher is better; 0 outside one.
    """

    id: str
    title: str
    text: str
    hash: str
    score: float = 0.0

    @classmethod
    def of(cls, passage: Passage) -> Self:
        """The row of a passage; half a surrogate pair, which is no text, becomes a `?`."""
        parts = (passage.id, passage.title, passage.text)
        id_, title, text = (part.encode("utf-8", "replace").decode() for part in parts)
        hash_ = content_hash(id_, title, text, passage.url)
        return cls(id_, title, text, f"{hash_} {passage.url}".rstrip())

    def passage(self, score: float | None) -> Passage | None:
        """The passage of a row; None where it is no longer the same.

        Args:
            score: The score of the search that found it; None outside one.
        """
        hash_, _, url = self.hash.partition(" ")
        if hash_ != content_hash(self.id, self.title, self.text, url):
            return None
        return Passage(self.id, self.title, self.text, score, url)


def content_hash(id_: str, title: str, text: str, url: str = "") -> str:
    """32 hexadecimal digits that name an id, a title, a text and, where there is one, a URL."""
    texts = [id_, title, text, *([url] if url else [])]
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a collection says of itself.

    Attributes:
        settings: The settings that it was made with.
        passages: The number of passages; 0 while it is being filled.
        sha256: The hash of the hashes of all passages in their order; empty while it is being
            filled.
    """

    settings: dict[str, Any]
    passages: int = 0
    sha256: str = ""

    def dump(self) -> str:
        """The facts as a text for `load`."""
        return json.dumps({"exsearch": _VERSION, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Self:
        """The facts that `dump` wrote.

        Raises:
            ValueError: it is another text.
        """
        shape = {"exsearch": int, "settings": dict, "passages": int, "sha256": str}
        value = check_shape(parse_json(text), shape)
        if value.pop("exsearch") != _VERSION or set(value) != set(shape) - {"exsearch"}:
            raise ValueError("of another version")
        return cls(**value)


class Collection(ABC):
    """One collection of one server; threads may share it.

    A kind of server is made from the text of an address, and gives its parts to this class.

    Args:
        address: Where the server is.
        name: The name of the collection.

    Attributes:
        address: Where the server is.
        name: The name of the collection.
        failures: What the client raises where the server fails.
        most: The most passages that one search gives.
        secrets: What no message may repeat.
        filling: True while it is filled, when a request may take longer than a search.
    """

    failures: ClassVar[tuple[type[Exception], ...]]
    most: ClassVar[int] = 10_000
    secrets: tuple[str, ...] = ()
    filling = False

    def __init__(self, address: Address, name: str):
        self.address, self.name = address, name

    def __str__(self) -> str:
        return f"{self.address}, {self.name}"

    @abstractmethod
    def stands(self) -> str | None:
        """The text of the facts; empty where it has none, None where there is no collection."""

    @abstractmethod
    def create(self, facts: Facts) -> None:
        """Make the collection, empty, with its facts."""

    @abstractmethod
    def settle(self) -> None:
        """Make all that was written searchable; it may be called again."""

    @abstractmethod
    def keep(self, facts: Facts) -> None:
        """Put new facts in the place of the old ones."""

    @abstractmethod
    def count(self) -> int:
        """The number of passages that it holds."""

    @abstractmethod
    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """The `content_hash` of each of these passages that it holds, by id."""

    @abstractmethod
    def write(self, rows: Sequence[Row], settings: dict[str, Any]) -> None:
        """Write passages whose ids are new; also those that an attempt before has written."""

    @abstractmethod
    def search(self, queries: Sequence[str], k: int, settings: dict[str, Any]) -> list[list[Row]]:
        """What the server finds for each query, best first."""

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> list[Row]:
        """The passages with these ids, in any order."""

    @abstractmethod
    def may_pass(self, error: Exception) -> bool:
        """Whether a failure may be gone at another attempt, and was no lack of time."""

    def refuse(self, row: Row) -> str:
        """Why the server can't keep a passage; empty where it can."""
        if len(row.id.encode()) > MOST_ID:
            return f"its id has more than {MOST_ID} bytes"
        return "NUL stands in it" if "\0" in row.id + row.title + row.text else ""

    @cached_property
    def encoder(self) -> Encoder | None:
        """The encoder that the address names; None without one: then words are compared.

        Raises:
            ModelError, MissingExtraError: it can't be loaded.
        """
        name = self.address.options.get("encoder")
        if not name:
            return None
        from exsearch.retrievers.encoder import Encoder

        return Encoder.open(name)

    @property
    def encoded(self) -> str:
        """The identity of the encoder; empty without one."""
        return self.encoder.identity if self.encoder else ""

    def vectors(self, rows: Sequence[Row]) -> list[list[float]]:
        """The vectors of passages; empty ones without an encoder."""
        if self.encoder is None:
            return [[] for _ in rows]
        from exsearch.retrievers.encoder import passage_text

        texts = [passage_text(Passage(row.id, row.title, row.text)) for row in rows]
        return self.encoder.passages(texts).tolist()

    def asked(
        self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """What a piece of work gives, with further attempts after a failure that may pass.

        Raises:
            RetrieverError: it failed for good; one line with the host and what to do.
        """
        attempt, retries = 0, self.address.retries
        while True:
            try:
                return work(*args, **kwargs)
            except self.failures as error:
                attempt += 1
                if attempt > retries or not self.may_pass(error):
                    remedy = "see that it runs and that the address is right"
                    said = self._said(error)
                    raise RetrieverError(f"{self}: {said} (attempt {attempt}); {remedy}") from None
            except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
                what = f"its reply can't be read ({type(error).__name__}: {self._said(error)})"
                raise RetrieverError(f"{self}: {what}; is it such a server?") from error
            time.sleep(BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))

    def facts(self) -> Facts:
        """The facts of a collection that is whole.

        Raises:
            IndexDamagedError: there is none, another's, or one that was not filled to its end.
            RetrieverError: the server failed.
        """
        fill = "fill it with `exsearch index … --to`"
        text = self.asked(self.stands)
        if text is None:
            raise IndexDamagedError(f"{self}: nothing stands there; {fill}")
        try:
            facts = Facts.load(text)
        except ValueError as error:
            message = f"{self}: not filled by this exsearch ({error}); name another"
            raise IndexDamagedError(message) from None
        if not facts.sha256:
            raise IndexDamagedError(f"{self}: filled in part only; run `exsearch index` again")
        if self.encoder and facts.settings.get("encoder") != self.encoded:
            message = f"{self}: it was filled without this encoder"
            raise IndexDamagedError(f"{message}; name the one that it was filled with, or none")
        count = self.asked(self.count)
        if count != facts.passages:
            message = f"{self}: it holds {count} passages where {facts.passages} were filled in"
            raise IndexDamagedError(f"{message}; remove it there, and {fill}")
        return facts

    def _said(self, error: Exception) -> str:
        """What an error says, on one line and without secrets."""
        text = "".join(sign if sign.isprintable() else " " for sign in str(error))
        for secret in filter(None, self.secrets):
            text = text.replace(secret, "***")
        text = " ".join(text.encode(errors="replace").decode().split())
        return text[:_MOST_SAID] or type(error).__name__
