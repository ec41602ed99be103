"""The server lets in who may ask, bounds what is asked, and ends in good order."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
from answer_server import COMMAND, PASSAGES, answer_server

from started_server import StartedServer

KEY = "s3cret-key"


@pytest.fixture(scope="module")
def locked(world: Path):
    with answer_server(world, environment={"EXSEARCH_API_KEY": KEY}) as running:
        yield running


def get(server: StartedServer, path: str, **headers: str) -> httpx2.Response:
    return httpx2.get(f"{server.address}{path}", headers=headers)


def error(reply: httpx2.Response) -> dict[str, str | None]:
    value = reply.json()["error"]
    assert set(value) == {"message", "type", "param", "code"}
    assert "\n" not in value["message"]
    return value


def test_it_is_alive_and_ready(server):
    assert get(server, "/healthz").json() == {"status": "ok"}
    assert get(server, "/readyz").json() == {"status": "ready"}


def test_every_passage_has_an_address_that_opens(server):
    reply = get(server, "/passages/h%201%2F%C3%A4").json()
    assert reply == {
        "id": PASSAGES[0].id,
        "title": PASSAGES[0].title,
        "text": PASSAGES[0].text,
        "url": f"{server.address}/passages/h%201%2F%C3%A4",
    }
    assert httpx2.get(reply["url"]).json() == reply
    missing = get(server, "/passages/nothing")
    assert missing.status_code == 404 and "nothing" in error(missing)["message"]


def test_a_key_is_asked_for_on_every_route_but_health(locked):
    for path in ("/healthz", "/readyz"):
        assert get(locked, path).status_code == 200
    routes = httpx2.get(f"{locked.address}/openapi.json", headers=bearer(KEY)).json()["paths"]
    assert len(routes) >= 4
    for path in [*routes, "/openapi.json", "/nowhere", "/"]:
        if path in ("/healthz", "/readyz"):
            continue
        for method in ("GET", "POST", "DELETE", "PUT"):
            reply = httpx2.request(method, f"{locked.address}{path}")
            assert reply.status_code == 401, (method, path)
            assert error(reply)["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"].startswith("Basic ")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_the_key_is_taken_from_a_header_or_as_a_password(locked):
    def status(authorization: str) -> int:
        return get(locked, "/metrics", authorization=authorization).status_code

    def basic(password: str) -> str:
        return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()

    assert status(f"Bearer {KEY}") == status(f"bearer  {KEY}") == status(basic(KEY)) == 200
    wrong = ("", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", basic("x"), "Basic %%", KEY)
    assert {status(given) for given in wrong} == {401}
    latin = {"authorization": "Bearer \xe9".encode("latin-1")}
    assert httpx2.get(f"{locked.address}/metrics", headers=latin).status_code == 401


def test_other_names_and_other_sites_are_turned_away(server, world):
    port = server.address.rpartition(":")[2]
    for host in ("localhost", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert get(server, "/metrics", host=host).status_code == 200, host
    for host in ("evil.example", f"evil.example:{port}", "", "localhost.evil.example", "[::"):
        assert get(server, "/metrics", host=host).status_code == 403, host
    assert get(server, "/metrics", origin=server.address).status_code == 200
    elsewhere = (
        "http://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1:1",
    )
    for origin in elsewhere:
        reply = get(server, "/metrics", origin=origin)
        assert reply.status_code == 403 and "--allow-origin" in error(reply)["message"]
    options = ("--host-name", "ask.example", "--allow-origin", "http://front.example")
    with answer_server(world, *options) as open_to_others:
        reply = get(open_to_others, "/metrics", host="ASK.example", origin="http://front.example")
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "http://front.example"
        exposed = reply.headers["access-control-expose-headers"].lower().split(", ")
        assert {"mcp-session-id", "retry-after", "x-request-id"} <= {*exposed}
        reply = get(open_to_others, "/metrics", host="ask.example", origin="http://evil.example")
        assert reply.status_code == 403
    with answer_server(world, "--public-url", "https://Ask.example/at/") as behind_a_proxy:
        given = {"host": "ask.example", "origin": "https://ask.example"}
        assert get(behind_a_proxy, "/metrics", **given).status_code == 200
        assert get(behind_a_proxy, "/passages/b").json()["url"] == (
            "https://Ask.example/at/passages/b"
        )


def test_the_schema_names_the_statuses_that_are_answered(server):
    paths = httpx2.get(f"{server.address}/openapi.json").json()["paths"]
    of = {
        path: {*operation["responses"]}
        for path, ways in paths.items()
        for operation in ways.values()
    }
    asked = {path for path, statuses in of.items() if "422" in statuses}  # a question, none else
    assert asked == {"/v1/chat/completions", "/v1/responses", "/ui/chat", "/ag-ui", "/ask"}
    assert of["/passages/{id}"] == {"200", "400", "401", "403", "404", "502"}
    assert of["/healthz"] == {"200", "400"}
    assert get(server, "/v1/responses/x?stream=perhaps").status_code == 400


def test_a_passage_that_can_not_be_looked_up_is_the_retrievers_failure(world):
    options = ("--index", "http://127.0.0.1:9", "--retriever-timeout", "1")
    with answer_server(world, *options) as running:
        told = get(running, "/passages/b")
    assert (told.status_code, told.json()["error"]["code"]) == (502, "search_failed")


def test_each_request_has_an_id(server):
    assert get(server, "/healthz", **{"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = [
        get(server, "/healthz", **{"x-request-id": i}).headers["x-request-id"] for i in ("", "a b")
    ]
    assert all(len(one) == 16 for one in made) and made[0] != made[1]


def test_what_it_did_is_counted(server):
    get(server, "/passages/b")
    text = get(server, "/metrics").text
    assert 'exsearch_requests_total{route="/passages/{id:path}",status="200"}' in text
    assert "exsearch_requests_in_flight 1.0" in text  # this request


def test_other_machines_need_a_key(world):
    command = [*COMMAND, "--index", str(world / "index"), "--engine", "scripted"]
    command += ["--model", str(world / "script.jsonl"), "--host", "0.0.0.0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "EXSEARCH_API_KEY" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        (("--public-url", "ask.example"), {}, "'ask.example' is no address"),
        (("--allow-origin", "localhost:3000"), {}, "'localhost:3000' is no address"),
        (("--allow-origin", "https://a b"), {}, "'https://a b' is no address"),
        ((), {"EXSEARCH_API_KEY": "two words"}, "the key has signs"),
        ((), {"EXSEARCH_API_KEY": "schl\u00fcssel"}, "the key has signs"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(options, environment, said, world):
    command = [*COMMAND, "--index", str(world / "index"), "--engine", "scripted"]
    command += ["--model", str(world / "script.jsonl"), *options]
    variables = {**os.environ, **environment}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)
    assert result.returncode == 2
    assert said in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*COMMAND, "--index", str(world / "index"), "--port", str(port)]
        start = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and f"port {port}" in result.stderr
    assert time.monotonic() - start < 10


def test_it_ends_well_when_it_is_asked_to(world):
    with answer_server(world, "-v") as running:
        get(running, "/metrics")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert running.process.stderr
        assert "GET /metrics 200" in running.process.stderr.read()
