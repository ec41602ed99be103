"""A search server answers what is asked, refuses the rest, and stops when it is told to."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.retrievers import build_index, open_retriever
from search_server import COMMAND, search_server
from started_server import StartedServer

QUERIES = ["Who wrote Peter Pan?", "the longest river", ""]
LIMITS = ("--max-queries", 4, "--max-topk", 50)
STOP_SECONDS = 30  # on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "index"
    build_index(read_corpus([sample_path("corpus")]), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[StartedServer]:
    with search_server(folder, "--workers", 2, *LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: StartedServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=running.address, timeout=60, trust_env=False) as client:
        yield client


def test_both_forms_of_reply(client: httpx2.Client, folder: Path) -> None:
    local = open_retriever(folder, cache=0).search(QUERIES, 2)
    asked = {"queries": QUERIES, "topk": 2}
    with_scores = client.post("/retrieve", json={**asked, "return_scores": True}).json()
    plain = client.post("/retrieve", json={**asked, "mode": "passed over"}).json()
    documents = [
        [{"id": p.id, "title": p.title, "contents": f'"{p.title}"\n{p.text}'} for p in found]
        for found in local
    ]
    assert plain == {"result": documents}
    scores = [[hit["score"] for hit in found] for found in with_scores["result"]]
    assert scores == [[p.score for p in found] for found in local]
    assert [[hit["document"] for hit in found] for found in with_scores["result"]] == documents


def test_three_passages_where_no_number_is_asked_for(client: httpx2.Client) -> None:
    for asked in ({"queries": QUERIES[:1]}, {"queries": QUERIES[:1], "topk": None}):
        (found,) = client.post("/retrieve", json=asked).json()["result"]
        assert len(found) == 3


def test_passages_by_id(client: httpx2.Client, folder: Path) -> None:
    (found,) = open_retriever(folder).search(QUERIES[:1], 2)
    asked = {"ids": [found[1].id, "none", found[0].id]}
    one, none, other = client.post("/fetch", json=asked).json()["result"]
    assert (one["id"], none, other["id"]) == (found[1].id, None, found[0].id)


def test_it_says_what_it_serves(client: httpx2.Client, folder: Path) -> None:
    assert client.get("/identity").json() == {"identity": open_retriever(folder).identity()}
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"queries": ["q"], "topk": "3"}, 400, "topk"),
        ({"queries": ["q"], "topk": True}, 400, "topk"),
        ({"queries": ["q"], "topk": 3.0}, 400, "topk"),
        ({"queries": ["q"], "topk": 0}, 400, "topk"),
        ({"queries": ["q"], "topk": -1}, 400, "topk"),
        ({"queries": ["q"], "topk": 51}, 413, "topk"),
        ({"queries": ["q"], "topk": 10**30}, 413, "topk"),
        ({"queries": ["q"], "return_scores": 1}, 400, "return_scores"),
        ({"queries": ["q"], "return_scores": "true"}, 400, "return_scores"),
        ({"queries": "q"}, 400, "queries"),
        ({"queries": None}, 400, "queries"),
        ({"queries": {"0": "q"}}, 400, "queries"),
        ({"queries": ["q", 1]}, 400, "queries.1"),
        ({"queries": [["q"]]}, 400, "queries.0"),
        ({"queries": [None]}, 400, "queries.0"),
        ({"queries": ["q"] * 5}, 413, "queries"),
        ({"queries": ["q", "x" * 1_000_001]}, 413, "queries.1"),
        ({"query": "q"}, 400, "queries"),
        ({}, 400, "queries"),
    ],
)
def test_what_is_no_query_is_refused(
    client: httpx2.Client, body: Any, status: int, field: str
) -> None:
    response = client.post("/retrieve", json=body)
    assert (response.status_code, response.json()["field"]) == (status, field)
    assert field in response.json()["error"]
    assert len(response.text) < 400
    (longest,) = client.post("/retrieve", json={"queries": ["q" * 1_000_000]}).json()["result"]
    assert longest == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b'"q"', b"\xff", b"[" * 200_000, b'{"queries": ["\\ud800"]}'],
    ids=range(8),
)
def test_what_is_no_object_is_refused(client: httpx2.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/retrieve", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]


def test_a_web_page_can_not_ask(client: httpx2.Client) -> None:
    """A form that a browser sends without asking first has another content type."""
    body = json.dumps({"queries": ["q"]})
    for type_ in ("text/plain", "application/x-www-form-urlencoded"):
        response = client.post("/retrieve", content=body, headers={"Content-Type": type_})
        assert response.status_code == 400
        assert "application/json" in response.json()["error"]
        assert "access-control-allow-origin" not in response.headers


def test_a_long_body_is_refused(client: httpx2.Client) -> None:
    body = b'{"queries": ["' + b"x" * 17_000_000 + b'"]}'
    try:
        response = client.post(
            "/retrieve", content=body, headers={"Content-Type": "application/json"}
        )
    except (httpx2.WriteError, httpx2.ReadError):
        return  # it hung up before all was sent
    assert response.status_code == 413
    assert response.json() == {"error": "a body of more than 16,000,000 bytes"}


def test_other_addresses_and_methods(client: httpx2.Client) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/retrieve", 405),
        ("POST", "/health", 405),
        ("GET", "/docs", 404),
        ("GET", "/../../etc/passwd", 404),
    ):
        response = client.request(method, path)
        assert (response.status_code, list(response.json())) == (status, ["error"])


def counts(client: httpx2.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_metrics_are_the_sums_over_the_workers(running: StartedServer) -> None:
    def ask(number: int) -> None:
        with httpx2.Client(base_url=running.address, timeout=60, trust_env=False) as own:
            for _ in range(5):
                own.post("/retrieve", json={"queries": QUERIES}).raise_for_status()
            assert own.post("/retrieve", json={"queries": 1}).status_code == 400

    with httpx2.Client(base_url=running.address, timeout=60, trust_env=False) as other:
        before = counts(other)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, range(8)))
        for _ in range(2):  # whichever worker is asked
            with httpx2.Client(base_url=running.address, timeout=60, trust_env=False) as one:
                after = counts(one)
            added = {name: after[name] - before.get(name, 0) for name in after}
            assert added["exsearch_queries_total"] == 120
            assert added["exsearch_failed_queries_total"] == 0
            ok, bad = (
                f'exsearch_requests_total{{path="/retrieve",status="{s}"}}' for s in (200, 400)
            )
            assert (added[ok], added[bad]) == (40, 8)
            assert added['exsearch_request_seconds_count{path="/retrieve"}'] == 48
            assert added['exsearch_request_seconds_sum{path="/retrieve"}'] > 0
            assert after["exsearch_requests_in_flight"] == 1  # this one


def pids(running: StartedServer) -> list[int]:
    """The processes of the workers."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return [p for p in found if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + STOP_SECONDS
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_that_dies_is_replaced(folder: Path) -> None:
    with search_server(folder, "--workers", 2) as running:
        address = f"{running.address}?timeout=60&retries=8"
        remote = open_retriever(address, cache=0)
        expected = open_retriever(folder).search(QUERIES, 3)
        first = pids(running)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        for _ in range(20):
            assert open_retriever(address, cache=0).search(QUERIES, 3) == expected
        wait_for(lambda: len(pids(running)) == 2 and first[0] not in pids(running))
        assert remote.search(QUERIES, 3) == expected
        os.kill(running.process.pid, signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{p}/cmdline").exists() for p in first[1:]))


def test_ctrl_c_stops_it(folder: Path) -> None:
    with search_server(folder) as running:
        process = running.process
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=STOP_SECONDS)
        assert (process.returncode, said, complaints) == (0, "", "")
        port = int(running.address.rpartition(":")[2])
        with socket.create_server(("127.0.0.1", port)):
            pass  # it is free


