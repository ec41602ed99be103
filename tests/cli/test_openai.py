"""The commands that ask a model ask one behind a server, and say what can't be done with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from chat_server import KEY, Body, FakeServer

Run = Callable[..., Result]
Fails = Callable[..., str]
QUESTION = "To which hospital did the author of Peter Pan leave the income from the play?"


def reply(body: Body) -> str:
    """One search, one fact, always the same answer."""
    prompt = body["messages"][-1]["content"]
    if "Query:" in prompt:
        return "[1] Peter Pan was written by Barrie."
    done = "\n1. " in prompt
    return "Answer: Great Ormond Street" if done else "Search: Who wrote the play about Peter Pan?"


@pytest.fixture
def served(server: FakeServer, index: Path) -> list[object]:
    """The options for the sample's index and a model behind a server."""
    server.script = reply
    options = ["--engine", "openai", "--base-url", server.url, "--model", "served"]
    return ["--index", index, *options]


def last_json(result: Result):
    return json.loads(result.stdout.splitlines()[-1])


def test_ask(run: Run, served: list[object], server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_API_KEY", KEY)
    result = run(
        "ask", QUESTION, *served, "--api-key-env", "MY_API_KEY", "--system-prompt", "Brief."
    )
    assert result.stdout.startswith("Great Ormond Street")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.bodies[0]["model"] == "served"
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Brief."}
    assert KEY not in result.output


def test_evaluate(run: Run, fails: Fails, served: list[object], server: FakeServer, tmp_path: Path):
    out = tmp_path / "test"
    command = ["evaluate", "--questions", "sample:test", *served, "--limit", 4, "--out", out]
    assert last_json(run(*command, "--json"))["em"] == 0.25
    assert "tokens" not in run("show", out).stdout
    settings = json.loads((out / "settings.json").read_text())["model"]
    assert (settings["content"], settings["base_url"]) == ("served", server.url)
    asked = len(server.bodies)
    run(*command)
    assert len(server.bodies) == asked
    message = fails(*command, "--base-url", "http://127.0.0.1:1/v1", code=7)
    assert "model.base_url was" in message


def test_a_server_that_goes_away_leaves_what_is_done(
    run: Run, served: list[object], server: FakeServer, tmp_path: Path
):
    out = tmp_path / "t.jsonl"
    command = ["rollout", "--questions", "sample:test", *served, "--limit", 4, "--chunk", 2]
    server.script = lambda body: reply(body) if len(server.bodies) <= 6 else (401, {}, b"")
    message = run(*command, "--out", out, "-q", code=12).stderr.splitlines()[-1]
    assert message.startswith("exsearch: error: model at ")
    assert "HTTP 401; check the key" in message
    before = out.read_bytes()
    assert before.count(b"\n") == 2
    server.script = reply
    assert last_json(run(*command, "--out", out, "--json"))["trajectories"] == 4
    assert out.read_bytes().startswith(before)


def test_rollout_says_once_that_nothing_is_weighed(run: Run, served: list[object], tmp_path: Path):
    out = tmp_path / "t.jsonl"
    command = ["rollout", "--questions", "sample:train", *served, "--limit", 3, "--samples", 2]
    result = run(*command, "--chunk", 1, "--out", out)
    assert result.stderr.count("without weights") == 1
    assert "--engine transformers" in result.stderr
    assert "(0 weighed, 0 failed)" in result.stdout
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 6
    assert not any("weight" in line for line in lines)
    assert {call["kind"] for call in lines[0]["calls"]} == {"think", "record"}
    assert not any(call["prompt_ids"] or call["output_ids"] for call in lines[0]["calls"])
    shown = run("show", out, "--limit", 1).stdout
    assert "no token ids, so it can't be weighed or trained on" in shown


def test_worked_examples(run: Run, served: list[object], server: FakeServer, tmp_path: Path):
    command = ["evaluate", "--questions", "sample:test", *served, "--limit", 1, "--out", tmp_path]
    run(*command, "--worked-examples", 2, "--examples-from", "sample:train")
    roles = [message["role"] for message in server.bodies[0]["messages"]]
    assert roles == ["user", "assistant"] * 2 + ["user"]


def test_training_is_refused_at_once(fails: Fails, tmp_path: Path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n[data]\ntrain = "none.jsonl"\n')
    message = fails("train", recipe, "--engine", "openai", "--out", tmp_path / "run", code=2)
    assert "'openai' has no weights to train; take transformers" in message
    message = fails("quickstart", "--engine", "openai", "--out", tmp_path / "run", code=2)
    assert "'openai' has no weights to train" in message
    assert not (tmp_path / "run").exists()


def test_an_address_and_its_engine_go_together(fails: Fails, index: Path, tmp_path: Path):
    out = tmp_path / "test"
    command = ["evaluate", "--questions", "sample:test", "--index", index, "--out", out]
    assert "--base-url http" in fails(*command, "--engine", "openai", code=2)
    message = fails(*command, "--base-url", "http://127.0.0.1:1/v1", code=2)
    assert "is for engine openai, not transformers: add --engine openai" in message
    message = fails(*command, "--engine", "openai", "--base-url", "host/v1", code=2)
    assert "model.base_url must be http(s)://" in message
    assert "--base-url" in message
    assert not out.exists()
