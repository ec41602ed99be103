"""Retrievers find passages at a place: an index folder, which says its own kind, or an address.

`RETRIEVERS` names the kinds; other packages add theirs by entry points in the group
`exsearch.retrievers`: a `RetrieverKind`. An address `https://…` is of the kind `http`, any other
`name://…` or `name+https://…` of the kind `name`. Nothing here searches.

Glossary:
    place     An index folder or an address: what `open_retriever` takes.
    kind      The name of a class of retrievers, such as `bm25`.
    identity  A text that names the passages and how they are searched.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from exsearch import plugins
from exsearch.errors import ConfigError, IndexDamagedError
from exsearch.json_files import read_json
from exsearch.records import Passage
from exsearch.retrievers.base import Indexable, Retriever, RetrieverKind
from exsearch.retrievers.nesting import opening, refuse_strange
from exsearch.runs import read_steadily, refuse_other_content, verify_folder

logger = logging.getLogger(__name__)

RETRIEVERS = {
    "bm25": "exsearch.retrievers.bm25:Bm25Retriever",
    "dense": "exsearch.retrievers.dense:DenseRetriever",
    "http": "exsearch.retrievers.http:HttpRetriever",
    "elasticsearch": "exsearch.retrievers.servers.elasticsearch:ElasticsearchRetriever",
    "milvus": "exsearch.retrievers.servers.milvus:MilvusRetriever",
    "opensearch": "exsearch.retrievers.servers.opensearch:OpenSearchRetriever",
    "postgresql": "exsearch.retrievers.servers.postgres:PostgresRetriever",
    "qdrant": "exsearch.retrievers.servers.qdrant:QdrantRetriever",
    "hybrid": "exsearch.retrievers.hybrid:HybridRetriever",
    "rerank": "exsearch.retrievers.rerank:RerankRetriever",
}
DEFAULT_KIND = "bm25"
FACTS_FILE = "retriever.json"  # in an index folder: its kind, and what the kind needs to know
REMEDY = "build it anew with `exsearch index`"

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def open_retriever(
    place: str | Path, *, cache: int = 100_000, hosts: Iterable[str] = ()
) -> Retriever:
    """The retriever at a place, with a cache for repeated queries.

    Args:
        place: An index folder, or an address such as `http://localhost:8000`.
        cache: The number of searches that are remembered; 0 remembers none.
        hosts: The hosts that a folder which combines places may have asked, by name; those in the
            variable `EXSEARCH_ALLOW_HOST` may be asked, too.

    Raises:
        IndexDamagedError: no index is there, or a damaged one.
        ConfigError: no such kind of retriever, or a folder names a host that the user did not.
    """
    if is_address(place):
        refuse_strange(str(place))
        retriever = _open(place)
    else:
        with opening(Path(place), hosts):
            retriever = read_steadily(Path(place), lambda: _open(place))
    if not cache:
        return retriever
    from exsearch.retrievers.cached import CachedRetriever

    return CachedRetriever(retriever, cache)


def _open(place: str | Path) -> Retriever:
    return retriever_kind(_kind_at(place)).open(str(place))


def build_index(
    passages: Iterable[Passage],
    place: str | Path,
    *,
    kind: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> int:
    """Index passages at a place that `open_retriever` opens, and return their number.

    Args:
        passages: The corpus; it is read once. Blank passages are left out, with a warning.
        place: A folder, which is written whole or not at all, or the address of a search server.
        kind: The name of the kind of retriever in a folder, None for `bm25`. An address says it.
        settings: Settings of the kind's own, by name.
        progress: Whether a terminal shows a progress bar.

    Raises:
        DataError: passages that can't be indexed.
        ConfigError: no such kind or setting, or a folder that exists and is no index.
    """
    if is_address(place):
        name = _kind_at(place)
        if kind not in (None, name):
            raise ConfigError(f"{place} is a place of the kind {name}, not {kind}")
    else:
        name, place = kind or DEFAULT_KIND, Path(place)
    build = retriever_kind(name).build
    _check_settings(name, build, settings or {})
    if isinstance(place, Path):
        refuse_other_content(place, FACTS_FILE, "index")
    passages = passages if isinstance(passages, Indexable) else Indexable(passages)
    count = build(passages, place, progress=progress, **(settings or {}))
    _warn_of_blank(passages, place)
    return count


def update_index(
    passages: Iterable[Passage],
    place: str | Path,
    *,
    remove: Iterable[str] = (),
    progress: bool = True,
) -> int:
    """Remove passages from an index, add others after the rest, and return how many there are.

    Args:
        passages: The passages to add; they are read once.
        place: The index, which is changed whole or not at all.
        remove: The ids of the passages to remove; one of them may be added again.
        progress: Whether a terminal shows a progress bar.

    Raises:
        DataError: an id that is not there to remove, or that is there already.
        ConfigError: a kind of retriever whose places can't be changed.
        IndexDamagedError: no index is there, or a damaged one.
    """
    kind = _kind_at(place)
    update = getattr(retriever_kind(kind), "update", None)
    if update is None:
        raise ConfigError(f"{place} is of the kind {kind}, which can't be changed; {REMEDY}")
    passages = passages if isinstance(passages, Indexable) else Indexable(passages)
    count = update(passages, place, remove=remove, progress=progress)
    _warn_of_blank(passages, place)
    return count


def _warn_of_blank(passages: Indexable, place: str | Path) -> None:
    if passages.left_out:
        logger.warning("%s: %d blank passages are left out", place, passages.left_out)


def retriever_kind(name: str) -> RetrieverKind:
    """The class of the retrievers of a kind.

    Args:
        name: The name of the kind, such as `bm25`.

    Raises:
        ConfigError: no such kind.
    """
    return plugins.find(RETRIEVERS, name, "retriever")


def is_address(place: str | Path) -> bool:
    """True where a place is an address (`name://…`), false where it is a folder."""
    return _ADDRESS.match(str(place)) is not None


def _check_settings(kind: str, build: Any, settings: Mapping[str, Any]) -> None:
    """Make sure that a kind of retriever takes these settings: the further arguments of `build`."""
    parameters = inspect.signature(build).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "progress"]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            takes = f"its settings are {', '.join(known)}" if known else "it has no settings"
            hint = f"did you mean {near[0]}?" if near else takes
            raise ConfigError(f"{name} is no setting of the retriever {kind}; {hint}")


def _kind_at(place: str | Path) -> str:
    """The kind of retriever at a place: an address says it by its scheme, an index by a file."""
    address = _ADDRESS.match(str(place))
    if address:
        scheme = address[1].lower().partition("+")[0]
        return "http" if scheme == "https" else scheme
    folder = Path(place)
    verify_folder(folder, IndexDamagedError, hashes=False, remedy=REMEDY)
    return read_json(folder / FACTS_FILE, IndexDamagedError, REMEDY, kind=str)["kind"]
