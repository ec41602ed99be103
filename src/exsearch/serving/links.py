"""A link is the address at which a client finds a passage again.

It is made, never opened.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request


def passage_url(request: Request, id: str) -> str:
    """The address at which a client of a request finds a passage.

    Args:
        request: The request that is answered.
        id: The passage's id.
    """
    base = request.app.state.config.public_url or str(request.base_url)
    return f"{base.rstrip('/')}/passages/{quote(id, safe='')}"
