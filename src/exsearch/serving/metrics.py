"""Metrics are what a server tells Prometheus about requests and questions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from exsearch.agent.events import EventKind
from exsearch.serving.log import QuestionLog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)


class Metrics:
    """The counters of one server.

    Attributes:
        requests: Counts requests, by route and status.
        in_flight: The number of requests in hand.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "exsearch_requests", "Requests.", ("route", "status"), registry=registry
        )
        self.in_flight = Gauge("exsearch_requests_in_flight", "Requests.", registry=registry)
        self._questions = Counter(
            "exsearch_questions", "Questions, by why they ended.", ("end",), registry=registry
        )
        self._seconds = Histogram(
            "exsearch_question_seconds", "Seconds a question.", buckets=_SECONDS, registry=registry
        )
        self._searches = Counter("exsearch_searches", "Searches.", registry=registry)
        self._tokens = Counter(
            "exsearch_tokens", "Tokens read and written.", ("kind",), registry=registry
        )

    def count(self, log: QuestionLog) -> None:
        """Count a question that has ended."""
        trajectory = log.trajectory
        self._questions.labels(trajectory.stop_reason.value if trajectory else "given_up").inc()
        self._searches.inc(sum(event.kind is EventKind.SEARCH for event in log.events))
        if trajectory:
            self._seconds.observe(trajectory.seconds)
            self._tokens.labels("prompt").inc(trajectory.prompt_tokens)
            self._tokens.labels("output").inc(trajectory.output_tokens)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
