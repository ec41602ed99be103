"""The places that every test of `tests/retrievers/test_places.py` is run on: the contract's table.

A kind of retriever that is added gets a line in `PLACES`. Small models are made here, servers are
started here; nothing here is a mock.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import search_servers
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.records import Passage
from exsearch.retrievers import build_index
from search_server import search_server
from tiny_encoders import save_tiny_encoder

PASSAGES = [
    *list(read_corpus([sample_path("corpus")]))[:24],
    Passage(
        "ü/1 %?#\U0001f41d", "Café São Paulo", "Röntgen\u2019s naïve \uff46ull albums, e\u0301."
    ),
    Passage("zh", "蜜蜂", "蜜蜂是一种会飞行的群居昆虫。蜂蜜是蜜蜂酿造的。"),
    Passage("ar", "نحل", "النحل حشرات طائرة \u202eabc\u202c."),
    Passage("emoji", "", "\U0001f469\u200d\U0001f52c a scientist \U0001f41d \U0001f600"),
    Passage(
        "odd", 'a "title"\twith {}\\', "  A text\n\nwith lines, <b>tags</b>,\ttabs and an end. \n"
    ),
    Passage("long", "Zebras", "Zebras have stripes. " + "They eat grass. " * 2000),
]
PASSAGES[0] = dataclasses.replace(PASSAGES[0], url="https://bees.example/蜜蜂?a=1#b")


@dataclass(frozen=True)
class Place:
    """How to make a place, and what can befall it.

    Attributes:
        make: A context that gives a place which holds passages. It gets the passages, which are
            read once, and a folder of its own to work in: another folder is another place. Called
            again with the same folder, it makes the place anew.
        build: The part of `make` that a killed process was at; None where another kind builds. It
            runs in a process of its own, which finds the table by importing this module.
        where: The place that `build` fills, by the same folder; needed where there is a `build`.
        folder: True where the place is an index folder, whose files can be damaged.
        address: The address of a server of this kind at a port of this machine, which need not
            run; a short deadline of its own belongs into it. None for a kind without a server.
    """

    make: Callable[[Iterable[Passage], Path], AbstractContextManager[str | Path]]
    build: Callable[[Iterable[Passage], Path], object] | None = None
    where: Callable[[Path], str | Path] = lambda folder: folder / "index"
    folder: bool = True
    address: Callable[[int], str] | None = None


def built(kind: str, **settings: Any) -> Place:
    """An index folder of a kind that `build_index` builds from passages."""

    def build(passages: Iterable[Passage], folder: Path) -> None:
        build_index(passages, folder / "index", kind=kind, settings=settings, progress=False)

    @contextmanager
    def make(passages: Iterable[Passage], folder: Path) -> Iterator[Path]:
        build(passages, folder)
        yield folder / "index"

    return Place(make, build)


@contextmanager
def served(passages: Iterable[Passage], folder: Path) -> Iterator[str]:
    """The address of a server in front of a BM25 index."""
    build_index(passages, folder / "index", progress=False)
    with search_server(folder / "index") as server:
        yield f"{server.address}?timeout=50"


@functools.cache
def tiny_encoder() -> Path:
    """The folder of a model that is made once a process; everywhere its content is the same."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    save_tiny_encoder(folder, pooling="mean", similarity_fn_name="cosine")
    return folder / "model"


def dense(**settings: Any) -> Place:
    """A dense index by the tiny model."""

    def build(passages: Iterable[Passage], folder: Path) -> None:
        values = {"model": str(tiny_encoder()), "device": "cpu", **settings}
        place = built("dense", **values)
        assert place.build
        place.build(passages, folder)

    @contextmanager
    def make(passages: Iterable[Passage], folder: Path) -> Iterator[Path]:
        build(passages, folder)
        yield folder / "index"

    return Place(make, build)


def combined(**options: Any) -> Place:
    """Two indexes fused, or one re-ranked: they stand beside it, so it is not moved alone."""

    @contextmanager
    def make(passages: Iterable[Passage], folder: Path) -> Iterator[Path]:
        from exsearch.retrievers.combine import combine

        every = list(passages)
        build_index(every, folder / "one", kind="bm25", progress=False)
        places = [folder / "one"]
        if not options:
            more = {"title_weight": 0}
            build_index(every, folder / "two", kind="bm25", settings=more, progress=False)
            places.append(folder / "two")
        combine(places, folder / "index", **{name: make() for name, make in options.items()})
        yield folder / "index"

    return Place(make, folder=False)


def reranking() -> Any:
    """The first 20 passages, by a tiny cross-encoder that is made once."""
    from exsearch.retrievers.rerank import Reranking
    from tiny_rerankers import save_tiny_cross_encoder

    global _model
    if not _model:
        _model = tempfile.TemporaryDirectory()
        save_tiny_cross_encoder(Path(_model.name))
    return Reranking(str(Path(_model.name) / "model"))


_model: tempfile.TemporaryDirectory[str] | None = None


def filled(where: Callable[[Path], str], address: Callable[[int], str]) -> Place:
    """A collection at a server of the tests that `build_index` fills."""

    def build(passages: Iterable[Passage], folder: Path) -> None:
        build_index(passages, where(folder), progress=False)

    @contextmanager
    def make(passages: Iterable[Passage], folder: Path) -> Iterator[str]:
        build(passages, folder)
        yield where(folder)

    return Place(make, build, where, folder=False, address=address)


PLACES: dict[str, Place] = {
    "bm25": built("bm25"),
    "http": Place(served, folder=False, address=lambda p: f"http://127.0.0.1:{p}?timeout=1"),
    "dense": dense(),
    "dense, ivf": dataclasses.replace(dense(index="ivf", dtype="float16"), build=None),
    "elasticsearch": filled(
        search_servers.elasticsearch_index,
        lambda port: f"elasticsearch://127.0.0.1:{port}/docs?timeout=1&retries=1",
    ),
    "opensearch": filled(
        search_servers.opensearch_index,
        lambda port: f"opensearch://127.0.0.1:{port}/docs?timeout=1&retries=1",
    ),
    "milvus": filled(
        search_servers.milvus_collection,
        lambda port: f"milvus://127.0.0.1:{port}/docs?timeout=1",
    ),
    "postgresql": filled(
        search_servers.postgres_table,
        lambda port: f"postgresql://me@127.0.0.1:{port}/db?table=docs&timeout=1&retries=1",
    ),
    "qdrant": filled(
        search_servers.qdrant_collection,
        lambda port: f"qdrant://127.0.0.1:{port}/docs?timeout=1&retries=1",
    ),
    "hybrid of two bm25": combined(),
    "rerank by a cross-encoder": combined(reranking=reranking),
}

# What may sit at the port of a server that is broken: what it replies, b"" for nothing ever.
BROKEN = {
    "dead": None,
    "slow": b"",
    "noise": random.Random(1).randbytes(5000),
    "not json": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n<html>..\n",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\nConnection: close\r\n\r\n{",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "error": b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "elsewhere": b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
}


@contextmanager
def broken_server(reply: bytes | None) -> Iterator[int]:
    """A port where a server gives one reply to whatever comes; b"" never replies, None is dead."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return  # closed
                held.append(connection)
                if reply:
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(reply or b"")
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # so that what was sent is not reset
                        pass
                except OSError:
                    pass  # it hung up

        if reply is None:
            server.close()
            yield port
            return
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield port
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
