"""What goes wrong is one line that says what to do, and an exit code; never a traceback unasked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
Fails = Callable[..., str]
QUESTION = "To which hospital did the author of Peter Pan leave the income from the play?"
TINY_RECIPE = """
name = "tiny"
[model]
device = "cpu"
[method]
max_steps = 2
passages = 2
passage_words = 20
thought_tokens = 8
record_tokens = 8
[warm_up]
examples = 2
[gem]
iterations = 0
dev_questions = 2
"""


def test_a_wrong_path(fails: Fails, scripted: list[object], tmp_path: Path):
    (tmp_path / "train.jsonl").touch()
    wrong = tmp_path / "tran.jsonl"
    message = fails("evaluate", "--questions", wrong, *scripted, "--out", tmp_path / "o", code=3)
    assert f"{wrong}: no such question file; did you mean train.jsonl?" in message
    assert not (tmp_path / "o").exists()
    assert "no such corpus" in fails("index", wrong, "--out", tmp_path / "index", code=3)
    assert "no such file" in fails("train", tmp_path / "no.toml", code=2)
    assert "no such file of trajectories" in fails("show", wrong, code=3)
    score = ["score", "--questions", "sample:test", "--predictions", wrong]
    assert "no such prediction file" in fails(*score, code=3)
    convert = ["data", "convert", "--format", "musique", wrong, "--out", tmp_path / "m"]
    assert "no such question file" in fails(*convert, code=3)


def test_an_empty_corpus(fails: Fails, tmp_path: Path):
    (tmp_path / "empty.jsonl").touch()
    message = fails("index", tmp_path / "empty.jsonl", "--out", tmp_path / "index", code=3)
    assert "the corpus is empty" in message
    assert not (tmp_path / "index").exists()


def test_no_index_and_a_damaged_one(fails: Fails, index: Path, script: Path, tmp_path: Path):
    options = ["--model", script, "--engine", "scripted"]
    message = fails("ask", QUESTION, "--index", tmp_path / "none", *options, code=4)
    assert "no such folder; build it anew with `exsearch index`" in message
    damaged = tmp_path / "index"
    shutil.copytree(index, damaged)
    with (damaged / "passages.jsonl").open("r+b") as file:
        file.seek(100)
        file.write(b"#")
    message = fails("ask", QUESTION, "--index", damaged, *options, code=4)
    assert "passages.jsonl: altered" in message


def test_a_wrong_model(fails: Fails, index: Path, tmp_path: Path):
    ask = ["ask", QUESTION, "--index", index]
    message = fails(*ask, "--model", "smollm2-135", code=5)
    assert "did you mean smollm2-135m?" in message
    assert "neither a model folder" in fails(*ask, "--model", tmp_path, code=5)
    assert "no engine 'vlm'" in fails(*ask, "--engine", "vlm", code=2)


def test_an_unfinished_run_is_no_model(fails: Fails, index: Path, tmp_path: Path):
    (tmp_path / "recipe.json").write_text("{}")
    message = fails("ask", QUESTION, "--index", index, "--model", tmp_path, code=5)
    assert "not finished" in message
    assert "neither a run" in fails("show", tmp_path, code=7)


def test_an_unknown_recipe_key(fails: Fails, tmp_path: Path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY_RECIPE)
    message = fails("train", recipe, "--set", "m_step.learning_rat=1", code=2)
    assert "unknown key m_step.learning_rat; did you mean m_step.learning_rate?" in message


def test_questions_without_answers_can_not_be_evaluated(
    fails: Fails, scripted: list[object], tmp_path: Path
):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "a", "question": "Who?"}\n')
    command = ["evaluate", "--questions", questions, *scripted, "--out", tmp_path / "o"]
    assert 'question "a" has no answer' in fails(*command, code=3)


def test_wrong_usage_is_exit_code_2(run: Run, scripted: list[object]):
    assert "name the corpus" in run("index", "--out", "x", code=2).stderr
    assert "Missing argument" in run("ask", code=2).stderr
    assert "No such option" in run("ask", QUESTION, *scripted, "--stepz", 3, code=2).stderr
    assert (
        "0 is not in the range" in run("ask", QUESTION, *scripted, "--passages", 0, code=2).stderr
    )
    assert "blank" in run("ask", " ", *scripted, code=2).stderr


def test_a_traceback_comes_with_debug_only(run: Run, tmp_path: Path):
    result = run("show", tmp_path / "none", "--debug", code=3)
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("exsearch: error: ")


def test_a_missing_extra_names_the_command(index: Path, tiny_model_folder: Path):
    code = f"""if True:
        import sys
        sys.modules["torch"] = None
        sys.argv = ["exsearch", "ask", "Who?", "--index", {str(index)!r}]
        sys.argv += ["--model", {str(tiny_model_folder)!r}]
        from exsearch.cli import main
        main()
    """
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 6
    assert result.stderr.strip().endswith("pip install 'exsearch[local]'")
    assert len(result.stderr.strip().splitlines()) == 1


def test_ctrl_c_says_how_to_go_on_and_so_it_does(
    run: Run, index: Path, tiny_model_folder: Path, tmp_path: Path
):
    out = tmp_path / "t.jsonl"
    command = ["rollout", "--questions", "sample:train", "--index", index]
    command += ["--model", tiny_model_folder, "--device", "cpu", "--out", out]
    command += ["--chunk", 2, "--limit", 16]
    arguments = [sys.executable, "-m", "exsearch", *map(str, command)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        read = ""
        while " 0/16" not in read:  # the bar is there, so the model is loaded
            piece = child.stderr.read(1)
            assert piece, read
            read += piece
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
    assert child.returncode == 130, rest
    assert rest.splitlines()[-1] == "exsearch: stopped; run the same command again to go on"
    before = out.read_bytes() if out.exists() else b""
    assert before.count(b"\n") < 16
    figures = json.loads(run(*command, "-q", "--json").stdout)
    assert figures["trajectories"] == 16
    assert out.read_bytes().startswith(before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_any_stop_is_one_line_and_the_signal_s_exit_code(
    run: Run, scripted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    before = signal.getsignal(number)

    def stopped(*args: object, **settings: object) -> None:
        signal.raise_signal(number)

    command = ["rollout", "--questions", "sample:test", *scripted, "--out", tmp_path / "t.jsonl"]
    monkeypatch.setattr("exsearch.jobs.rollout.sample_and_weigh", stopped)
    said = run(*command, "-q", code=128 + number).stderr
    assert said == "\nexsearch: stopped; run the same command again to go on\n"
    assert signal.getsignal(number) is before


def test_training_stops_after_so_many_minutes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr("exsearch.jobs.train.train", lambda *args, **settings: time.sleep(60))
    began = time.monotonic()
    said = run("train", tmp_path / "r.toml", "--minutes", "0.005", "-q", code=142).stderr
    assert said == "\nexsearch: stopped; run the same command again to go on\n"
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_hangup_that_is_ignored_stays_so(
    run: Run, scripted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As under nohup."""
    command = ["rollout", "--questions", "sample:test", *scripted, "--out", tmp_path / "t.jsonl"]
    monkeypatch.setattr(
        "exsearch.jobs.rollout.open_inputs", lambda asking: signal.raise_signal(signal.SIGHUP)
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(*command, code=1)  # it went on to what the hangup was put in place of
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}])
def test_a_full_standard_output_is_one_line_and_not_the_disk(locale: dict[str, str]):
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "exsearch", "doctor", "--json"]
        result = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=unset | locale,
        )
    assert result.returncode == 1
    assert result.stderr.startswith("exsearch: error: standard output can't be written (ENOSPC)")
    assert len(result.stderr.splitlines()) == 1


