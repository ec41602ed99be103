"""Programs of other people ask a real server, with the world of the tests of serving."""

from answer_server import server, world

__all__ = ["server", "world"]
