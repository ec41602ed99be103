"""The gate stands before the app: it lets in who may ask, bounds bodies, counts and writes a log.

It knows nothing of questions.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exsearch.http_server import bounded
from exsearch.serving import MAX_BODY, ServeConfig
from exsearch.serving.metrics import Metrics
from exsearch.serving.refusals import Refusal

logger = logging.getLogger(__name__)

OPEN = ("/healthz", "/readyz")  # answered without a key
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")
_REQUEST_ID = re.compile(r"[\w-]{1,64}")


class Gate:
    """An ASGI app in front of another one.

    Args:
        app: The app behind it.
        config: Who may ask.
        metrics: The counters.
        only_here: True where no option lets others in, so that none is named to them.
    """

    def __init__(
        self, app: ASGIApp, config: ServeConfig, metrics: Metrics, *, only_here: bool = False
    ):
        self._app, self._config, self._metrics = app, config, metrics
        self._only_here = only_here
        public = [config.public_url] if config.public_url else []
        self._hosts = {*_OWN_NAMES, *map(str.lower, config.hosts), *map(_host, public)}
        self._origins = {_origin(address) for address in (*config.origins, *public)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":  # no websocket is served
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        id_ = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        start, status = time.perf_counter(), 499  # as nginx has it: who asked has gone

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", id_.encode())]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            refused = None if scope["path"] in OPEN else self._refused(headers)
            if refused:
                await refused.response(scope, receive, send_on)
            else:
                await self._app(scope, bounded(receive, MAX_BODY), send_on)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # the app puts it there
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(route, str(status)).inc()
            seconds = time.perf_counter() - start
            logger.info("%s %s %s %s %.3f s", id_, scope["method"], route, status, seconds)

    def _refused(self, headers: Headers) -> Refusal | None:
        """Why a request is turned away; None where it is let in."""
        host = headers.get("host", "").lower()
        if _host(f"//{host}") not in self._hosts:
            return self._not_let_in("under a name that is not served", "--host-name NAME names it")
        origin = headers.get("origin")
        own = origin is None or urlsplit(origin.lower()).netloc == host
        if not own and _origin(origin or "") not in self._origins:
            return self._not_let_in("from another site's page", "--allow-origin ADDRESS lets it in")
        if self._config.key and not self._known(headers.get("authorization", "")):
            return Refusal(
                401,
                "a key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Basic realm="exsearch: the key is the password"'},
            )
        return None

    def _not_let_in(self, how: str, option: str) -> Refusal:
        here = "this page is for this machine alone, at http://127.0.0.1 and its port"
        return Refusal(403, f"asked {how}; {here if self._only_here else option}")

    def _known(self, authorization: str) -> bool:
        """Whether the right key is given, as a bearer's or, by a browser, as a password."""
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._config.key.encode())


def _origin(address: str) -> str:
    """The scheme, name and port of an address, as a browser has them in `Origin`."""
    return "/".join(address.lower().split("/", 3)[:3])


def _host(address: str) -> str:
    """The name of the host in an address, in small letters; empty where there is none."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
