"""The protocol is the JSON that search servers and search-agent trainers exchange.

`POST /retrieve` takes `{"queries", "topk", "return_scores"}`. Its reply is read in every form in
use, and nothing else is taken for one. It sends nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from exsearch.json_files import parse_json
from exsearch.records import Passage, split_contents
from exsearch.retrievers.guarded import is_utf8

Found = list[list[Passage]]


def document(passage: Passage) -> dict[str, Any]:
    """A passage as a document of a reply: `id`, `title`, and `contents` with both title and text.

    Where it has a `url`, so has the document. `contents` begins with the title in quotes, as
    trainers take its first line for the title.
    """
    named = {"id": passage.id, "title": passage.title, "contents": passage.contents}
    return named | ({"url": passage.url} if passage.url else {})


def hits(found: Sequence[Passage], with_scores: bool) -> list[dict[str, Any]]:
    """What was found for a query, as a reply has it.

    Args:
        found: The passages, best first.
        with_scores: Whether each document stands beside its score.
    """
    if with_scores:
        return [{"document": document(passage), "score": passage.score} for passage in found]
    return [document(passage) for passage in found]


def read_found(data: bytes, queries: int, k: int) -> Found:
    """The passages in a reply to `/retrieve`.

    It is `{"result": lists}` or the lists alone, one a query, of `{"document", "score"}` or of
    documents.

    Args:
        data: The reply.
        queries: The number of queries.
        k: The most passages a query.

    Raises:
        ValueError: it is anything else; the message says what came.
    """
    lists = _of_length(_result(data), queries, "lists of passages, one a query")
    return [_passages(list_, k) for list_ in lists]


def read_fetched(data: bytes, ids: Sequence[str]) -> list[Passage | None]:
    """The passages in a reply to `/fetch`: a document for each id, or null.

    Args:
        data: The reply.
        ids: The ids that were asked for.

    Raises:
        ValueError: it is anything else; the message says what came.
    """
    found = _of_length(_result(data), len(ids), "documents, one an id")
    passages = [None if one is None else _passage(one) for one in found]
    for asked, passage in zip(ids, passages, strict=True):
        if passage and passage.id != asked:
            raise ValueError(f"the passage {passage.id!r:.99} where {asked!r:.99} was asked for")
    return passages


def read_identity(data: bytes) -> str:
    """The text in a reply to `/identity`.

    Raises:
        ValueError: it has none; the message says what came.
    """
    value = _parsed(data)
    identity = value.get("identity") if isinstance(value, dict) else None
    if not isinstance(identity, str):
        raise ValueError(f"{_shown(value)}, expected an identity")
    return identity


def _parsed(data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError:
        raise ValueError(f"no JSON but {data[:60]!r}") from None


def _result(data: bytes) -> Any:
    value = _parsed(data)
    return value["result"] if isinstance(value, dict) and "result" in value else value


def _of_length(value: Any, length: int, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{_shown(value)}, expected {length} {what}")
    if len(value) != length:
        raise ValueError(f"{len(value)} {what}, expected {length}")
    return value


def _passages(found: Any, k: int) -> list[Passage]:
    if not isinstance(found, list):
        raise ValueError(f"{_shown(found)}, expected a list of passages")
    if len(found) > k:
        raise ValueError(f"{len(found)} passages where {k} were asked for")
    passages: dict[str, Passage] = {}
    for passage in map(_hit, found):
        first = passages.setdefault(passage.id, passage)  # of one that comes twice, the best
        if first.contents != passage.contents:
            raise ValueError(f"two passages with the id {passage.id!r:.99}")
    return list(passages.values())


def _hit(hit: Any) -> Passage:
    inner = hit["document"] if isinstance(hit, dict) and "document" in hit else hit
    score = hit.get("score") if isinstance(hit, dict) else None
    if score is not None and not (_is_number(score) and abs(score) <= sys.float_info.max):
        raise ValueError(f"a passage with the score {_shown(score)}, expected a finite number")
    return _passage(inner, None if score is None else float(score))


def _passage(value: Any, score: float | None = None) -> Passage:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)}, expected a document")
    title = _text(value, "title") or ""
    text = _text(value, "text")
    if text is None:
        contents = _text(value, "contents")
        if contents is None:
            raise ValueError(f"{_shown(value)}, expected a document with contents or text")
        title, text = split_contents(contents, title)
    number, url = value.get("id"), value.get("url", "")
    if isinstance(number, int) and not isinstance(number, bool):
        value = {"id": str(number)}
    id_ = _text(value, "id")
    if id_ is None:
        id_ = hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:32]
    if not id_:
        raise ValueError("a document with an empty id")
    return Passage(id_, title, text, score, url)


def _text(document: dict[str, Any], name: str) -> str | None:
    """The text of a field; None where there is none."""
    text = document.get(name)
    if text is not None and not (isinstance(text, str) and is_utf8(text)):
        raise ValueError(f"a document whose {name} is {_shown(text)}, expected a text")
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
