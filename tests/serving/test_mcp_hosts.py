"""`exsearch mcp install` adds an entry to the settings of assistants, and harms nothing there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mcp import Client, StdioServerParameters

from exsearch.cli import cli


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with a project in it that is the current folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.fixture
def given(world: Path) -> list[str]:
    """Options of `world`, with paths that only hold from the current folder."""
    index, script = (os.path.relpath(world / name) for name in ("index", "script.jsonl"))
    return ["--index", index, "--engine", "scripted", "--model", script]


def install(*words: str) -> Result:
    return CliRunner().invoke(cli, ["mcp", "install", *words])


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


FILES = {
    "claude-desktop": ("config/Claude/claude_desktop_config.json", "mcpServers"),
    "claude-code": ("project/.mcp.json", "mcpServers"),
    "cursor": (".cursor/mcp.json", "mcpServers"),
    "vscode": ("project/.vscode/mcp.json", "servers"),
}


def test_each_host_gets_a_command_that_starts_from_anywhere(home, given, world):
    into = [word for host in FILES for word in ("--into", host)]
    result = install(*given, "--max-steps", "3", "--no-select", *into)
    assert result.exit_code == 0, result.output
    index, script = (str(Path(given[n]).absolute()) for n in (1, 5))
    assert Path(index).resolve() == (world / "index").resolve()
    for host, (file, field) in FILES.items():
        values = read(home / file)
        assert list(values) == [field] and list(values[field]) == ["exsearch"]
        entry = values[field]["exsearch"]
        assert entry.pop("type", None) == ("stdio" if host in ("claude-code", "vscode") else None)
        args = ["-m", "exsearch", "mcp", "--index", index, "--model", script]
        args += ["--engine", "scripted", "--max-steps", "3", "--no-select"]
        assert entry == {"command": os.path.abspath(sys.executable), "args": args}
        assert str(home / file) in result.output


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_entry_starts_a_server_that_answers(home, given, anyio_backend):
    assert install(*given, "--into", "claude-code").exit_code == 0
    entry = read(home / "project/.mcp.json")["mcpServers"]["exsearch"]
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = StdioServerParameters(
        command=entry["command"], args=entry["args"], env=environment, cwd="/"
    )
    async with Client(command, read_timeout_seconds=120) as client:
        found = await client.call_tool("search", {"query": "bread"})
    assert found.structured_content["results"][0]["id"] == "b"


def test_what_is_in_the_file_stays(home, given):
    file = home / "settings.json"
    before = {"ü": [1, 2.5, None], "mcpServers": {"other": {"command": "x", "env": {"KEY": "y"}}}}
    file.write_text(json.dumps(before, ensure_ascii=False), encoding="utf-8")
    file.chmod(0o600)
    (home / ".cursor").mkdir()
    link = home / ".cursor/mcp.json"
    link.symlink_to(file)
    assert install(*given, "--into", "cursor").exit_code == 0
    after = read(file)
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o600
    assert after["mcpServers"].pop("exsearch")["command"]
    assert after == before and list(after) == list(before)


def test_another_entry_is_replaced_only_where_that_is_asked_for(home, given):
    file = home / ".cursor/mcp.json"
    assert install(*given, "--into", "cursor").exit_code == 0
    first = file.read_bytes()
    again = install(*given, "--into", "cursor", "--json")
    assert again.exit_code == 0 and not json.loads(again.output)["added"]
    other = install(*given, "--seed", "7", "--into", "cursor")
    assert other.exit_code == 2 and "--force" in other.output and file.read_bytes() == first
    named = install(*given, "--seed", "7", "--into", "cursor", "--name", "seventh")
    assert named.exit_code == 0
    assert list(read(file)["mcpServers"]) == ["exsearch", "seventh"]
    forced = install(*given, "--seed", "7", "--into", "cursor", "--force")
    assert forced.exit_code == 0
    entries = read(file)["mcpServers"]
    assert entries["exsearch"] == entries["seventh"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"// mine\n{}", b'{"mcpServers": []}', b'{"mcpServers": null}', b"\xff{}"],
)
def test_a_file_that_can_not_be_merged_is_left_as_it_is(home, given, content):
    file = home / ".cursor/mcp.json"
    file.parent.mkdir()
    file.write_bytes(content)
    result = install(*given, "--into", "cursor", "--force")
    assert result.exit_code == 2 and file.read_bytes() == content
    assert str(file) in result.output and "--print" in result.output
    assert len(result.output.splitlines()) == 1


def test_print_shows_the_entry_and_writes_nothing(home, given):
    result = install(*given, "--print")
    entry = json.loads(result.output)["mcpServers"]["exsearch"]
    assert entry["args"][:3] == ["-m", "exsearch", "mcp"]
    shown = json.loads(install(*given, "--print", "--json", "--into", "vscode").output)
    assert shown["servers"]["exsearch"] == {"type": "stdio", **entry}
    assert sorted(home.rglob("*.json")) == []


def test_what_can_not_work_is_not_installed(home, given):
    missing = install("--index", "nothing", "--into", "cursor")
    assert missing.exit_code == 4 and "nothing" in missing.output
    assert "--into" in install(*given).output and install(*given).exit_code == 2
    for option in ("--print", "--force", "--into=cursor"):
        result = CliRunner().invoke(cli, ["mcp", *given, option])
        assert result.exit_code == 2 and "exsearch mcp install" in result.output
    assert sorted(home.rglob("*.json")) == []


def test_no_key_is_written(home, given, monkeypatch):
    for name in ("EXSEARCH_API_KEY", "OPENAI_API_KEY", "MY_KEY"):
        monkeypatch.setenv(name, "s3cret")
    result = install(*given, "--api-key-env", "MY_KEY", "--into", "cursor")
    text = (home / ".cursor/mcp.json").read_text(encoding="utf-8")
    assert result.exit_code == 0 and "MY_KEY" in text and "s3cret" not in text + result.output
