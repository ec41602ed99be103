"""A link is the address at which a client finds a passage again.

It is made, never opened.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from exsearch.agent.cited import Mark
from exsearch.records import Passage


def passage_url(request: Request, passage: Passage) -> str:
    """The address at which people find a passage: what the corpus says, else the server's own.

    Args:
        request: The request that is answered.
        passage: The passage.
    """
    return passage.url or own_url(request, passage.id)


def own_url(request: Request, id: str) -> str:
    """The address at which this server tells a client of a request of a passage.

    Args:
        request: The request that is answered.
        id: The passage's id.
    """
    base = request.app.state.config.public_url or str(request.base_url)
    return f"{base.rstrip('/')}/passages/{quote(id, safe='')}"


def url_citation(request: Request, mark: Mark) -> dict[str, Any]:
    """What OpenAI's APIs say of a number in the text: its place, and the passage it stands for.

    Args:
        request: The request that is answered.
        mark: The number.
    """
    passage = mark.source.passage
    return {
        "start_index": mark.start,
        "end_index": mark.end,
        "title": passage.title or passage.id,
        "url": passage_url(request, passage),
    }
