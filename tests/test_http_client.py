"""What may pass is asked again, later each time; the rest is told at once."""

from __future__ import annotations

import datetime
import email.utils

import httpx2
import pytest

from exsearch.http_client import FailedRequest, HttpClient, Unanswered, retry_after


def test_the_wait_grows_and_is_limited() -> None:
    client = HttpClient("a server", max_bytes=1, connections=1, backoff=1.0, max_wait=10.0)
    for attempt, (low, high) in enumerate([(0.5, 1.5), (1, 3), (2, 6), (4, 10), (8, 10)]):
        assert low <= client._wait(Unanswered("busy"), attempt) <= high
    assert client._wait(Unanswered("busy", 429, 7.0), 0) == 7.0
    with pytest.raises(FailedRequest, match=r"busy, and asks to wait 11 s \(at most 10 are waited"):
        client._wait(Unanswered("busy", 429, 11.0), 0)


def test_a_server_says_when_to_come_again() -> None:
    now = datetime.datetime.now(datetime.UTC)
    later = email.utils.format_datetime(now + datetime.timedelta(seconds=60))
    seconds = retry_after(httpx2.Headers({"Retry-After": later}))
    assert seconds is not None
    assert 50 < seconds <= 60
    assert retry_after(httpx2.Headers({"Retry-After": "7"})) == 7.0
    assert retry_after(httpx2.Headers({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})) == 0
    assert retry_after(httpx2.Headers({"Retry-After": "soon"})) is None
    assert retry_after(httpx2.Headers({})) is None


@pytest.mark.parametrize(
    ("status", "body", "quoted"),
    [
        (404, b"no\n such  \x1b[31mplace", r" ('no such \x1b[31mplace')"),
        (400, b"bad s3cret", " ('bad ***')"),
        (401, b"bad s3cret", ""),
        (500, b"", ""),
        (400, b"\xff" * 5000, " ('" + "\ufffd" * 200 + "')"),
    ],
)
def test_what_a_server_said_is_one_short_line_without_the_secret(
    status: int, body: bytes, quoted: str
) -> None:
    assert FailedRequest("HTTP", status, body).quoted("s3cret") == quoted
