"""Questions a second of a server, beside a rollout of the same questions by the same model.

    python -m benchmarks.serve_throughput [--clients 8 32] [--questions 64] [--json]

For each number of clients a server runs with as many rows as there are clients; each client asks
its next question when it has the answer to the last, as a stream. The rollout writes as many
sequences side by side, one sample a question, greedy, over the same index: it never waits for a
client. Both take turns, so noise hits both alike; the rollout is the ceiling.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.report import finish, launch, parser, spread, table
from benchmarks.serve_retriever import server
from exsearch.agent.rollout import rollout
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.engines import load_engine
from exsearch.engines.base import GREEDY
from exsearch.hardware import usable_cores
from exsearch.models.settings import model_settings
from exsearch.records import Question
from exsearch.retrievers import build_index, open_retriever


async def asked(address: str, model: str, questions: list[str], clients: int) -> float:
    """Seconds in which that many clients get all questions answered."""
    waiting = iter(questions)

    async def client(http: httpx2.AsyncClient) -> None:
        for question in waiting:
            body = {
                "model": model,
                "stream": True,
                "messages": [{"role": "user", "content": question}],
            }
            url = f"{address}/v1/chat/completions"
            async with http.stream("POST", url, json=body) as reply:
                lines = [line async for line in reply.aiter_lines()]
                if reply.status_code != 200 or "data: [DONE]" not in lines:
                    raise SystemExit(f"error: HTTP {reply.status_code}: {lines[-1:]}")

    async with httpx2.AsyncClient(timeout=600, trust_env=False) as http:
        start = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        return time.perf_counter() - start


def rolled_out(engine: Any, index: Path, model: str, questions: list[Question]) -> float:
    """Seconds of a rollout of all questions."""
    retriever = open_retriever(index)
    start = time.perf_counter()
    done = rollout(
        questions, engine, retriever, method=model_settings(model).method, sampling=GREEDY
    )
    assert len(done) == len(questions)
    return time.perf_counter() - start


def measure(args: argparse.Namespace, index: Path) -> dict[str, Any]:
    """The figures for each number of clients."""
    known = load_questions(sample_path("train"))
    questions = list(itertools.islice(itertools.cycle(known), args.questions))
    texts = [question.question for question in questions]
    figures: dict[str, Any] = {}
    for clients in args.clients:
        engine = load_engine(args.model, batch_size=clients)
        served: list[float] = []
        local: list[float] = []
        options = ("--model", args.model, "--index", index, "--batch-size", clients)
        with server("serve", *options) as address:
            asyncio.run(asked(address, args.model, texts[:clients], clients))  # warms both up
            rolled_out(engine, index, args.model, questions[:clients])
            for _ in range(args.runs):
                local.append(len(texts) / rolled_out(engine, index, args.model, questions))
                seconds = asyncio.run(asked(address, args.model, texts, clients))
                served.append(len(texts) / seconds)
        figures[f"clients_{clients}"] = {
            "served_questions_per_s": spread(served),
            "rollout_questions_per_s": spread(local),
            "share": statistics.median(s / r for s, r in zip(served, local, strict=True)),
        }
    return figures


def main() -> None:
    """Measure what the command line asks for."""
    options = parser(__doc__)
    options.add_argument("--model", default="exsearch-smollm2-135m")
    options.add_argument("--clients", type=int, nargs="+", default=[8, 32])
    options.add_argument("--questions", type=int, default=64)
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        index = Path(folder) / "index"
        build_index(read_corpus([sample_path("corpus")]), index, progress=False)
        figures = measure(args, index)
    rows = [(f"{name}: {key}", v) for name, own in figures.items() for key, v in own.items()]
    table(f"Questions over HTTP beside a rollout, {usable_cores()} cores", rows)
    finish({"cores": usable_cores(), "settings": vars(args), **figures}, args.json)


if __name__ == "__main__":
    launch(main)
