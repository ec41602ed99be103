"""A dense index finds the passages whose vectors have the largest dot product with a query's.

Vectors are an `Encoder`'s; all stay in one memory-mapped matrix, by which every result is scored
exactly. An approximate index only names the rows that are worth scoring. It trains no model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exsearch.errors import ConfigError, IndexDamagedError, ModelError, RetrieverError
from exsearch.json_files import read_json
from exsearch.progress import Bars
from exsearch.records import Passage
from exsearch.retrievers import FACTS_FILE, REMEDY
from exsearch.retrievers.base import Indexable, refuse_search
from exsearch.retrievers.encoder import Encoder
from exsearch.retrievers.encoding import VECTORS_FILE, encode_passages
from exsearch.retrievers.inverted import InvertedFile, build_inverted
from exsearch.retrievers.model_files import DEFAULT_MODEL
from exsearch.retrievers.passages import PassageStore, write_passages
from exsearch.retrievers.vectors import Vectors
from exsearch.runs import MANIFEST, new_folder, read_steadily, refuse_other_content, verify_folder

INDEXES = ("exact", "ivf")
DTYPES = ("float32", "float16")

_VERSION = 1
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
_HASHED_BYTES = 200_000_000  # a larger index is only checked by size


def build_dense(
    passages: Iterable[Passage],
    out: Path | str,
    *,
    model: str = DEFAULT_MODEL,
    index: str = "exact",
    effort: int = 0,
    dtype: str = "float32",
    batch_size: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> int:
    """Index passages into the folder `out`, whole or not at all, and return their number.

    A build that was killed goes on where it stopped: vectors are kept beside `out` until it is
    whole. In memory are the model and a fixed number of passages.

    Args:
        passages: The corpus; it is read once. Blank passages are left out; `retriever.json` says
            how many.
        out: The folder to write.
        model: A folder, a Hugging Face id, or `all-MiniLM-L6-v2`, which comes from a package.
        index: `exact` compares a query with every vector; `ivf` scans the most promising lists of
            an inverted file, which is quicker for many passages and may miss one.
        effort: The number of lists that `ivf` scans for a query; 0 takes the least power of 2 that
            finds 99 % of the exact first 20 of a sample of the vectors.
        dtype: The type of the vectors that are kept: `float32`, or `float16` for half the size.
        batch_size: The number of passages that go through the model at once; 0 takes what suits
            the device.
        device: A torch device such as `cpu`; `auto` takes an accelerator where there is one.
        progress: Whether a terminal shows progress bars, on standard error.

    Raises:
        DataError: no passage, or an id that comes twice.
        ConfigError: `out` exists and is no index, or a setting is none of those above.
        ModelError: the model can't be found or loaded.
        MissingExtraError: a package of the extra `dense` is not installed.
        RunError: another process builds the same index.
    """
    out = Path(out)
    for name, value, known in (("index", index, INDEXES), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise ConfigError(f"{name}={value!r}: expected {' or '.join(known)}")
    for name, value in (("effort", effort), ("batch_size", batch_size)):
        if type(value) is not int or value < 0:
            raise ConfigError(f"{name}={value!r}: expected a whole number of 0 or more")
    if effort and index != "ivf":
        raise ConfigError(f"effort={effort}: a setting of index=ivf, not of index={index}")
    refuse_other_content(out, FACTS_FILE, "index")
    if Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())
    encoder = Encoder.open(model, device=device, batch_size=batch_size)
    passages = passages if isinstance(passages, Indexable) else Indexable(passages)
    bars = Bars(progress)
    with new_folder(out) as folder:
        with bars.open("read", None, "passage") as bar:
            for _ in write_passages(passages, folder):
                bar.update()
        store = PassageStore(folder)
        with encode_passages(store, encoder, dtype, folder, out, bars) as longest:
            facts = {"kind": "dense", "version": _VERSION, "passages": len(store)}
            facts |= {"left_out": passages.left_out, "model": model, "encoder": encoder.facts}
            facts |= {"dtype": dtype, "longest": longest, "index": index}
            vectors = _vectors(folder, facts)
            if index == "ivf":
                facts |= build_inverted(vectors, folder, bars, effort)
            (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return len(store)


def _vectors(folder: Path, facts: dict[str, Any]) -> Vectors:
    dimensions = facts["encoder"]["dimensions"]
    shape = facts["passages"], dimensions, facts["dtype"], facts["longest"]
    return Vectors(folder / VECTORS_FILE, *shape)


class DenseRetriever:
    """A dense index on disk, open for searching. Threads may share it.

    Args:
        encoder: Turns queries into vectors.
        vectors: The passages' vectors.
        index: Finds the nearest of the vectors: they themselves, exactly, or an inverted file.
        store: The passages of the index.
        identity: The text that names the index in results.

    Attributes:
        encoder: As given.
        vectors: As given.

    Example:
        >>> retriever = DenseRetriever.open(path)  # doctest: +SKIP
        >>> [passage.title for passage in retriever.search(["Who wrote Dune?"], k=5)[0]]
    """

    def __init__(
        self,
        encoder: Encoder,
        vectors: Vectors,
        index: Vectors | InvertedFile,
        store: PassageStore,
        identity: str,
    ):
        self.encoder = encoder
        self.vectors = vectors
        self._index = index
        self._store = store
        self._identity = identity

    @classmethod
    def open(cls, path: Path | str, *, device: str = "auto") -> DenseRetriever:
        """Open the index that `build_dense` wrote, with the model that it was built with.

        Args:
            path: The index folder. The sizes of its files are checked by its manifest; the content,
                too, of an index of less than 200 MB.
            device: A torch device such as `cpu`; `auto` takes an accelerator where there is one.

        Raises:
            IndexDamagedError: the folder or a file is missing or altered.
            ModelError: the model can't be loaded, or is not the one that the index was built with.
            MissingExtraError: a package of the extra `dense` is not installed.
        """
        path = Path(path)
        return read_steadily(path, lambda: cls._open(path, device))

    @classmethod
    def _open(cls, path: Path, device: str) -> DenseRetriever:
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        verify_folder(path, IndexDamagedError, hashes=size < _HASHED_BYTES, remedy=REMEDY)
        facts = read_json(path / FACTS_FILE, IndexDamagedError, REMEDY, model=str, encoder=dict)
        try:
            if facts["kind"] != "dense" or facts["version"] != _VERSION:
                raise ValueError(f"kind {facts['kind']!r}, version {facts['version']}")
            vectors, store = _vectors(path, facts), PassageStore(path)
            index: Vectors | InvertedFile = vectors
            if facts["index"] == "ivf":
                index = InvertedFile(path, vectors, facts["effort"])
            if len(store) != len(vectors):
                raise ValueError("its files do not belong together")
        except _DAMAGE as error:
            message = f"{path}: not an index that this exsearch can read ({error}); {REMEDY}"
            raise IndexDamagedError(message) from error
        encoder = Encoder.open(facts["model"], device=device)
        _refuse_other_model(path, facts, encoder)
        return cls(encoder, vectors, index, store, _identity(path, facts))

    def __len__(self) -> int:
        return len(self._store)

    build = staticmethod(build_dense)  # it has more settings than a `RetrieverKind` asks for

    def identity(self) -> str:
        """The hash of what is found: passages, vectors, model, index. The model's place is not."""
        return self._identity

    def passages(self) -> Iterator[Passage]:
        """All passages of the index, in the order of the corpus."""
        return (self._store[number] for number in range(len(self)))

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        """The passages with these ids, in their order, without scores; None for an unknown id.

        Raises:
            RetrieverError: a passage can't be read.
            TypeError: `ids` is one text.
        """
        return self._store.fetch(ids)

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query, best first; of equal scores the earlier in the corpus.

        Every passage has a score, so there are k where there are as many; none for a blank query. A
        query is cut at the model's length.

        Args:
            queries: The queries, as plain text.
            k: The most passages a query.

        Raises:
            TypeError: `queries` is one text.
            RetrieverError: the model fails, or a passage can't be read.
            ValueError: `k` is below 1.
        """
        refuse_search(queries, k)
        asked = [query for query in dict.fromkeys(queries) if query.strip()]
        try:
            vectors = self.encoder.queries(asked)
            nearest = self._index.nearest(vectors, min(k, len(self)))
            found = {q: self._passages(*best) for q, best in zip(asked, nearest, strict=True)}
        except (*_DAMAGE, ModelError) as error:
            raise RetrieverError(f"the dense search failed: {error}; {REMEDY}") from error
        return [list(found.get(query, ())) for query in queries]

    def _passages(self, rows: np.ndarray, scores: np.ndarray) -> list[Passage]:
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [dataclasses.replace(self._store[row], score=score) for row, score in pairs]


def _identity(path: Path, facts: dict[str, Any]) -> str:
    files = read_json(path / MANIFEST, IndexDamagedError, REMEDY, files=dict)["files"]
    named = {name: file["sha256"] for name, file in files.items() if name != FACTS_FILE}
    named |= {name: fact for name, fact in facts.items() if name != "model"}
    return f"sha256:{hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()}"


def _refuse_other_model(path: Path, facts: dict[str, Any], encoder: Encoder) -> None:
    """Make sure that queries get vectors of the same model as the passages.

    Raises:
        ModelError: they don't; the message names what differs first.
    """
    built, now = facts["encoder"], encoder.facts
    if built == now:
        return
    other = [name for name in now if built.get(name) != now[name]]
    if "files" in other and isinstance(built.get("files"), dict):
        names = sorted({*built["files"], *now["files"]})
        other = [name for name in names if built["files"].get(name) != now["files"].get(name)]
    said = f"the model {facts['model']} is not the one that {path} was built with"
    raise ModelError(f"{said}: {', '.join(other)} differs; put that one back, or {REMEDY}")
