"""Filling writes a corpus into a collection in batches, and goes on where a killed one ended.

A collection counts as filled only once its facts say so; nothing that stands there is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from exsearch.errors import ConfigError, DataError
from exsearch.progress import Bars
from exsearch.records import Passage
from exsearch.retrievers.base import Indexable
from exsearch.retrievers.servers.collection import Collection, Facts, Row

_PASSAGES = 500  # a batch at most
_SIGNS = 2_000_000  # a batch at most, unless one passage has more


def fill(
    collection: Collection, passages: Iterable[Passage], settings: dict[str, Any], progress: bool
) -> int:
    """Fill a collection with a corpus, and return the number of its passages.

    Passages that stand there already are not sent again. Where the whole corpus stands there,
    nothing is written.

    Args:
        collection: The collection to fill.
        passages: The corpus; it is read once.
        settings: What the collection is made with, beside the encoder that the address names.
        progress: Whether a terminal shows a progress bar.

    Raises:
        DataError: no passage, an id that comes twice, or a passage that the server can't keep.
        ConfigError: something else stands there.
        RetrieverError: the server failed.
    """
    collection.filling = True
    settings = settings | {"encoder": collection.encoded}
    passages = passages if isinstance(passages, Indexable) else Indexable(passages)
    begun = _begun(collection, settings)
    digest, count = hashlib.sha256(), 0
    with Bars(progress).open("fill", None, "passage") as bar:
        for rows in _batches(Row.of(passage) for passage in passages):
            _check(collection, rows)
            if begun is None:
                begun = Facts(settings)
                collection.asked(collection.create, begun)
            digest.update("".join(row.hash for row in rows.values()).encode())
            count += len(rows)
            if not begun.sha256:
                collection.asked(_store, collection, rows, settings)
            bar.update(len(rows))
    if begun is None or not count:
        raise DataError("the corpus is empty: no passage to index")
    facts = Facts(settings, count, digest.hexdigest())
    if begun.sha256:
        if begun != facts:
            raise ConfigError(f"{collection}: another corpus stands there; name another place")
        return collection.facts().passages
    collection.asked(collection.settle)
    stand = collection.asked(collection.count)
    if stand != count:
        raise DataError(
            f"{collection}: {count} passages were read and {stand} stand there; either an id comes "
            "twice in the corpus, or another corpus was begun there: then name another place"
        )
    collection.asked(collection.keep, facts)
    return count


def _begun(collection: Collection, settings: dict[str, Any]) -> Facts | None:
    """The facts of what stands there already, None where nothing does."""
    text = collection.asked(collection.stands)
    if text is None:
        return None
    try:
        facts = Facts.load(text)
    except ValueError:
        message = f"{collection}: something else stands there, which is left as it is"
        raise ConfigError(f"{message}; name another place") from None
    if facts.settings != settings:
        message = f"{collection}: it was filled with the settings {facts.settings}"
        raise ConfigError(f"{message}, not {settings}; name another place")
    return facts


def _batches(rows: Iterable[Row]) -> Iterator[dict[str, Row]]:
    """The rows by id, in batches that are neither too many nor too long."""
    batch: dict[str, Row] = {}
    signs = 0
    for row in rows:
        signs += len(row.text)
        if batch and (len(batch) >= _PASSAGES or signs > _SIGNS):
            yield batch
            batch, signs = {}, len(row.text)
        if row.id in batch:
            raise DataError(f"the id {row.id!r:.99} comes twice; each passage needs its own")
        batch[row.id] = row
    if batch:
        yield batch


def _check(collection: Collection, rows: dict[str, Row]) -> None:
    for row in rows.values():
        if reason := collection.refuse(row):
            raise DataError(f"the passage {row.id!r:.99} can't be kept there: {reason}")


def _store(collection: Collection, rows: dict[str, Row], settings: dict[str, Any]) -> None:
    """Write what does not stand there yet; it may be done again after it failed."""
    there = collection.hashes(list(rows))
    for id_, hash_ in there.items():
        if rows[id_].hash != hash_:
            raise DataError(
                f"{collection}: the passage {id_!r:.99} stands there with another text; either its "
                "id comes twice, or another corpus was begun there: then name another place"
            )
    if new := [row for id_, row in rows.items() if id_ not in there]:
        collection.write(new, settings)
