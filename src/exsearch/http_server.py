"""What servers of this package have in common: an address to listen on, and a bound on a body.

What they answer is their own matter. It is the other end of `http_client`.
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal

from exsearch.errors import ConfigError, MissingExtraError

GRACE = 30  # seconds for requests in hand when a server is asked to stop

if TYPE_CHECKING:
    import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_PACKAGES = ("fastapi", "prometheus_client", "uvicorn")
ALL_PACKAGES = (*_PACKAGES, "mcp", "opentelemetry")  # of the server that answers questions
JUDGE_PACKAGES = (*_PACKAGES, "nltk")
REPORT_PACKAGES = (*_PACKAGES, "matplotlib")


def check_installed(what: str, packages: tuple[str, ...] = _PACKAGES, extra: str = "serve") -> None:
    """Make sure that a server's packages are there, before anything is loaded for it.

    Args:
        what: The command that serves.
        packages: The packages that it imports.
        extra: The name of the extra that has them.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(what, extra, f"no {', '.join(missing)}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: The name or number of the interface to listen on.
        port: The port; 0 takes a free one.

    Raises:
        ConfigError: the port can't be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "; choose another --port (0 takes a free one)" if taken else ""
        reason = str(error.strerror).partition(" (")[0]
        raise ConfigError(f"can't listen on {host}, port {port}: {reason}{remedy}") from None
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a server that listens here, such as `http://127.0.0.1:8000`."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """True where only this machine reaches a socket."""
    host = listener.getsockname()[0]
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def uvicorn_config(app: Any, *, lifespan: Literal["on", "off"] = "off") -> uvicorn.Config:
    """How uvicorn runs a server of this package: it writes no log, and lets requests in hand end.

    Args:
        app: The ASGI app.
        lifespan: Whether the app wants to be told of the server's start and end.
    """
    import uvicorn

    return uvicorn.Config(
        app,
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than a client's, so that it is the client who ends
        timeout_graceful_shutdown=GRACE,
    )


def bounded(receive: Receive, most: int) -> Receive:
    """What a request's body brings, up to a limit.

    Args:
        receive: The ASGI function that gives the body.
        most: The most bytes of a body.

    Returns:
        A function like `receive`, which raises starlette's HTTPException 413 above the limit.
    """
    from starlette.exceptions import HTTPException

    length = 0

    async def receive_some() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > most:
            raise HTTPException(413, f"a body of more than {most:,} bytes")
        return message

    return receive_some
