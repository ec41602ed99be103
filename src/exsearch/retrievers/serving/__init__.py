"""Serving is a retriever behind HTTP: processes that share one port and one memory map.

The first process listens and hands each connection to a worker in turn (`first`); a worker answers
requests (`worker`, `app`), and searches for those that wait in one batch (`batches`).
"""

from __future__ import annotations

import dataclasses

from exsearch.config import check_least, check_positive
from exsearch.retrievers.guarded import TIMEOUT


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """The settings of a search server.

    Attributes:
        place: The index folder, or the address of another server.
        workers: The number of processes that search.
        timeout: Seconds until a search counts as failed.
        max_queries: The most queries of a request.
        max_topk: The most passages a query.
        max_requests: The most requests that a worker has in hand; more are turned away.

    Raises:
        ValueError: a value that can't be used.
    """

    place: str
    workers: int = 1
    timeout: float = TIMEOUT
    max_queries: int = 256
    max_topk: int = 10_000
    max_requests: int = 256

    def __post_init__(self) -> None:
        check_least(self, workers=1, max_queries=1, max_topk=1, max_requests=1)
        check_positive(self, "timeout")
