"""An HTTP retriever finds what the server has, or says in one line why not."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_server import KEY, Answer, Body, FakeServer
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.errors import ConfigError, RetrieverError
from exsearch.records import Passage
from exsearch.retrievers import build_index, open_retriever
from exsearch.retrievers.http import HttpRetriever
from exsearch.retrievers.protocol import hits
from exsearch.retrievers.servers.address import secret_name
from search_server import search_server

QUERIES = ["Who wrote Peter Pan?", "the longest river", "", "zzzz", "Café São Paulo"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("http") / "index"
    build_index(read_corpus([sample_path("corpus")]), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with search_server(folder) as running:
        yield running.address


@pytest.fixture
def retriever(server: FakeServer) -> Iterator[HttpRetriever]:
    """In front of a server that replies by a script; two further attempts, at once."""
    retriever = HttpRetriever(f"http://{server.place}", timeout=20, retries=2)
    retriever._client._backoff = 0
    yield retriever
    retriever.close()


def reply(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def one_each(body: Body) -> Answer:
    """For each query a passage that is named by it."""
    lists = [hits([Passage(q, "", f"of {q}", 1.0)], True) for q in body["queries"]]
    return reply({"result": lists})


def failure(retriever: HttpRetriever, act: Callable[[HttpRetriever], Any] | None = None) -> str:
    with pytest.raises(RetrieverError) as error:
        (act or (lambda r: r.search(["q"], 3)))(retriever)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(retriever.place)
    return text


def test_it_finds_what_the_index_has_to_the_last_digit(folder: Path, address: str) -> None:
    local, remote = open_retriever(folder, cache=0), open_retriever(address, cache=0)
    for k in (1, 5, 1000):
        assert remote.search(QUERIES, k) == local.search(QUERIES, k)
    assert remote.search(QUERIES * 60, 2) == local.search(QUERIES * 60, 2)
    ids = [p.id for p in local.search(QUERIES[:2], 500)[0]] + ["none"]
    assert remote.fetch(ids) == local.fetch(ids)
    assert remote.identity() == local.identity()


def test_the_address_may_name_the_path(folder: Path, address: str) -> None:
    for form in (f"{address}/", f"{address}/retrieve", f"{address}/?timeout=30&retries=0&batch=2"):
        opened = open_retriever(form, cache=0)
        assert opened.search(QUERIES, 2) == open_retriever(folder).search(QUERIES, 2)
        assert opened.identity() == open_retriever(folder).identity()


def test_what_is_asked(server: FakeServer, retriever: HttpRetriever) -> None:
    server.script = one_each
    (found,) = retriever.search(["half \ud800"], 7)
    assert found == [Passage("half ?", "", "of half ?", 1.0)]
    assert server.bodies == [{"queries": ["half ?"], "topk": 7, "return_scores": True}]
    assert server.paths == ["/retrieve"]


def test_many_queries_go_in_batches(server: FakeServer) -> None:
    server.script = one_each
    retriever = HttpRetriever(f"http://{server.place}", batch=3)
    queries = [f"q{n}" for n in range(10)] + ["long" * 200_000, "last"]
    found = retriever.search(queries, 1)
    assert [passage.id for (passage,) in found] == queries
    sizes = sorted(len(body["queries"]) for body in server.bodies)
    assert sizes == [1, 1, 1, 3, 3, 3]
    server.bodies.clear()
    retriever.search(queries[:4], 5000)
    assert [len(body["queries"]) for body in server.bodies] == [2, 2]
    assert retriever.search([], 1) == []
    retriever.close()
    assert retriever.search(["again"], 1) == [[Passage("again", "", "of again", 1.0)]]


def test_failures_that_pass_change_nothing(server: FakeServer) -> None:
    fate = random.Random(5)
    lock = threading.Lock()
    faults: list[Answer] = [(500, {}, b""), (503, {"Retry-After": "0"}, b""), (429, {}, b"")]
    failed = 0

    def script(body: Body) -> Answer:
        nonlocal failed
        with lock:
            bad = fate.random() < 0.1
            failed += bad
        return fate.choice(faults) if bad else one_each(body)

    server.script = script
    retriever = HttpRetriever(f"http://{server.place}", batch=1)
    retriever._client._backoff = 0.001
    queries = [f"q{n}" for n in range(200)]
    assert [passage.id for (passage,) in retriever.search(queries, 1)] == queries
    assert failed > 5
    assert len(server.bodies) == 200 + failed


@pytest.mark.parametrize(
    ("answer", "requests", "words"),
    [
        ((500, {}, b"oh"), 3, r"HTTP 500 \(tried 3 times\); check the address"),
        ((408, {}, b""), 3, r"HTTP 408 \(tried 3 times\)"),
        ((429, {}, b""), 3, r"HTTP 429 \(tried 3 times\); the server has too much to do"),
        ((429, {"Retry-After": "90"}, b""), 1, r"asks to wait 90 s \(at most 20 are waited\)"),
        ((400, {}, b'{"error": "topk: \\u001b[31m"}'), 1, r'HTTP 400 \(.*topk: \\\\u001b'),
        ((404, {}, b""), 1, "HTTP 404; check the address: no /retrieve"),
        ((401, {}, b"secret"), 1, "HTTP 401; check the key in the environment variable RETRIEVER"),
        ((307, {"Location": "http://127.0.0.1:9/"}, b""), 1, "a redirect, which is not followed"),
        ((204, {}, b""), 1, "gave no JSON but b''"),
        ((200, {}, b"<html>"), 1, "gave no JSON but b'<html>'; is it a search server"),
        (reply([]), 1, "gave 0 lists of passages"),
        (reply({"result": []}), 1, "gave 0 lists of passages"),
        (reply({"error": "no index"}), 1, "no index"),
        ((200, {"Content-Encoding": "gzip"}, b"no gzip"), 3, r"DecodingError\) \(tried 3 times"),
        ((200, {"Content-Length": "99", "Connection": "close"}, b"[["), 3, "tried 3 times"),
    ],
)  # fmt: skip
def test_a_lasting_failure_is_one_clear_line(
    server: FakeServer, retriever: HttpRetriever, answer: Answer, requests: int, words: str
) -> None:
    server.script = lambda body: (answer[0], {**answer[1], "Connection": "close"}, answer[2])
    assert re.search(words, failure(retriever)), failure(retriever)
    assert len(server.bodies) == requests


def test_a_huge_reply_is_not_read(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exsearch.retrievers.http.MAX_LINE", 10_000)
    server.script = lambda body: (200, {}, b" " * 1_000_000)
    assert "a reply of more than 10,000 bytes" in failure(HttpRetriever(f"http://{server.place}"))
    assert len(server.bodies) == 1


def test_one_batch_that_fails_fails_the_search(server: FakeServer) -> None:
    server.script = lambda body: (400, {}, b"no") if "q3" in body["queries"] else one_each(body)
    retriever = HttpRetriever(f"http://{server.place}", batch=1)
    queries = [f"q{n}" for n in range(6)]
    assert "HTTP 400" in failure(retriever, lambda r: r.search(queries, 1))
    assert retriever.search(queries[:3], 1)


def test_a_server_that_is_not_there(server: FakeServer, retriever: HttpRetriever) -> None:
    server.server.server_close()
    for act in (None, lambda r: r.fetch(["a"]), lambda r: r.identity()):
        assert "can't be reached (ConnectError) (tried 3 times)" in failure(retriever, act)


def test_a_deadline_is_of_the_whole_search(server: FakeServer) -> None:
    def hang(body: Body) -> Answer:
        server.released.wait(60)
        return one_each(body)

    server.script = hang
    retriever = HttpRetriever(f"http://{server.place}", timeout=0.3, batch=1)
    start = time.monotonic()
    assert "no reply within 0.3 s" in failure(retriever, lambda r: r.search(["a"] * 20, 1))
    assert time.monotonic() - start < 5
    server.released.set()
    retriever.timeout = 30
    assert len(retriever.search(["a"] * 3, 1)) == 3


def test_a_slow_drip_does_not_outlive_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"
        start = time.monotonic()
        assert "no reply within 0.3 s" in failure(HttpRetriever(place, timeout=0.3))
        assert time.monotonic() - start < 5
        stop.set()
        thread.join()


def test_an_interrupted_search_gives_its_connection_back(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import concurrent.futures

    server.script = lambda body: server.released.wait(60) and None
    retriever = HttpRetriever(f"http://{server.place}")
    retriever._running()
    with monkeypatch.context() as patch:
        patch.setattr(concurrent.futures.Future, "result", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            retriever.search(["a"], 1)
    server.released.set()
    server.script = one_each
    assert retriever.search(["b"], 1)[0][0].id == "b"


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_threads_share_the_connections(server: FakeServer, retriever: HttpRetriever) -> None:
    server.script = one_each
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        queries = [f"{number}-{n}" for n in range(100)]
        found[number] = [passage.id for (passage,) in retriever.search(queries, 1)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [f"{n}-{i}" for i in range(100)] for n in range(8)}


def test_a_server_of_another_make(server: FakeServer, retriever: HttpRetriever) -> None:
    server.script = lambda body: one_each(body) if "queries" in body else (404, {}, b"")
    assert retriever.search(["a"], 1)
    assert "gives no passages by id" in failure(retriever, lambda r: r.fetch(["a"]))
    assert retriever.identity() == f"http://{server.place}"  # it answers no GET at all


def test_a_key_is_sent_and_never_shown(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETRIEVER_API_KEY", KEY)
    server.script = one_each
    retriever: Any = open_retriever(f"http://{server.place}", cache=0)
    assert retriever.search(["a"], 1)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.script = lambda body: (400, {}, f"bad {KEY}".encode())
    assert "***" in failure(retriever)
    server.script = lambda body: (401, {}, f"bad {KEY[:8]}".encode())
    assert KEY[:8] not in failure(retriever)
    assert caplog.messages == [f"http://{server.place} gets the key in RETRIEVER_API_KEY"]
    open_retriever("http://search.example")
    assert "http://search.example gets the key in RETRIEVER_API_KEY unencrypted" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("http://", "http://HOST:PORT"),
        ("http://host:99999", "http://HOST:PORT"),
        ("http://user:s3cret@host", "no user and no password: RETRIEVER_API_KEY holds"),
        ("http://s3cret@host", "no user and no password"),
        ("http://user:s3cret@[::1", "can't be read"),
        ("http://host:0", "http://HOST:PORT"),
        ("http://host/#s3cret", "http://HOST:PORT"),
        ("http://host?key=s3cret", "key= is no setting of a search server's address: timeout, ret"),
        ("http://host?timeout=long", "timeout=long: expected a number"),
        ("http://host?timeout=0", "expected timeout > 0"),
        ("http://host?timeout=nan", "expected timeout > 0"),
        ("http://host?retries=-1", "retries >= 0"),
        ("http://host?batch=0", "batch >= 1"),
    ],
)
def test_an_address_that_can_not_be_used(place: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        open_retriever(place)
    assert "s3cret" not in str(error.value)


def test_who_gets_the_key_is_told_before_a_recipe_sends_it() -> None:
    for address in ("http://host", "HTTPS://host"):
        assert secret_name(address) == "RETRIEVER_API_KEY"


def test_such_a_server_can_not_be_filled() -> None:
    with pytest.raises(ConfigError, match="serve-retriever"):
        build_index([Passage("a", "", "x")], "http://localhost:1", progress=False)