def failing(*options: object) -> tuple[int, str]:
    command = [*COMMAND, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = done.stderr.splitlines()
    assert (done.stdout, len(lines)) == ("", 1), done
    return done.returncode, lines[0]


def test_what_keeps_it_from_serving_is_one_line(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = failing(folder, "--port", port)
    assert code == 2
    assert re.search(f"can't listen on 127.0.0.1, port {port}: .*; choose another --port", line)
    code, line = failing(tmp_path / "none", "--workers", 2)
    assert code == 4
    assert "exsearch index" in line
    code, line = failing(folder, "--host", "no.such.host.invalid")
    assert (code, "can't listen on no.such.host.invalid" in line) == (2, True)


def test_a_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "uvicorn" else find(n))
    result = CliRunner().invoke(cli, ["serve-retriever", str(folder), "--port", "0"])
    assert result.exit_code == 6
    assert "(no uvicorn): pip install 'exsearch[serve]'" in result.output


PART = """
import time
from exsearch.records import Passage

class Held:
    @classmethod
    def open(cls, place):
        return cls()

    def search(self, queries, k):
        if "fail" in queries:
            raise OSError("a disk\\nwent away")
        for query in queries:
            time.sleep(float(query) if query[:1].isdigit() else 0)
        return [[Passage(q, "", str(len(queries)), 1.0)] for q in queries]

    def fetch(self, ids):
        raise RuntimeError("no /such/path")

    def identity(self):
        return "held"
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedServer]:
    """A server in front of a retriever of another package, which is slow or fails by its query."""
    site = tmp_path_factory.mktemp("site")
    (site / "held_part.py").write_text(PART)
    info = site / "held_part-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: held-part\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[exsearch.retrievers]\nheld = held_part:Held\n")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        options = ("--max-requests", 4, "--retriever-timeout", 2)
        with search_server("held://x", *options) as running:
            yield running


def ask(server: StartedServer, queries: Sequence[str]) -> httpx2.Response:
    with httpx2.Client(base_url=server.address, timeout=60, trust_env=False) as client:
        return client.post("/retrieve", json={"queries": list(queries)})


def test_a_failed_search_is_an_error_of_its_request_alone(held: StartedServer) -> None:
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(ask, held, ["0.5"])
        time.sleep(0.1)  # so that the others wait together
        failed, well = threads.submit(ask, held, ["a", "fail"]), threads.submit(ask, held, ["b"])
        assert first.result().status_code == well.result().status_code == 200
        response = failed.result()
    assert response.status_code == 500
    assert response.json() == {"error": "Held: OSError: a disk went away"}
    assert ask(held, ["3"]).json()["error"].startswith("Held: no reply within 2 s")


def test_requests_that_wait_are_searched_together(held: StartedServer) -> None:
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(ask, held, ["0.5"])
        time.sleep(0.1)
        others = [threads.submit(ask, held, [f"q{n}", "x"]) for n in range(3)]
        found = [other.result().json()["result"] for other in others]
    assert first.result().json()["result"][0][0]["contents"] == '""\n1'
    assert [lists[0][0]["id"] for lists in found] == ["q0", "q1", "q2"]
    assert {lists[1][0]["contents"] for lists in found} == {'""\n6'}


def test_too_many_requests_are_turned_away(held: StartedServer) -> None:
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda _: ask(held, ["0.5"]), range(8)))
    turned = [r for r in responses if r.status_code == 429]
    assert 0 < len(turned) <= 4
    assert turned[0].headers["retry-after"] == "1"
    assert "more than 4 requests at once" in turned[0].json()["error"]
    assert all(r.status_code == 200 for r in responses if r not in turned)
    health = httpx2.get(f"{held.address}/health", trust_env=False)
    assert health.status_code == 200


def test_our_client_comes_again_when_it_is_turned_away(held: StartedServer) -> None:
    queries = [f"0.1{n}" for n in range(12)]
    remote = open_retriever(f"{held.address}?batch=1&retries=20", cache=0)
    assert [found[0].id for found in remote.search(queries, 1)] == queries


def test_what_is_unforeseen_is_told_without_its_content(held: StartedServer) -> None:
    with httpx2.Client(base_url=held.address, timeout=60, trust_env=False) as client:
        response = client.post("/fetch", json={"ids": ["a"]})
    assert (response.status_code, response.json()) == (500, {"error": "unforeseen: RuntimeError"})


def test_a_stop_lets_the_requests_in_hand_end(held: StartedServer) -> None:
    """The last test of this server."""
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, held, ["1"])
        time.sleep(0.3)
        held.process.terminate()
        assert asked.result().json()["result"][0][0]["id"] == "1"
    assert held.process.wait(STOP_SECONDS) == 0


@pytest.mark.slow
def test_passages_of_one_server_are_served_by_another(folder: Path) -> None:
    with search_server(folder) as inner, search_server(inner.address) as outer:
        remote, local = open_retriever(outer.address, cache=0), open_retriever(folder, cache=0)
        assert remote.search(QUERIES, 5) == local.search(QUERIES, 5)
        assert remote.identity() == local.identity()
        inner.process.kill()
        (response,) = [ask(outer, ["q"])]
        assert response.status_code == 500
        assert "can't be reached" in response.json()["error"]
