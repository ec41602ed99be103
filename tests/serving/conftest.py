"""A world and a server that all tests of serving share."""

from answer_server import server, world

__all__ = ["server", "world"]
