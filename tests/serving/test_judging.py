"""`exsearch judge` serves items without a method, and keeps each judgement at once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import pytest
from click.testing import CliRunner
from judged_page import PLACES, judged_page, write_places

from exsearch.cli import cli
from exsearch.judging.items import Item, Kind
from exsearch.judging.study import Study, Verdict
from exsearch.runs import locked

pytest.importorskip("nltk")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of a server that keeps its judgements in `.file`."""
    folder = tmp_path_factory.mktemp("judged")
    file = folder / "judged.jsonl"
    with (
        judged_page(*write_places(folder), "--judgements", file) as (address, _),
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        yield client
    assert not file.exists()  # nothing that was wrong was kept


def items(client, judge="Ada"):
    return client.get("/items", params={"judge": judge}).json()["items"]


def say(client, item, verdict, judge="Ada", **headers):
    said = {"judge": judge, "item": item, "verdict": verdict}
    return client.post("/judgements", json=said, headers=headers).status_code


def run(*options):
    return CliRunner().invoke(cli, ["judge", *map(str, options)])


def test_nothing_that_is_served_tells_a_method_a_run_or_a_metric(client):
    paths = ["/", "/about", "/items?judge=Ada", "/page/judge.js"]
    paths += [f"/items/{item['id']}" for item in items(client)]
    replies = [client.get(path) for path in paths]
    text = "".join(f"{reply.headers} {reply.text}" for reply in replies)
    assert "Wexcombe" in text
    told = ("secret", "method", "exact_match", '"em"', '"f1"', "q1", "sample", "stop_reason")
    assert [word for word in told if word in text.replace("method: ", "")] == []


def test_what_is_wrong_is_refused(client):
    item = items(client)[0]["id"]
    assert say(client, "none", "yes") == say(client, item, "perhaps") == 422
    assert say(client, item, "yes", "\u202e") == 422
    assert say(client, item, "yes", host="evil.example") == 403
    assert say(client, item, "yes", origin="http://evil.example") == 403
    assert say(client, item, "yes", origin="null") == 403
    assert client.get("/items/none").status_code == 404
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        refused = client.get("/items", headers=headers)
        assert refused.status_code == 403
        assert "this machine alone" in refused.text and "--" not in refused.text


def test_a_judgement_survives_a_kill_and_is_gone_on_with(tmp_path):
    file = tmp_path / "new" / "judged.jsonl"
    with judged_page(*write_places(tmp_path), "--judgements", file) as (address, process):
        with httpx2.Client(base_url=address, timeout=60) as client:
            first, *_, last = items(client)
            assert say(client, first["id"], "yes") == 204
            assert say(client, last["id"], "no", "Bert") == 204
        process.kill()
    again = ["--judgements", file, "--judge", "Bert", "--kind", "answer"]
    with (
        judged_page(*again) as (address, _),  # it remembers the places
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        assert client.get("/about").json() == {"judge": "Bert"}
        asked = items(client, "Bert")
        assert {"id": last["id"], "verdict": "no"} in asked
        shown = [client.get(f"/items/{one['id']}").json()["kind"] for one in asked]
        assert {*shown} == {"answer"}
        assert client.get(f"/items/{first['id']}").status_code == 404


def test_two_servers_do_not_write_into_one_file(tmp_path):
    file = tmp_path / "judged.jsonl"
    with locked(tmp_path, file.name):
        result = run(*write_places(tmp_path), "--judgements", file, "--port", "0")
    assert result.exit_code == 7 and "another process" in result.stderr


def test_the_export_reloads_and_joins_to_the_runs(tmp_path):
    places = write_places(tmp_path)
    study = Study(tmp_path / "judged.jsonl", places)
    for number, id in enumerate(study.items):
        study.add("Ada", id, Verdict.YES if number % 2 else Verdict.NO)
    out = tmp_path / "out.jsonl"
    result = run("--judgements", study.file, "--export", out, "--summary", "--json")
    found = json.loads(result.stdout)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(rows) == found["exported"] == found["items"] == found["judges"]["Ada"]
    own = {"judge", "item", "verdict", "at", "kind", "uses"}
    for row in rows:
        content = {name: value for name, value in row.items() if name not in own}
        assert Item(Kind(row["kind"]), content).id == row["item"]  # it has what was judged, whole
    answers = [use for row in rows if row["kind"] == "answer" for use in row["uses"]]
    assert {use["em"] for use in answers} == {0, 1}
    told = {(use["place"], use["trajectory"]) for use in answers}
    assert told == {(str(place), f"q{n}#0") for place in places for n in range(4)}
    refused = run("--judgements", study.file, "--export", study.file)
    assert refused.exit_code == 2 and "another file" in refused.stderr


def test_people_get_tables_and_one_line_errors(tmp_path):
    places, file = write_places(tmp_path), tmp_path / "judged.jsonl"
    shown = run(*places, "--judgements", file, "--summary").stdout
    assert "Krippendorff's alpha" in shown and "judgements: none" in shown
    assert all(name in shown for name in PLACES)
    assert not file.exists()  # looking begins nothing
    missing = run("--judgements", file)
    assert missing.exit_code == 2 and "name the runs" in missing.stderr
    assert run(*places, "--judge", "\x1b[1m").exit_code == 2
