"""`exsearch show --page` shows saved trajectories, and two files of them beside each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx2
from answer_server import ANSWER
from saved_page import show_page, write_saved


def test_trajectories_are_shown_with_their_outcomes(tmp_path: Path):
    first, _ = write_saved(tmp_path)
    with show_page(first) as address:
        assert "<title>exsearch</title>" in httpx2.get(address).text
        about = httpx2.get(f"{address}/about").json()
        assert about == {"name": str(first), "asks": False, "columns": [str(first)]}
        rows = httpx2.get(f"{address}/traces").json()["traces"]
        assert [(row["id"], row["outcome"]) for row in rows] == [
            ("q/1#0", "right"),
            ("q/2#0", "wrong"),
            ("q/3#0", "none"),
        ]
        trace = httpx2.get(f"{address}/traces/q%2F1%230").json()
        assert trace["answer"] == ANSWER and trace["steps"][0]["gain"] == 1.5
        assert "other" not in trace
        assert httpx2.get(f"{address}/traces/q9").status_code == 404
        assert httpx2.post(f"{address}/ask", json={"question": "x"}).status_code == 404
        assert httpx2.get(address, headers={"host": "evil.example"}).status_code == 400


def test_two_files_are_compared_where_both_have_the_question(tmp_path: Path):
    first, second = write_saved(tmp_path)
    with show_page(first, "--against", second) as address:
        rows = httpx2.get(f"{address}/traces").json()["traces"]
        assert [(row["id"], row["outcome"], row["other"]["outcome"]) for row in rows] == [
            ("q/1#0", "right", "wrong"),
            ("q/2#0", "wrong", "wrong"),
        ]
        trace = httpx2.get(f"{address}/traces/q%2F1%230").json()
        assert (trace["answer"], trace["other"]["answer"]) == (ANSWER, "Bert")


def test_what_can_not_be_compared_is_refused(tmp_path: Path):
    first, second = write_saved(tmp_path)
    show = [sys.executable, "-m", "exsearch", "show", str(first)]
    result = subprocess.run([*show, "--against", str(second)], capture_output=True, text=True)
    assert result.returncode == 2 and "--page" in result.stderr
    lines = second.read_text(encoding="utf-8").splitlines()
    second.write_text(f"{lines[2]}\n", encoding="utf-8")
    against = [*show, "--page", "--against", str(second)]
    result = subprocess.run(against, capture_output=True, text=True)
    assert result.returncode != 0 and "no question of it is in" in result.stderr
