"""Abstention: the share of answers that a threshold withholds, without support and with it.

Two sets of trajectories are compared, as `exsearch evaluate` writes them: of questions whose
support is in the corpus, and of questions whose support was taken out. An answer below the
threshold is withheld; a trajectory without an answer counts as withheld, too. No model is run.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import finish, launch, parser, table
from exsearch.agent.confidence import confidence
from exsearch.config import user_path
from exsearch.errors import DataError
from exsearch.evaluation.metrics import exact_match
from exsearch.records import Trajectory
from exsearch.trajectories import TRAJECTORIES_FILE, read_trajectories

WITHOUT, RIGHT = 0.95, 0.10  # the least share withheld without support, the most of right answers
THRESHOLDS = tuple(n / 20 for n in range(21))


@dataclasses.dataclass(frozen=True)
class Answered:
    """The confidence of each answer, sorted; -1 for a trajectory without one.

    Attributes:
        without: Of all questions whose support was taken out.
        right: Of those with support whose answer is right (exact match).
        wrong: Of those with support whose answer is not.
    """

    without: list[float]
    right: list[float]
    wrong: list[float]


def read(places: Sequence[Path]) -> list[Trajectory]:
    """The trajectories of files or of evaluations' folders; failed ones are left out.

    Raises:
        DataError: a file can't be read, or there is none in all.
    """
    files = [place / TRAJECTORIES_FILE if place.is_dir() else place for place in places]
    found = [t for file in files for t in read_trajectories(file) if not t.stop_reason.is_error]
    if not found:
        raise DataError(f"no trajectory in {', '.join(map(str, files))}")
    return found


def answered(with_support: Sequence[Trajectory], without: Sequence[Trajectory]) -> Answered:
    """The confidences of both sets."""
    right, wrong = list[float](), list[float]()
    for trajectory in with_support:
        is_right = exact_match(trajectory.answer, trajectory.question.answers) == 1
        (right if is_right else wrong).append(_value(trajectory))
    return Answered(sorted(map(_value, without)), sorted(right), sorted(wrong))


def _value(trajectory: Trajectory) -> float:
    return confidence(trajectory).value if trajectory.answer else -1.0


def withheld(values: Sequence[float], threshold: float) -> float | None:
    """The share of sorted confidences below a threshold; None where there are none."""
    below = max(bisect.bisect_left(values, threshold), bisect.bisect_left(values, 0.0))
    return below / len(values) if values else None


def row(found: Answered, threshold: float) -> dict[str, float | None]:
    """The shares that a threshold withholds."""
    shares = {
        f.name: withheld(getattr(found, f.name), threshold) for f in dataclasses.fields(found)
    }
    return {"threshold": threshold, **shares}


def chosen(found: Answered) -> dict[str, Any]:
    """The highest threshold that withholds at most `RIGHT` of the right answers.

    Raises:
        DataError: no answer is right, so that nothing can be chosen.
    """
    if not found.right:
        raise DataError("no answer with support is right; nothing can be chosen by them")
    allowed = int(RIGHT * len(found.right) + 1e-9)
    threshold = max(
        0.0, found.right[allowed]
    )  # so many are below it, or fewer where some are equal
    shares = row(found, threshold)
    without = shares["without"]
    return {**shares, "reached": without is not None and without >= WITHOUT}


def figures(found: Answered) -> dict[str, Any]:
    """All shares, and the threshold that is chosen."""
    counts = {name: len(of) for name, of in dataclasses.asdict(found).items()}
    return {
        "counts": counts,
        "thresholds": [row(found, threshold) for threshold in THRESHOLDS],
        "chosen": chosen(found),
    }


def _shares(shares: dict[str, Any]) -> str:
    return "  ".join(
        f"{name} {'-' if shares[name] is None else format(shares[name], '.3f')}"
        for name in ("without", "right", "wrong")
    )


def main() -> None:
    """Print the shares for a range of thresholds."""
    options = parser(__doc__)
    for name, what in (("with", "is in the corpus"), ("without", "was taken out")):
        options.add_argument(
            f"--{name}",
            dest=f"{name}_support",
            type=user_path,
            nargs="+",
            required=True,
            metavar="PLACE",
            help=f"trajectories, or evaluations' folders, of questions whose support {what}",
        )
    args = options.parse_args()
    found = figures(answered(read(args.with_support), read(args.without_support)))
    rows = [(f"{shares['threshold']:.2f}", _shares(shares)) for shares in found["thresholds"]]
    best = found["chosen"]
    rows.append((f"chosen: {best['threshold']:.4f}", _shares(best)))
    table(f"share withheld, of {found['counts']}", rows)
    said = "reached" if best["reached"] else "not reached"
    print(f"\n{WITHOUT:.0%} without support at {RIGHT:.0%} of the right answers: {said}")
    finish(found, args.json)


if __name__ == "__main__":
    launch(main)
