"""Compare indexes of vectors: recall against exact search, speed, memory, size, build and opening.

    python -m benchmarks.dense_indexes --index DIR --questions FILE... [--json]
    python -m benchmarks.dense_indexes --synthetic 1000000 [--only usearch]
    python -m benchmarks.dense_indexes --small        # 5,000 synthetic vectors, below a minute

`--index` is a `dense` index, whose model encodes the questions; synthetic vectors lie in clusters
of clusters, and a query is a vector that was moved. Every build and every search runs in a fresh
process that is pinned to one core, on files that are in the page cache. Each system is searched
with rising effort until 97 % of the exact first 20 are among its own first 20. `re-scored` takes
its first 80 instead and orders them by their exact scores; it needs the matrix beside the index,
whose size is not counted.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dense_systems import SYSTEMS
from benchmarks.report import finish, launch, parser
from benchmarks.retrieval import _peak_mb, _pin, fresh
from exsearch.data.questions import load_questions
from exsearch.retrievers import FACTS_FILE
from exsearch.retrievers.encoder import Encoder
from exsearch.retrievers.encoding import VECTORS_FILE
from exsearch.retrievers.vectors import Vectors

K, CANDIDATES, GOAL = 20, 80, 0.97
DIMENSIONS = 384
QUERIES = 500
SPREAD, MOVED = 1.0, 1.0  # of a cluster, and from a vector to its query


def synthetic(file: Path, rows: int, seed: int = 0) -> np.ndarray:
    """Write unit vectors in clusters of clusters, and give queries near some of them."""
    random = np.random.default_rng(seed)
    spectrum = (1 + np.arange(DIMENSIONS)) ** -0.5  # some directions tell more than others
    topics = random.standard_normal((max(1, rows // 10_000), DIMENSIONS)) * spectrum
    clusters = max(1, rows // 50)
    centres = topics[random.integers(len(topics), size=clusters)]
    centres = centres + 0.8 * random.standard_normal((clusters, DIMENSIONS)) * spectrum
    share = random.pareto(1.5, clusters) + 0.1
    queries = []
    with file.open("wb") as out:
        for start in range(0, rows, 50_000):
            count = min(50_000, rows - start)
            near = centres[random.choice(clusters, count, p=share / share.sum())]
            part = near + SPREAD * random.standard_normal((count, DIMENSIONS)) * spectrum
            out.write(_unit(part).tobytes())
            some = part[:: max(1, rows // QUERIES)]
            queries.append(some + MOVED * random.standard_normal(some.shape) * spectrum)
    return _unit(np.concatenate(queries))[:QUERIES]


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(place: tuple[Any, ...], queries: np.ndarray) -> dict[str, Any]:
    """The exact search: what it finds, and its figures."""
    _pin()
    start = time.perf_counter()
    vectors = Vectors(*place)
    opened = time.perf_counter() - start
    vectors.nearest(queries[:2], K)
    start = time.perf_counter()
    found = [vectors.nearest(query[None], K)[0][0] for query in queries]
    rate = len(queries) / (time.perf_counter() - start)
    size = vectors.matrix.nbytes / 1e6
    return {"found": found, "open_s": opened, "rate": rate, "mb": size, "peak_mb": _peak_mb()}


def build(system: Any, place: tuple[Any, ...], folder: Path) -> dict[str, float]:
    """Build once."""
    _pin()
    start = time.perf_counter()
    system.build(Vectors(*place).matrix, folder)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in folder.rglob("*")) / 1e6
    return {"build_s": seconds, "mb": size}


def search(
    system: Any, place: tuple[Any, ...], folder: Path, queries: np.ndarray, true: list[np.ndarray]
) -> dict[str, Any]:
    """Open, and search with rising effort until the goal is reached, plain and re-scored."""
    _pin()
    importlib.import_module(system.package)
    start = time.perf_counter()
    find = system.open(folder)
    figures: dict[str, Any] = {"open_s": time.perf_counter() - start}
    vectors = Vectors(*place)

    def rescored(query: np.ndarray, k: int, effort: int) -> np.ndarray:
        rows = find(query, min(CANDIDATES, len(vectors)), effort)
        return vectors.rank(query, rows[rows >= 0], k)[0]

    for name, function in (("plain", find), ("rescored", rescored)):
        for effort in system.efforts:
            function(queries[0], K, effort)
            start = time.perf_counter()
            found = [function(query, K, effort) for query in queries]
            rate = len(queries) / (time.perf_counter() - start)
            recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, true, strict=True)])
            figures[name] = {"effort": effort, "recall": float(recall), "rate": rate}
            if recall >= GOAL:
                break
    return figures | {"peak_mb": _peak_mb()}


def compare(place: tuple[Any, ...], queries: np.ndarray, only: str) -> dict[str, Any]:
    """The figures of every system that is installed, by name."""
    figures = {"exact": fresh(exact, place, queries)}
    true = figures["exact"].pop("found")
    for system in SYSTEMS:
        if only not in system.name or importlib.util.find_spec(system.package) is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            figures[system.name] = fresh(build, system, place, Path(folder))
            found = fresh(search, system, place, Path(folder), queries, true)
            figures[system.name] |= found
    return figures


def _rows(figures: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, f in figures.items():
        row = [name, *(f"{f[key]:.3g}" if key in f else "" for key in ("build_s", "mb", "open_s"))]
        row.append(f"{f['peak_mb']:.0f}")
        if "rate" in f:
            row += ["1", f"{f['rate']:.0f}", "", ""]
        else:
            for way in (f["plain"], f["rescored"]):
                row += [f"{way['recall']:.3f} ({way['effort']})", f"{way['rate']:.0f}"]
        rows.append(row)
    return rows


HEAD = [
    "index",
    "build s",
    "MB",
    "open s",
    "peak MB",
    "recall@20 (effort)",
    "queries/s",
    "re-scored",
    "queries/s",
]


def main() -> None:
    """Run the comparison."""
    options = parser(__doc__)
    options.add_argument("--index", type=Path, help="a dense index of passages")
    options.add_argument("--questions", type=Path, nargs="*", default=[], help="question files")
    options.add_argument("--synthetic", type=int, help="the number of synthetic vectors")
    options.add_argument("--small", action="store_true", help="5,000 synthetic vectors")
    options.add_argument("--only", default="", help="systems with this in their name only")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.index:
            facts = json.loads((args.index / FACTS_FILE).read_text())
            shape = facts["passages"], facts["encoder"]["dimensions"], facts["dtype"]
            place = (args.index / VECTORS_FILE, *shape, facts["longest"])
            texts = [q.question for file in args.questions for q in load_questions(file)]
            queries = Encoder.open(facts["model"]).queries(texts)
        else:
            rows = 5000 if args.small else args.synthetic or 1_000_000
            file = Path(scratch) / "vectors"
            queries = synthetic(file, rows)
            place = (file, rows, DIMENSIONS, "float32", 1.001)
        figures = compare(place, queries, args.only)
    for row in (HEAD, ["---"] * len(HEAD), *_rows(figures)):
        print(f"| {' | '.join(row)} |")
    finish({"systems": figures}, args.json)


if __name__ == "__main__":
    launch(main)
