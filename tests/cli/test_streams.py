"""Nothing reaches the terminal raw, and a job needs no terminal to come to its end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from test_terminal import EVIL, harmless

Run = Callable[..., Result]
STEERING = EVIL.replace("\ud800", "")  # what a file's name can hold


def check_harmless(text: str) -> None:
    for line in text.split("\n"):
        assert harmless(line), repr(line)


# --- what is printed ---


def test_a_file_s_name(run: Run, tmp_path: Path) -> None:
    file = tmp_path / STEERING
    for command in (
        ["show", file],
        ["index", file, "--out", tmp_path / "index"],
        ["train", file],
        ["score", "--questions", file, "--predictions", file],
        ["data", "convert", "--format", "musique", file, "--out", tmp_path / "out"],
        ["ask", "Who?", "--index", file],
        ["show", "x", file],  # wrong usage
        [file],
        ["show", f"--{STEERING}"],
    ):
        for more in ([], ["--debug"]):
            result = run_any(command + more)
            assert result.exit_code != 0
            check_harmless(result.output)
    (tmp_path / "notes.txt").write_text("Peter Pan was written by J. M. Barrie.")
    made = run("index", tmp_path / "notes.txt", "--out", tmp_path / f"{STEERING}i")
    assert "1 passages are indexed in" in made.stdout
    check_harmless(made.output)


def run_any(command: list[object]) -> Result:
    from click.testing import CliRunner

    from exsearch.cli import cli

    return CliRunner().invoke(cli, [str(arg) for arg in command], prog_name="exsearch")


def test_questions_and_what_a_model_writes(run: Run, index: Path, tmp_path: Path) -> None:
    script, questions = tmp_path / "script.jsonl", tmp_path / "q.jsonl"
    script.write_text(json.dumps({"contains": "Notes:", "reply": f"Answer: {EVIL}"}) + "\n")
    question = {"id": STEERING, "question": f"Who {STEERING}?", "answers": [STEERING]}
    questions.write_text(json.dumps(question) + "\n")
    scripted = ["--index", index, "--model", script, "--engine", "scripted"]
    out = tmp_path / "t.jsonl"
    run("rollout", "--questions", questions, *scripted, "--out", out)
    for more in ([], ["--json"]):
        ask = run("ask", "Who?", *scripted, *more).stdout
        shown = run("show", out, *more).stdout
        check_harmless(ask)
        check_harmless(shown)
    assert json.loads(shown)["trajectories"][0]["question"] == f"Who {STEERING}?"


def test_figures_settings_and_log_lines(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from exsearch.cli.failures import start_logging

    (tmp_path / "summary.json").write_text(json.dumps({"n": 1, "malformed": {STEERING: 1}}))
    for more in ([], ["--json"]):
        result = run("show", tmp_path, *more)
        check_harmless(result.output)
        assert "red" in result.stdout
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n')
    check_harmless(run("train", recipe, "--set", f"m_step.{STEERING}=1", code=2).output)
    check_harmless(run("train", recipe, "--set", f"e_step.weighting={STEERING}", code=2).output)
    start_logging(logging.WARNING)
    logging.getLogger("exsearch.engines").warning("model at %s", STEERING)
    said = capsys.readouterr().err
    assert said.startswith("exsearch: warning: model at red gone back")
    check_harmless(said)


# --- where nothing can be printed ---


def rollout(scripted: list[object], out: Path) -> list[str]:
    command = ["rollout", "--questions", "sample:test", "--limit", 4, *scripted, "--chunk", 1]
    return [sys.executable, "-m", "exsearch", *map(str, command), "--out", str(out), "-v"]


@pytest.mark.parametrize("way", ["closed", "a closed pipe", "full"])
def test_a_job_goes_on_without_standard_error(
    scripted: list[object], tmp_path: Path, way: str
) -> None:
    out = tmp_path / "t.jsonl"
    command = rollout(scripted, out)
    if way == "closed":
        shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
        done = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=False)
    else:
        read, write = os.pipe()
        os.close(read)
        with Path("/dev/full").open("w") as full:
            stderr = full if way == "full" else write
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
            )
        os.close(write)
    assert done.returncode == 0
    assert "4 trajectories of 4 questions" in done.stdout
    assert out.read_bytes().count(b"\n") == 4


def test_an_argument_that_is_no_text(tmp_path: Path) -> None:
    for place in (0, 1, 2):
        command: list[bytes] = [b"ask", b"Who?", b"--index"]
        command[place] = b"caf\xe9"
        done = subprocess.run(
            [sys.executable, "-m", "exsearch", *command], capture_output=True, check=False
        )
        assert done.returncode == 2
        said = f"exsearch: error: argument {place + 1} is not UTF-8 text: 'caf\\udce9'\n"
        assert done.stderr.decode() == said
