"""Metrics are what a search server tells Prometheus: the sums over all of its workers.

Each worker counts in files of its own, which whoever is asked adds up.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one process; they add up over processes that share a folder.

    Attributes:
        requests: Counts requests, by path and status.
        seconds: The times of requests, by path.
        in_flight: The number of requests in hand.
        queries: Counts queries.
        failed: Counts queries whose search failed.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("exsearch_requests", "Requests.", labels, registry=registry)
        self.seconds = Histogram(
            "exsearch_request_seconds", "Seconds a request.", ("path",), registry=registry
        )
        self.in_flight = Gauge(
            "exsearch_requests_in_flight",
            "Requests in hand.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queries = Counter("exsearch_queries", "Queries.", registry=registry)
        self.failed = Counter(
            "exsearch_failed_queries", "Queries whose search failed.", registry=registry
        )

    def text(self) -> bytes:
        """The metrics of all processes, in Prometheus' text format."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)
