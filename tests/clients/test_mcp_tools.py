"""MCP's inspector lists and calls the tools, and its conformance suite passes where it applies.

The scenarios that ask for the suite's own example server stand in `mcp_conformance.yaml`, with the
reasons. One that passes in spite of it, or fails beside it, fails this test. The suite speaks the
protocol up to 2025-11-25; the stateless one of 2026-07-28 is tried by the SDK's client in
`tests/serving/test_mcp.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from asked_server import Asked

from started_server import StartedServer

pytestmark = pytest.mark.clients

NODE = os.environ.get("EXSEARCH_NODE", "node")
MODULES = Path(os.environ.get("EXSEARCH_NODE_MODULES", "node_modules"))


def run(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command of an npm package."""
    place = MODULES / package
    values = json.loads((place / "package.json").read_text())
    bin_ = values["bin"]
    script = place / (bin_ if isinstance(bin_, str) else next(iter(bin_.values())))
    environment = {**os.environ, "PATH": f"{Path(NODE).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [NODE, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


def test_the_inspector_lists_and_calls_the_tools(asked: Asked):
    package = "@modelcontextprotocol/inspector"
    place = ("--cli", f"{asked.address}/mcp", "--transport", "http", "--method")
    listed = run(package, *place, "tools/list")
    assert listed.returncode == 0, listed.stderr
    assert [t["name"] for t in json.loads(listed.stdout)["tools"]] == ["search", "fetch", "ask"]
    call = ("tools/call", "--tool-name", "ask", "--tool-arg", f"question={asked.question}")
    told = json.loads(run(package, *place, *call).stdout)
    assert told["structuredContent"]["answer"] == asked.answer


def test_the_conformance_suite_passes_where_it_applies(server: StartedServer):
    package = "@modelcontextprotocol/conformance"
    known = Path(__file__).with_name("mcp_conformance.yaml")
    options = ("--url", f"{server.address}/mcp", "--expected-failures", str(known))
    told = run(package, "server", *options)
    assert told.returncode == 0, told.stdout[-3000:]
    passed = ("server-initialize", "ping", "tools-list", "resources-list")
    for scenario in (*passed, "server-sse-multiple-streams", "dns-rebinding-protection"):
        assert f"\u2713 {scenario}:" in told.stdout, scenario
