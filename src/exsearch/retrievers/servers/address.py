"""An address says which collection of which server, as `kind://user@host:port/collection?option=…`.

It holds no secret: one that names a password is refused, because addresses are printed and written
into recipes. Keys and passwords come from environment variables.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from exsearch.errors import ConfigError
from exsearch.http_client import RETRIES, read_key

logger = logging.getLogger(__name__)

# The environment variable with the key or password for each kind of server.
SECRETS = {
    "elasticsearch": "ELASTICSEARCH_API_KEY",
    "http": "RETRIEVER_API_KEY",
    "https": "RETRIEVER_API_KEY",
    "milvus": "MILVUS_API_KEY",
    "opensearch": "OPENSEARCH_PASSWORD",
    "postgresql": "PGPASSWORD",
    "qdrant": "QDRANT_API_KEY",
}
TIMEOUT = 30.0  # seconds
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "")


@dataclasses.dataclass(frozen=True)
class Address:
    """The parts of a server's address.

    Attributes:
        kind: The kind of retriever: the scheme up to a `+`.
        transport: What follows the `+`, such as `https`; empty where nothing does.
        user: The name to sign in with; empty where there is none.
        host: The host, with its port where it has one; empty for a local socket or a file.
        path: What follows the host, without its first slash.
        options: The values behind the `?`, by name.
    """

    kind: str
    transport: str
    user: str
    host: str
    path: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str, takes: Sequence[str] = ()) -> Self:
        """The parts of an address.

        Args:
            text: The address.
            takes: The names of the options that there are beside `timeout` and `retries`.

        Raises:
            ConfigError: it is no address, has a password, or an option that there is not.
        """
        try:
            parts = urlsplit(text)
            _ = parts.port
            pairs = parse_qsl(parts.query, keep_blank_values=True)
        except ValueError as error:  # not shown: it may hold a password
            fault = type(error).__name__
            raise ConfigError(f"this can't be read as the address of a server ({fault})") from None
        options, host = dict(pairs), parts.netloc.rpartition("@")[2]
        kind, _, transport = parts.scheme.partition("+")
        if parts.password or "password" in options:
            raise ConfigError(
                f"the address of {kind} at {host} holds a password, which would get into logs and "
                f"recipes; leave it out and set {SECRETS[kind]}"
            )
        known = (*takes, "timeout", "retries")
        unknown = [name for name in options if name not in known]
        if unknown or len(options) < len(pairs):
            fault = f"there is no option {unknown[0]!r:.99}" if unknown else "an option comes twice"
            raise ConfigError(f"the address of {kind} at {host}: {fault}; it has {known}, once")
        path = parts.path.removeprefix("/")
        return cls(kind, transport, parts.username or "", host, path, options)

    def __str__(self) -> str:
        return f"{self.kind} at {self.host or 'this machine'}"

    def name(self, value: str, pattern: str, what: str, expected: str) -> str:
        """The name of a collection, checked.

        Args:
            value: The name.
            pattern: A regular expression of the names that the server takes.
            what: The server's word for a collection.
            expected: What a name must be, for the message.

        Raises:
            ConfigError: the name is missing, or none that the server takes.
        """
        if not re.fullmatch(pattern, value):
            raise ConfigError(f"{self}: {value[:99]!r} is no name of {what}; expected {expected}")
        return value

    @property
    def timeout(self) -> float:
        """Seconds for one request.

        Raises:
            ConfigError: the option is no number above 0.
        """
        return self._number("timeout", TIMEOUT, "seconds above 0", lambda value: value > 0)

    @property
    def retries(self) -> int:
        """Further attempts after a failure that may pass.

        Raises:
            ConfigError: the option is no whole number from 0.
        """
        expected = "a whole number from 0"
        whole = self._number("retries", RETRIES, expected, lambda v: v >= 0 and v == int(v))
        return int(whole)

    def secret(self) -> str:
        """The key or password for the server, from its environment variable; empty without one.

        Raises:
            ConfigError: it has signs that no key has.
        """
        variable = SECRETS[self.kind]
        value = read_key(variable)
        if value:
            plain = self.transport != "https" and self.host.rpartition(":")[0] not in _LOCAL
            how = f" unencrypted; use {self.kind}+https" if plain else ""
            logger.warning("%s gets the key in %s%s", self, variable, how)
        return value

    def _number(
        self, name: str, default: float, expected: str, right: Callable[[float], bool]
    ) -> float:
        text = self.options.get(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and right(value)):
            raise ConfigError(f"{self}: {name} is {text[:99]!r}, expected {expected}")
        return value


def secret_name(address: str) -> str:
    """The environment variable whose value goes to the server at an address; empty for none."""
    return SECRETS.get(address.partition(":")[0].partition("+")[0].lower(), "")
