"""How far the loss budget of a diagnosis agrees with a reading of the same trajectories.

    python -m tools.reading results/readings/second.jsonl --index data/four-sets-index PLACE...

The first file names a question and a cause a line, as a reader saw it who never saw the diagnosis;
each PLACE is an evaluation that was read. Prints Cohen's kappa and what was told apart how often.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sklearn.metrics import cohen_kappa_score

from exsearch.data.json_lines import read_objects
from exsearch.diagnosis.loss import cause
from exsearch.diagnosis.parts import read_parts
from exsearch.diagnosis.reach import reach_all
from exsearch.retrievers import open_retriever


def causes(places: Sequence[Path], index: Path) -> dict[tuple[str, str], str]:
    """The diagnosed cause of each wrong answer, by the place's name and the question's id."""
    parts = [part for place in places for part in read_parts(place)]
    names = [part.place.name for part in parts for _ in part.samples]
    told = [sample.trajectory for part in parts for sample in part.samples]
    cases, _ = reach_all(told, open_retriever(index))
    return {
        (name, case.trajectory.question.id): found.value
        for name, case in zip(names, cases, strict=True)
        if (found := cause(case)) is not None
    }


def kappa(read: Sequence[str], diagnosed: Sequence[str]) -> float:
    """Cohen's kappa of two lists of causes of the same answers."""
    return float(cohen_kappa_score(read, diagnosed))


def main() -> None:
    """Compare what the command line names."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("readings", type=Path)
    options.add_argument("places", type=Path, nargs="+", metavar="PLACE")
    options.add_argument("--index", type=Path, required=True)
    args = options.parse_args()
    found = causes(args.places, args.index)
    pairs = [
        (row["cause"], found.get((row["part"], row["id"]), "not diagnosed"))
        for _, row in read_objects(args.readings, "readings")
    ]
    agreed = sum(read == diagnosed for read, diagnosed in pairs)
    share = kappa(*zip(*pairs, strict=True))
    print(f"kappa {share:.2f}; {agreed} of {len(pairs)} the same")
    for (read, diagnosed), count in sorted(Counter(pairs).items(), key=lambda each: -each[1]):
        print(f"  {count:3}  read as {read!r}, diagnosed as {diagnosed!r}")


if __name__ == "__main__":
    main()
