"""Three evaluations of four questions, and a real `exsearch judge` of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exsearch.records import Evidence, Passage, Question, Step, StopReason, Trajectory
from exsearch.trajectories import TRAJECTORIES_FILE, to_lines

MARKUP = "<img src=x onerror=\"document.title='forged'\"> <b>bold</b>"
PLACES = ("alpha-secret", "beta-secret", "gamma-secret")  # no page may tell these names
# By place the answers to the questions, which have Wexcombe as their accepted answer.
ANSWERS = {
    "alpha-secret": ("Wexcombe", "the town of Wexcombe", "Wexcombe", "Wexcombe"),
    "beta-secret": ("Quillmoor", "Quillmoor", "Wexcombe", ""),
    "gamma-secret": ("Wexcombe", "Quillmoor", "Wexcombe", "Bread"),
}


def trajectory(number: int, answer: str, method: str) -> Trajectory:
    """Two searches of one question, whose passages are the same whoever searches."""
    text = f"Where was engineer {number} of Quillmoor born?"
    question = Question(f"q{number}", text, ("Wexcombe",), supporting=(f"p{number}",))
    first = Passage(f"p{number}", "Engineers", f"Engineer {number} was born in Wexcombe. {MARKUP}")
    second = Passage("bread", "Bread", "Bread is baked from flour, water and salt.")
    fact = Evidence(f"Engineer {number} was born in Wexcombe.", (first.id,))
    steps = (
        Step(f"engineer {number} birthplace", (first, second), evidence=fact),
        Step(f"Wexcombe, asked by {len(method)}", (first,)),
    )
    reason = StopReason.ANSWERED if answer else StopReason.MALFORMED
    return Trajectory(question, steps, (), answer, reason, method=method)


def write_places(folder: Path) -> list[Path]:
    """Write an evaluation's folder for each of `PLACES`."""
    for name, answers in ANSWERS.items():
        (folder / name).mkdir()
        traces = [trajectory(n, a, name.replace("-", "_")) for n, a in enumerate(answers)]
        text = "".join(f"{line}\n" for line in to_lines(traces))
        (folder / name / TRAJECTORIES_FILE).write_text(text, encoding="utf-8")
    return [folder / name for name in PLACES]


@contextmanager
def judged_page(*options: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serves what is to be judged until the block ends; gives the address, and the process."""
    command = [sys.executable, "-m", "exsearch", "judge", "--port", "0", "--json"]
    with subprocess.Popen(
        [*command, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield json.loads(said)["address"], process
        finally:
            process.terminate()
            process.wait(60)
