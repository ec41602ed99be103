"""Draw the learning curve of README, from the journals of a warm-up and of the rounds after it.

    python tools/pictures.py runs/four-sets/warmed-up.1/run runs/four-sets/posterior.1/run

writes docs/images/learning-curve.csv, and from it docs/images/learning-curve.svg; without runs the
picture is drawn anew from the CSV. trace.png is a photograph of the page of `serve`.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.figure import Figure

import exsearch.report.figures
from exsearch.runs import read_jsonl, write_atomic
from exsearch.training.stages import METRICS_FILE

IMAGES = Path(__file__).parents[1] / "docs" / "images"
TABLE = IMAGES / "learning-curve.csv"
PICTURE = IMAGES / "learning-curve.svg"
STYLE = Path(exsearch.report.figures.__file__).with_name("figures.mplstyle")
STEPS = 8  # whose losses are one point
BLUE, ORANGE, GREY = "#1f5fa8", "#b5571a", "#575e64"
HEADS = ["stage", "what", "step", "value", "low", "high"]
Row = tuple[str, str, float, float, float, float]


def rows(runs: Sequence[Path]) -> list[Row]:
    """The mean losses of some steps at a time, and dev's exact match by group, in order."""
    found: list[Row] = []
    step = 0
    for run in runs:
        waiting: list[float] = []
        for event in read_jsonl(run / METRICS_FILE, stage=str, event=str):
            kind, stage = event["event"], event["stage"]
            if kind == "step":
                waiting.append(event["loss"])
                step += 1
            if waiting and (kind != "step" or len(waiting) == STEPS):
                mean = fmean(waiting)
                found.append((stage, "loss", step, mean, mean, mean))
                waiting = []
            if kind == "dev" and (stage != "start" or not found):
                groups = event["groups"]
                for name, at in (("all", event), ("neither", groups["neither"])):
                    found.append((stage, name, step, at["em"], *at["ci95"]["em"]))
                guess = sum(g["n"] * g["guess"] for g in groups.values()) / event["n"]
                found.append((stage, "guess", step, guess, guess, guess))
    return found


def write_table(found: Sequence[Row]) -> None:
    """Write what the picture shows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADS)
    writer.writerows([*row[:3], *(f"{value:.4f}" for value in row[3:])] for row in found)
    write_atomic(TABLE, text.getvalue())


def read_table() -> list[Row]:
    """Read what `write_table` wrote."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [
            (r["stage"], r["what"], *(float(r[name]) for name in HEADS[2:]))  # type: ignore[misc]
            for r in csv.DictReader(file)
        ]


def draw(found: Sequence[Row]) -> bytes:
    """The picture as SVG: losses on the left, dev on the right."""
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(figsize=(8, 2.9), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _losses(left, [row for row in found if row[1] == "loss"])
        _dev(right, found)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _named(stage: str) -> str:
    return stage.replace("warm_up", "warm-up").replace("iteration-0", "round ")


def _losses(axes: Any, found: Sequence[Row]) -> None:
    stages = list(dict.fromkeys(row[0] for row in found))
    for stage, colour in zip(stages, (BLUE, ORANGE, GREY), strict=False):
        own = [row for row in found if row[0] == stage]
        style = {"ms": 2.5, "color": colour, "label": _named(stage)}
        axes.plot([r[2] for r in own], [r[3] for r in own], "o-", **style)
    axes.set(xlabel="optimizer step", ylim=(0, None), title="loss of a step, nats a token")
    axes.legend()


def _dev(axes: Any, found: Sequence[Row]) -> None:
    stages = list(dict.fromkeys(row[0] for row in found if row[1] == "all"))
    for n, (group, colour) in enumerate((("all", BLUE), ("neither", ORANGE))):
        own = [row for row in found if row[1] == group]
        at = [stages.index(row[0]) + 0.04 * (2 * n - 1) for row in own]
        arms = [[100 * (r[3] - r[4]) for r in own], [100 * (r[5] - r[3]) for r in own]]
        label = "all questions" if group == "all" else "those that can't be guessed"
        style = {"color": colour, "lw": 1.4, "elinewidth": 1, "label": label}
        axes.errorbar(at, [100 * r[3] for r in own], arms, marker="os"[n], ms=4, **style)
    guess = next((row[3] for row in found if row[1] == "guess"), None)
    if guess is not None:
        label = "a rule that guesses, all questions (0 on the others)"
        axes.axhline(100 * guess, color=GREY, ls=":", label=label)
    axes.set_xticks(range(len(stages)), [_named(stage) for stage in stages])
    axes.set(ylim=(0, 45), title="exact match on dev, %, 95 % intervals")
    axes.legend(fontsize=8, loc="upper center")


def main() -> None:
    """Write the table where runs are named, and draw it."""
    if runs := [Path(name) for name in sys.argv[1:]]:
        write_table(rows(runs))
    write_atomic(PICTURE, draw(read_table()))
    print(f"{PICTURE} is drawn")


if __name__ == "__main__":
    main()
