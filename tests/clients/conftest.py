"""Programs of other people ask real servers, with the world of the tests of serving."""

from answer_server import server, world
from asked_server import asked

from browser import chromium

__all__ = ["asked", "chromium", "server", "world"]
