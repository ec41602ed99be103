"""Data is what comes in: questions, passages, and other people's file formats.

It does not search, score or train; `sample_path` names the small files that ship in the package.
"""

from __future__ import annotations

from pathlib import Path

# That `formats` converts.
FORMATS = (
    *("hotpotqa", "2wikimultihopqa", "musique", "nq-open", "webquestions", "triviaqa", "popqa"),
    *("bamboogle", "flashrag", "beir", "kilt", "search-r1"),
)
FETCHED = ("hotpotqa", "2wikimultihopqa", "musique", "nq-open")  # that `fetching` has a home of
SAMPLES = ("corpus", "train", "dev", "test")


def sample_path(name: str) -> Path:
    """The path of a packaged sample file: `corpus`, `train`, `dev` or `test`.

    Raises:
        ValueError: no sample has this name.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample is called {name!r}; the samples are {', '.join(SAMPLES)}")
    return Path(__file__).parent / "sample" / f"{name}.jsonl"
