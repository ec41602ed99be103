"""Measure how many queries a second a search server answers, with more and more workers.

    python -m benchmarks.serve_retriever [--workers 1 2 4] [--passages 100000] [--json]
    python -m benchmarks.serve_retriever --small       # 10,000 passages, 2 seconds, 1 and 2 workers

A synthetic corpus is indexed into a temporary folder (TMPDIR says where). For each number of
workers a server is started on loopback, and processes ask it: each has one connection and sends its
next request when the reply to the last is there. A server remembers no search. The servers take
turns over `--runs` rounds, so that noise hits all alike. Beside them stands the same index searched
in one process without HTTP. Clients and workers share the cores of this machine: with fewer cores
than workers, more of them can't give more.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.report import finish, launch, parser, spread, table
from benchmarks.synthetic_corpus import make_queries, write_corpus
from exsearch.data.corpus import read_corpus
from exsearch.hardware import usable_cores
from exsearch.retrievers import build_index, open_retriever

K = 5
QUERIES = 4000


@contextlib.contextmanager
def server(*arguments: object) -> Iterator[str]:
    """The address of a server on loopback, which a command with these arguments starts."""
    command = [sys.executable, "-m", "exsearch", *map(str, arguments), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.terminate()


def ask(address: str, queries: list[str], batch: int, seconds: float, number: int) -> Any:
    """Ask for some seconds: the queries that were answered, and the seconds of each request."""
    asked = itertools.cycle(random.Random(number).sample(queries, len(queries)))
    times: list[float] = []
    # Of the clients at hand this one takes the least time from the server.
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        body = {"queries": list(itertools.islice(asked, batch)), "topk": K, "return_scores": True}
        connection.request(
            "POST", "/retrieve", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        found = json.loads(response.read())["result"]
        if response.status != 200 or len(found) != batch:
            raise RuntimeError(f"HTTP {response.status}: {len(found)} lists for {batch} queries")
        times.append(time.perf_counter() - start)
    connection.close()
    return len(times) * batch, times


def load(address: str, clients: int, queries: list[str], batch: int, seconds: float) -> Any:
    """The queries a second of all clients together, and the seconds of all requests."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(clients, mp_context=context) as pool:
        list(pool.map(abs, range(clients)))  # all have started
        asked = [pool.submit(ask, address, queries, batch, seconds, n) for n in range(clients)]
        done = [one.result() for one in asked]
    return sum(count for count, _ in done) / seconds, [t for _, times in done for t in times]


def without_http(index: Path, queries: list[str], batch: int, seconds: float) -> float:
    """The queries a second of the same index in this process."""
    retriever = open_retriever(index, cache=0)
    asked = itertools.cycle(queries)
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        retriever.search(list(itertools.islice(asked, batch)), K)
        count += batch
    return count / seconds


def measure(args: argparse.Namespace, index: Path, queries: list[str]) -> dict[str, Any]:
    """The figures of each number of workers, over all rounds."""
    rates: dict[int, list[float]] = {workers: [] for workers in args.workers}
    times: dict[int, list[float]] = {workers: [] for workers in args.workers}
    local: list[float] = []
    for _ in range(args.runs):
        local.append(without_http(index, queries, args.batch, args.seconds))
        for workers in args.workers:
            with server("serve-retriever", index, "--workers", workers) as address:
                rate, seconds = load(address, args.clients, queries, args.batch, args.seconds)
            rates[workers].append(rate)
            times[workers] += seconds
    first = statistics.median(rates[args.workers[0]])
    figures: dict[str, Any] = {"without_http_queries_per_s": spread(local)}
    for workers in args.workers:
        quantiles = statistics.quantiles(times[workers], n=100)
        figures[f"workers_{workers}"] = {
            "queries_per_s": spread(rates[workers]),
            "ratio_to_first": statistics.median(rates[workers]) / first,
            "p50_ms": 1000 * quantiles[49],
            "p99_ms": 1000 * quantiles[98],
        }
    return figures


def main() -> None:
    """Measure what the command line asks for."""
    options = parser(__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--clients", type=int, default=8, help="processes that ask")
    options.add_argument("--batch", type=int, default=8, help="queries of a request")
    options.add_argument("--passages", type=int, default=100_000)
    options.add_argument("--seconds", type=float, default=10, help="for each server and round")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--small", action="store_true")
    args = options.parse_args()
    if args.small:
        args.passages, args.seconds, args.runs, args.workers = 10_000, 2, 1, [1, 2]
    queries = make_queries(QUERIES, args.passages)
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        corpus, index = Path(folder) / "corpus.jsonl", Path(folder) / "index"
        write_corpus(corpus, args.passages)
        build_index(read_corpus([corpus]), index, progress=False)
        figures = measure(args, index, queries)
    rows = [("without HTTP, queries/s", figures["without_http_queries_per_s"])]
    for workers in args.workers:
        rows += [
            (f"{workers} workers: {name}", value)
            for name, value in figures[f"workers_{workers}"].items()
        ]
    table(f"Queries over HTTP: {args.clients} clients, {usable_cores()} cores", rows)
    settings = {n: getattr(args, n) for n in ("clients", "batch", "passages", "seconds", "runs")}
    finish({"cores": usable_cores(), "settings": settings, **figures}, args.json)


if __name__ == "__main__":
    launch(main)
