"""A retrieval finds passages for a file of queries, in a form that people or other programs read.

It asks no model and judges nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exsearch.errors import DataError, RetrieverError
from exsearch.jobs.provenance import refuse_others, settle
from exsearch.progress import Bars
from exsearch.records import Passage
from exsearch.retrievers import open_retriever
from exsearch.retrievers.guarded import TIMEOUT, Found, GuardedRetriever, guarded
from exsearch.runs import committed, companion, in_chunks, locked, refuse_other_file
from exsearch.terminal import safe

CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Place:
    """Where passages are searched for, and how.

    Attributes:
        index: An index folder, or the address of a search server.
        timeout: Seconds until a search counts as failed.
        chunk: The number of queries or questions that are searched for together.
    """

    index: str
    timeout: float = TIMEOUT
    chunk: int = CHUNK

    def open(self) -> GuardedRetriever:
        """The retriever at the place, behind its guard."""
        return guarded(open_retriever(self.index), self.timeout)


class Searches:
    """Searches one chunk after the other; ends the job where no search is of any use.

    That is where all searches of a whole chunk fail, or all since the job began.

    Args:
        place: Where passages are searched for.
        k: The most passages a query.

    Attributes:
        identity: The identity of the retriever.
        found: The number of searches so far that did not fail; a job that goes on sets it.
    """

    def __init__(self, place: Place, k: int):
        self._retriever = place.open()
        self._chunk, self._k = place.chunk, k
        self.identity = self._retriever.identity()
        self.found = 0

    def search(self, queries: Sequence[str], items: int) -> list[Found]:
        """What is found for the queries of a chunk, each with its passages or its own error.

        Args:
            queries: The queries.
            items: The number of items of the chunk that they belong to.

        Raises:
            RetrieverError: all failed.
        """
        found = self._retriever.begin([(query, self._k) for query in queries])()
        errors = [f for f in found if isinstance(f, RetrieverError)]
        self.found += len(found) - len(errors)
        if errors and len(errors) == len(found) and (items == self._chunk or not self.found):
            raise errors[0]
        return found


def retrieve(
    queries: Mapping[str, str],
    place: Place,
    k: int,
    form: str = "jsonl",
    file: Path | None = None,
    *,
    bars: Bars | None = None,
) -> tuple[list[str], dict[str, int]]:
    """Find passages for queries, as lines of text; a file of them grows chunk by chunk.

    A query whose search failed has its error in the place of passages (in a run file, no line), and
    is counted.

    Args:
        queries: The queries by id.
        place: Where they are searched for.
        k: The most passages a query.
        form: The name of a form of `FORMS`.
        file: The file to write, or to go on with; None gives the lines back.
        bars: Opens the progress bar; None shows one.

    Returns:
        The lines, none where they are in a file; and counts of `queries`, `passages`, `failed`.

    Raises:
        RunError: the file was begun with other settings, or not by this job.
        RetrieverError: all searches failed.
        DataError: an id that can't stand in a run file.
    """
    searches, items, kept = Searches(place, k), list(queries.items()), list[str]()
    with (bars or Bars()).open("retrieve", len(items), "query") as bar:

        def work(some: Sequence[tuple[str, str]]) -> tuple[list[str], dict[str, int]]:
            found = searches.search([query for _, query in some], len(some))
            blocks = [FORMS[form](*item, one) for item, one in zip(some, found, strict=True)]
            lists = [one for one in found if not isinstance(one, RetrieverError)]
            counts = {"queries": len(some), "passages": sum(map(len, lists))}
            bar.update(len(some))
            return [b for b in blocks if b], {**counts, "failed": len(some) - len(lists)}

        chunks: list[dict[str, Any]] = []
        if file is None:
            for start in range(0, len(items), place.chunk):
                lines, counts = work(items[start : start + place.chunk])
                kept += lines
                chunks.append(counts)
        else:
            content = hashlib.sha256(json.dumps(items).encode()).hexdigest()
            settings = {"queries": f"sha256:{content}", "index": searches.identity}
            settings |= {"k": k, "form": form, "chunk": place.chunk}
            refuse_other_file(file)
            beside = [companion(file, f"{name}.json") for name in ("settings", "environment")]
            refuse_others(beside[0], settings, beside)
            with locked(file.parent, file.name):
                done = committed(file, "queries")
                searches.found = done - committed(file, "failed")
                settle(beside[0], settings, beside[1], begun=bool(done))
                bar.update(done)
                chunks = in_chunks(items, place.chunk, file, work)
    total = sum((Counter(chunk) for chunk in chunks), Counter[str]())
    return kept, {name: total[name] for name in ("queries", "passages", "failed")}


def passage_text(passage: Passage) -> str:
    """A passage in two lines for a person."""
    score = "" if passage.score is None else f"{passage.score:.4g}  "
    return f"{score}{safe(passage.id)}  {safe(passage.title)}\n    {safe(passage.text)}"


def _text(id_: str, query: str, found: Found) -> str:
    lines = [f"{safe(id_)}: {safe(query)}"]
    if isinstance(found, RetrieverError):
        lines.append(f"  error: {found}")
    elif not found:
        lines.append("  nothing found")
    else:
        lines += [f"  {rank}. {passage_text(p)}" for rank, p in enumerate(found, start=1)]
    return "\n".join(lines) + "\n"


def _json(id_: str, query: str, found: Found) -> str:
    values: dict[str, Any] = {"id": id_, "query": query}
    if isinstance(found, RetrieverError):
        values["error"] = str(found)
    else:
        values["passages"] = [{**passage.fields, "score": passage.score} for passage in found]
    return json.dumps(values, ensure_ascii=False)


def _trec(id_: str, query: str, found: Found) -> str:
    """Lines of a run file, whose scores fall from rank to rank.

    trec_eval sorts by score, as a float of 32 bits, and orders equal ones by id: they would not
    keep the order in which they were found.
    """
    lines, last = [], np.float32(np.inf)
    for rank, passage in enumerate([] if isinstance(found, RetrieverError) else found, start=1):
        for id in (id_, passage.id):
            if id.split() != [id]:
                raise DataError(f"the id {id!r:.99} can't stand in a run file; --form jsonl can")
        below = np.nextafter(last, np.float32(-np.inf))
        score = -rank if passage.score is None else passage.score
        last = min(np.float32(score), below)
        lines.append(f"{id_} Q0 {passage.id} {rank} {last} exsearch")
    return "\n".join(lines)


FORMS: dict[str, Callable[[str, str, Found], str]] = {"text": _text, "jsonl": _json, "trec": _trec}
