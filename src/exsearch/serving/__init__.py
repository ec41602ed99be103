"""Serving is a searcher behind HTTP: one log of events a question, and many faces of it.

A request becomes a question (`questions`), whose events go into a log (`log`); each of `faces`
makes one protocol's replies of that log and of nothing else. The app (`app`) joins them behind a
gate (`gate`). One process serves, and all questions share one runner's batches.
"""

from __future__ import annotations

import dataclasses
import re

from exsearch.config import check_least, check_positive
from exsearch.errors import ConfigError

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?", re.IGNORECASE)
MAX_BODY = 1 << 20  # bytes
MAX_QUESTION = 20_000  # characters; longer ones fit no model


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """The settings of a server.

    Attributes:
        model: The name that clients ask for.
        max_questions: The most questions in hand at once, waiting ones among them; more are turned
            away.
        deadline: Seconds until a question is given up.
        kept: The number of answered questions that are remembered, for whoever asks for them again.
        public_url: The address under which clients reach the server, for links; empty takes the
            one that a request names.
        hosts: Names under which the server may be asked, beside those of this machine and the one
            in `public_url`.
        origins: Addresses of web pages elsewhere that may ask, such as `http://localhost:3000`.
        key: What a client has to send; empty lets everybody in.

    Raises:
        ConfigError: a key that no header carries, or an address that is none.
        ValueError: another value that can't be used.
    """

    model: str
    max_questions: int = 256
    deadline: float = 300.0
    kept: int = 1000
    public_url: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    key: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        check_least(self, max_questions=1, kept=0)
        check_positive(self, "deadline")
        if not self.key.isascii() or any(sign.isspace() for sign in self.key):
            raise ConfigError("the key has signs that no header carries; use letters and digits")
        for address in (*self.origins, *([self.public_url] if self.public_url else ())):
            if not _ADDRESS.fullmatch(address):
                raise ConfigError(f"{address!r:.99} is no address; write https://NAME[:PORT]")
