"""Two small files of trajectories, and a real `exsearch show --page` of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from answer_server import ANSWER, FACT, PASSAGES, QUESTION

from exsearch.records import Evidence, Question, Step, StopReason, Trajectory
from exsearch.trajectories import to_lines


def trajectory(id: str, answer: str, gain: float) -> Trajectory:
    """A trajectory of one search."""
    question = Question(id, f"{QUESTION} ({id})", (ANSWER,), supporting=(PASSAGES[0].id,))
    step = Step("harbour builder", PASSAGES, evidence=Evidence(FACT, (PASSAGES[0].id,)))
    reason = StopReason.ANSWERED if answer else StopReason.MALFORMED
    return Trajectory(question, (step,), (), answer, reason, turn_scores=(-3.0, gain - 3))


def write_saved(folder: Path) -> tuple[Path, Path]:
    """Write two files with the same questions, one of which only the first answers rightly."""
    answers = {
        "first.jsonl": {"q/1": (ANSWER, 1.5), "q/2": ("Bert", -2.5), "q/3": ("", 0.0)},
        "second.jsonl": {"q/1": ("Bert", 0.5), "q/2": ("Bert", 0.25), "q/4": (ANSWER, 0.0)},
    }
    for name, told in answers.items():
        traces = [trajectory(id, *facts) for id, facts in told.items()]
        text = "".join(f"{line}\n" for line in to_lines(traces))
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "first.jsonl", folder / "second.jsonl"


@contextmanager
def show_page(place: Path, *options: object) -> Iterator[str]:
    """Shows trajectories on a free port until the block ends; gives the address."""
    command = [sys.executable, "-m", "exsearch", "show", str(place), "--page", "--port", "0"]
    with subprocess.Popen(
        [*command, "--json", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield json.loads(said)["address"]
        finally:
            process.terminate()
            process.wait(60)
