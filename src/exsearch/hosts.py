"""A host is asked only because the user named it, never because a file or a folder names it.

It makes no request; whoever follows an address that stands in a text asks here first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

VARIABLE = "EXSEARCH_ALLOW_HOST"  # hosts that the user named, with blanks between them

# Anything else may send a client elsewhere than it seems.
_PLAIN = re.compile(
    r"[a-z][a-z0-9+.-]*://([\w.%+-]+@)?([\w.-]+|\[[\da-f:.]+\])?(:\d*)?([/?][^#\\@]*)?", re.I
)
_OTHER_HOST = re.compile(r"[?&;]host\w*=(?!/|%2f)", re.I)  # but for the folder of a socket


def named_hosts() -> frozenset[str]:
    """The hosts that the user named by the environment."""
    return frozenset(os.environ.get(VARIABLE, "").split())


def host_of(address: str) -> str:
    """The host that an address leads to, by its name; the whole address where it is not plain.

    Args:
        address: An address such as `http://localhost:8000`.

    Returns:
        The host; empty for a file or a socket of this machine.
    """
    if not _PLAIN.fullmatch(address) or _OTHER_HOST.search(address):
        return address
    parts = urlsplit(address)
    return parts.hostname or (address if parts.scheme in ("http", "https") else "")


def is_named(host: str, hosts: Iterable[str]) -> bool:
    """True where a host is this machine's or one of those that the user named, in capitals or not.

    Args:
        host: What `host_of` gave.
        hosts: The hosts that the user named.
    """
    return not host or host.lower() in (named.lower() for named in hosts)
