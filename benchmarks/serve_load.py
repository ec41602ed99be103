"""Many clients at once: what a server adds to the time of an answer, and how it bears them.

    python -m benchmarks.serve_load [--clients 1000] [--json]

The server runs in a process of its own, with an engine that follows a script and takes `--pace`
seconds a pass, however many sequences are in it: so the machine's time goes to serving alone. All
clients are streams of one further process.

    latency  100 clients that keep asking, with pauses of random length: from the end of a question
             in the server's log until its client has the last of the stream
    hold     all clients at once, with a queue that holds them: those that got their answer
    vanish   all clients at once, which hang up: seconds until no question, connection, task and
             descriptor more is left than before
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import httpx2
import uvicorn

from benchmarks.report import finish, launch, parser, table
from exsearch.engines.base import Generation, Request, Sampling
from exsearch.engines.scripted import ScriptedEngine
from exsearch.hardware import usable_cores
from exsearch.http_server import address_of, listen
from exsearch.records import Passage
from exsearch.retrievers.guarded import guarded
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving.app import make_app

SCRIPT = (
    ("Copy the fact", "[1] The harbour was built by Ada Fenwick"),
    ("Notes:\nnone", "Search: harbour builder"),
    ("Notes:", "Answer: Ada Fenwick"),
)
FOUND = Passage("h", "Harbour", "The harbour was built by Ada Fenwick, of Wales.", 1.0)
CALLS = 3  # of the model, for a question of this script
PATIENCE = 30.0  # seconds until those that vanished must be gone


class Paced(ScriptedEngine):
    """A scripted engine whose passes take their time."""

    def __init__(self, pace: float):
        super().__init__(SCRIPT)
        self._pace = pace

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One scripted reply a request, after a while (`Engine.generate`)."""
        time.sleep(self._pace)
        return super().generate(requests, sampling)


class Shelf:
    """A retriever that finds the same passage for every query."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The passage, for every query (`Retriever.search`)."""
        return [[FOUND] for _ in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passage, for every id (`Retriever.fetch`)."""
        return [FOUND for _ in ids]

    def identity(self) -> str:
        """Its name (`Retriever.identity`)."""
        return "shelf"


def serve(channel: Connection, pace: float, most: int) -> None:
    """Serve until the channel says to end; on other words say what is in hand.

    Args:
        channel: The parent's end gets the address, then a reply to each word.
        pace: Seconds of a pass of the engine.
        most: The most questions in hand.
    """
    with Searcher(Paced(pace), guarded(Shelf())) as searcher, listen("127.0.0.1", 0) as listener:
        app, questions = make_app(searcher, ServeConfig("paced", max_questions=most, kept=10_000))
        settings = uvicorn.Config(app, log_config=None, access_log=False)
        server = uvicorn.Server(settings)
        loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(server.serve([listener]))

        thread = threading.Thread(target=run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        channel.send(address_of(listener))
        while (word := channel.recv()) != "end":
            if word == "state":
                channel.send(
                    {
                        "questions": len(questions),
                        "connections": len(server.server_state.connections),
                        "tasks": len(asyncio.all_tasks(loop)),
                        "descriptors": len(os.listdir("/proc/self/fd")),
                    }
                )
            else:  # an id: when did it end?
                log = questions.find(word)
                channel.send(log.events[-1].at if log else None)
        server.should_exit = True
        thread.join()


async def answer(client: httpx2.AsyncClient, address: str) -> tuple[int, str, float, bool]:
    """Ask as a stream: status, id, when the last of it came, and whether it was an answer."""
    body = {"model": "paced", "stream": True, "messages": [{"role": "user", "content": "Who?"}]}
    async with client.stream("POST", f"{address}/v1/chat/completions", json=body) as reply:
        id_, said, last = "", "", 0.0
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                id_, last = chunk.get("id", ""), time.time()
                said += "".join(c["delta"].get("content") or "" for c in chunk.get("choices", []))
            elif line == "data: [DONE]":
                last = time.time()
        return reply.status_code, id_.removeprefix("chatcmpl-"), last, "Ada Fenwick" in said


def client_of(clients: int) -> httpx2.AsyncClient:
    """A client with a connection for each stream."""
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=0)
    return httpx2.AsyncClient(limits=limits, timeout=120, trust_env=False)


async def ask_all(address: str, clients: int) -> list[tuple[int, str, float, bool]]:
    """All clients ask at once."""
    async with client_of(clients) as client:
        return await asyncio.gather(*(answer(client, address) for _ in range(clients)))


async def keep_asking(address: str, clients: int, rounds: int, pause: float) -> list[Any]:
    """All clients ask, each again and again, after pauses of up to `pause` seconds."""
    turns = random.Random(0)

    async def one(client: httpx2.AsyncClient) -> list[Any]:
        done = []
        for _ in range(rounds):
            await asyncio.sleep(pause * turns.random())
            done.append(await answer(client, address))
        return done

    async with client_of(clients) as client:
        each = await asyncio.gather(*(one(client) for _ in range(clients)))
    return [reply for own in each for reply in own]


async def hang_up(address: str, clients: int, channel: Connection) -> float:
    """All clients ask at once and hang up; the seconds until nothing is left of them."""
    before = state(channel)
    async with client_of(clients) as client:
        asked = [asyncio.create_task(answer(client, address)) for _ in range(clients)]
        while (await asyncio.to_thread(state, channel))["questions"] < clients:
            await asyncio.sleep(0.05)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    start = time.perf_counter()
    while time.perf_counter() - start < PATIENCE:
        now = await asyncio.to_thread(state, channel)
        if all(now[name] <= before[name] for name in before):
            return time.perf_counter() - start
        await asyncio.sleep(0.02)
    raise SystemExit(f"error: {clients} clients that hung up left {now}, before them {before}")


def state(channel: Connection) -> dict[str, int]:
    """What the server has in hand."""
    channel.send("state")
    return channel.recv()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of all three."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(there, args.pace, args.clients))
    process.start()
    try:
        address = here.recv()
        asyncio.run(ask_all(address, 10))  # what is imported and opened on first use
        few = min(100, args.clients)
        added: list[float] = []
        pause = CALLS * args.pace
        for _, id_, last, _ in asyncio.run(keep_asking(address, few, args.rounds, pause)):
            here.send(id_)
            added.append(1000 * (last - here.recv()))
        start = time.perf_counter()
        done = asyncio.run(ask_all(address, args.clients))
        seconds = time.perf_counter() - start
        gone = asyncio.run(hang_up(address, args.clients, here))
    finally:
        here.send("end")
        process.join(30)
        process.kill()
    quantiles = statistics.quantiles(added, n=100)
    return {
        "latency_clients": few,
        "added_p50_ms": quantiles[49],
        "added_p99_ms": quantiles[98],
        "hold_clients": args.clients,
        "answered": sum(right and status == 200 for status, *_, right in done),
        "not_200": sum(status != 200 for status, *_ in done),
        "hold_seconds": seconds,
        "hold_seconds_of_the_engine": CALLS * args.pace,
        "vanish_clients": args.clients,
        "vanished_seconds": gone,
    }


def main() -> None:
    """Measure what the command line asks for."""
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=1000)
    options.add_argument("--pace", type=float, default=0.5, help="seconds of a pass of the engine")
    options.add_argument("--rounds", type=int, default=5, help="questions a client of `latency`")
    args = options.parse_args()
    figures = measure(args)
    table(f"Serving, {usable_cores()} cores", list(figures.items()))
    finish({"cores": usable_cores(), "pace": args.pace, **figures}, args.json)


if __name__ == "__main__":
    launch(main)
