"""An endpoint's settings are where a chat model behind HTTP is, and how it is asked.

They stand apart from `endpoint` so that a recipe can be read without an HTTP client. Nothing is
asked here.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any
from urllib.parse import urlsplit

from exsearch.errors import ConfigError

_OWN_FIELDS = ("model", "messages", "stream", "n")
_KEY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*_API_KEY")


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """The settings of a chat model behind HTTP.

    Attributes:
        base_url: The address of an OpenAI-compatible service, such as `http://localhost:8000/v1`.
        model: The service's name for the model.
        api_key_env: The environment variable that holds the key, whose name ends in `_API_KEY`; it
            may be unset where none is needed.
        temperature: The temperature of sampling; None sends none but the request's own. A teacher
            without one samples at 1.
        max_tokens: The most tokens that a reply may take, whatever a request says; 0 leaves it to
            the request.
        extra: More fields of the request, such as `{max_completion_tokens = 2000}`.
        concurrency: The number of questions asked side by side.
        timeout: Seconds for one attempt, from connecting to the last byte.
        retries: The number of further attempts after 408, 429, 5xx, a timeout, a failed connection
            or a reply that is no chat completion.
        backoff: Seconds before the first further attempt; they double with each one.
        max_wait: The most seconds between attempts; a service that asks for more ends the work.

    Raises:
        ConfigError: a value that can't be used.
    """

    base_url: str = ""
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = None
    max_tokens: int = 512
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    concurrency: int = 4
    timeout: float = 120.0
    retries: int = 5
    backoff: float = 1.0
    max_wait: float = 120.0

    # Without annotations, so that they are no fields: what messages call the model and where they
    # send a reader who is to change something.
    role = "model"
    settings = "--base-url http://HOST:PORT/v1, --model and --api-key-env, or [model]"

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(f"{self.role}.model is missing: {self.settings} name it")
        if not _is_plain_url(self.base_url):  # not shown: it may hold a key
            raise ConfigError(
                f"{self.role}.base_url must be http(s)://host[:port]/path, without user, key or "
                f"query; see {self.settings}"
            )
        if not _KEY_NAME.fullmatch(self.api_key_env):  # not shown: it may be the key itself
            raise ConfigError(
                f"{self.role}.api_key_env must be the name of an environment variable that ends in "
                "_API_KEY: no other is ever sent"
            )
        if own := [name for name in _OWN_FIELDS if name in self.extra]:
            raise ConfigError(f"{self.role}.extra may not set {own[0]!r}")
        for name, least in (("concurrency", 1), ("retries", 0), ("backoff", 0), ("max_tokens", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise ConfigError(f"{self.role}.{name} is {value}, expected >= {least}")
        if not self.timeout > 0:
            raise ConfigError(f"{self.role}.timeout is {self.timeout}, expected seconds above 0")


def _is_plain_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        plain = url.port != 0 and not (url.username or url.password or url.query or url.fragment)
    except ValueError:
        return False
    return plain and url.scheme in ("http", "https") and bool(url.hostname)
