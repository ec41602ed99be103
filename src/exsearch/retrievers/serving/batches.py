"""A batch is what waited together: queries of several requests that are searched in one call.

Nothing waits for a batch to fill: while one is searched for, the next gathers. So a model that
embeds queries sees many at a time under load, and a lone request goes at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from exsearch.errors import RetrieverError
from exsearch.retrievers.guarded import Found, GuardedRetriever

_Waiting = tuple[list[tuple[str, int]], asyncio.Future[list[Found]]]


class Batches:
    """Searches for those that wait, one batch at a time; for one event loop.

    Args:
        retriever: The retriever that searches.
        most: The number of queries at which a batch takes in no further request.
    """

    def __init__(self, retriever: GuardedRetriever, most: int):
        self._retriever, self._most = retriever, most
        self._waiting: deque[_Waiting] = deque()
        self._searching: asyncio.Task[None] | None = None

    async def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """The passages for each query, or its own error.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query.
        """
        done: asyncio.Future[list[Found]] = asyncio.get_running_loop().create_future()
        self._waiting.append(([(query, k) for query in queries], done))
        if self._searching is None:
            self._searching = asyncio.create_task(self._search_all())
        return await done

    async def _search_all(self) -> None:
        try:
            while self._waiting:
                await self._search_next()
        finally:
            self._searching = None

    async def _search_next(self) -> None:
        batch: list[_Waiting] = []
        looks: list[tuple[str, int]] = []
        while self._waiting and len(looks) < self._most:
            batch.append(self._waiting.popleft())
            looks += batch[-1][0]
        found: list[Found]
        try:
            found = await asyncio.to_thread(self._retriever.begin(looks))
        except Exception as error:
            found = [RetrieverError(f"the search failed: {error!r:.200}") for _ in looks]
        for own, done in batch:
            if not done.done():  # else who asked has gone
                done.set_result(found[: len(own)])
            found = found[len(own) :]
