"""Measure how fast BM25 indexes, opens and searches, beside tantivy and rank_bm25.

    python -m benchmarks.retrieval [--sizes 10000 100000 1000000] [--runs 3] [--json]
    python -m benchmarks.retrieval --small        # 10,000 passages, below a minute

A synthetic corpus of each size is written into a temporary folder (TMPDIR says where; 2 GB for a
million passages). Every build and every search runs in a fresh process that is pinned to one core;
its peak resident memory counts all of that process, memory-mapped pages that it touched included.
The files have just been written, so they are in the page cache. tantivy is compared where it can be
imported, rank_bm25 (which keeps no index on disk: it opens by indexing) up to 10,000 passages; both
score the same words as ours.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.bm25_systems import K, Ours, RankBm25, Tantivy
from benchmarks.synthetic_corpus import SEED, make_queries, write_corpus
from exsearch.jobs.provenance import environment
from exsearch.records import Passage

BATCH = 32  # queries a call of `search`
WARM_UP, QUERIES = 100, 1000
MANY = 100_000  # a larger corpus is indexed once only
SLOW = 10_000  # rank_bm25 scores every passage in Python: too slow beyond
UNITS = {
    "passages_per_s": "passages/s",
    "index_mb": "index MB",
    "index_peak_mb": "indexing, peak MB",
    "open_s": "open s, with imports",
    "queries_per_s": "queries/s",
    "search_peak_mb": "searching, peak MB",
}


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure_build(system: Any, corpus: Path, index: Path, passages: int) -> dict[str, float]:
    """Index once."""
    _pin()
    start = time.perf_counter()
    system.build(corpus, index)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in index.rglob("*") if file.is_file())
    figures = {"passages_per_s": passages / seconds, "index_mb": size / 1e6}
    return figures | {"index_peak_mb": _peak_mb()}


def measure_search(system: Any, index: Path, queries: list[str]) -> tuple[dict[str, float], Any]:
    """Open once, and search for all queries; also what was found."""
    _pin()
    start = time.perf_counter()
    search = system.open(index)
    opened = time.perf_counter()
    search(queries[:WARM_UP])
    found: list[list[Passage]] = []
    begun = time.perf_counter()
    for at in range(WARM_UP, len(queries), BATCH):
        found += search(queries[at : at + BATCH])
    rate = len(found) / (time.perf_counter() - begun)
    figures = {"open_s": opened - start, "queries_per_s": rate, "search_peak_mb": _peak_mb()}
    return figures, [[(p.id, p.score) for p in list_] for list_ in found]


def _pin() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _peak_mb() -> float:
    """The peak resident memory of this process, without its parent's (which `ru_maxrss` has)."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def measure(passages: int, runs: int, queries: list[str], folder: Path) -> dict[str, Any]:
    """The figures of every system on one size of corpus, and how far their results agree."""
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, passages)
    systems = [Ours, *([Tantivy] if _present("tantivy") else [])]
    systems += [RankBm25] if _present("rank_bm25") and passages <= SLOW else []
    values = {system.name: {name: [] for name in UNITS} for system in systems}
    found = {}
    for run in range(runs):
        for system in systems:
            _say(f"{passages:,} passages, run {run + 1} of {runs}: {system.name}")
            figures, place = {}, corpus
            if system is not RankBm25:
                place = folder / f"{system.name}-{run if passages <= MANY else 0}"
                if not place.exists():
                    figures = fresh(measure_build, system, corpus, place, passages)
            asked = queries[: 2 * WARM_UP] if system is RankBm25 else queries
            searched, found[system.name] = fresh(measure_search, system, place, asked)
            for name, value in (figures | searched).items():
                values[system.name][name].append(value)
    others = [name for name in found if name != Ours.name]
    return {
        "passages": passages,
        "systems": {name: _summaries(each) for name, each in values.items()},
        "agreement": {name: _agreement(found[Ours.name], found[name]) for name in others},
    }


def _summaries(values: dict[str, list[float]]) -> dict[str, Any]:
    return {
        name: {"median": statistics.median(v), "min": min(v), "max": max(v), "n": len(v)}
        for name, v in values.items()
        if v
    }


def _agreement(ours: list[Any], theirs: list[Any]) -> dict[str, float]:
    """How much of the best k is the same, and by how much the scores at a rank differ at most."""
    pairs = list(zip(ours, theirs, strict=False))
    shared = sum(len({i for i, _ in a} & {i for i, _ in b}) for a, b in pairs)
    scores = [(x, y) for a, b in pairs for (_, x), (_, y) in zip(a, b, strict=False)]
    return {
        "queries": len(pairs),
        "shared_of_best": shared / len(scores),
        "score_difference": max(abs(x - y) / y for x, y in scores),
    }


def _present(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_tables(sizes: list[dict[str, Any]]) -> None:
    """A table a size: medians, with the least and the most where there are several."""
    for size in sizes:
        systems = size["systems"]
        heading = f"{size['passages']:,} passages"
        print(f"\n{heading:<20}", *(f"{name:>24}" for name in systems))
        for figure, unit in UNITS.items():
            cells = [f"{_cell(each.get(figure)):>24}" for each in systems.values()]
            print(f"{unit:<20}", *cells)
        for name, it in size["agreement"].items():
            print(
                f"exsearch finds {it['shared_of_best']:.1%} of {name}'s best {K}; scores at a rank "
                f"differ by {it['score_difference']:.1e} at most ({it['queries']} queries)"
            )


def _cell(summary: dict[str, Any] | None) -> str:
    if not summary:
        return "-"
    digits = 3 if summary["median"] < 10 else 0
    median, low, high = (f"{summary[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return median if summary["n"] == 1 else f"{median} ({low}-{high})"


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="10,000 passages only")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    if args.runs < 1 or min(args.sizes) < WARM_UP + QUERIES:
        parser.error(f"give 1 run or more, and sizes of {WARM_UP + QUERIES:,} passages or more")
    versions = {}
    for package, module in (("tantivy", "tantivy"), ("rank-bm25", "rank_bm25")):
        versions[package] = importlib.metadata.version(package) if _present(module) else None
        if not _present(module):
            _say(f"{package} is left out: it is not installed here (pip install {package})")
    queries = make_queries(WARM_UP + QUERIES, min(args.sizes))
    sizes = []
    for passages in [10_000] if args.small else args.sizes:
        with tempfile.TemporaryDirectory(prefix="retrieval-") as folder:
            sizes.append(measure(passages, args.runs, queries, Path(folder)))
    print_tables(sizes)
    if args.json:
        settings = {"k": K, "batch": BATCH, "queries": QUERIES, "cores": 1, "seed": SEED}
        where = environment()
        where["versions"] |= versions
        print(json.dumps({"settings": settings, "environment": where, "sizes": sizes}))


if __name__ == "__main__":
    main()