def test_a_disk_that_is_full_while_a_model_is_saved():
    from safetensors import SafetensorError

    from exsearch.cli.failures import told

    # What safetensors says then is an error of its own, without an `errno`.
    error = SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )
    message, code = told(error)
    assert code == 11
    assert "disk is full" in message


def test_a_closed_pipe_is_no_error(run: Run, scripted: list[object], tmp_path: Path):
    out = tmp_path / "t.jsonl"
    run("rollout", "--questions", "sample:train", *scripted, "--out", out)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "exsearch", "show", str(out)]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert result.stderr == ""


def test_a_trace_can_not_steer_the_terminal(run: Run, index: Path, tmp_path: Path):
    script = tmp_path / "script.jsonl"
    evil = "Answer: \x1b[31mred\x1b]0;title\x07 \x9b2Jgone \u202eback"
    rules = [{"contains": "Notes:", "reply": evil}]
    script.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    options = ["--index", index, "--model", script, "--engine", "scripted"]
    first = run("ask", QUESTION, *options).stdout.splitlines()[0]
    assert first == "red gone back (unsupported)"
    out = tmp_path / "t.jsonl"
    run("rollout", "--questions", "sample:test", "--limit", 1, *options, "--out", out)
    shown = run("show", out).stdout
    assert "answer: red gone back" in shown
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in shown)
