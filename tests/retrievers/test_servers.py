"""Search servers as places: filling, what stands there, and failures, on each kind of server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import search_servers
from elastic_server import ElasticServer
from exsearch.errors import (
    ConfigError,
    DataError,
    IndexDamagedError,
    MissingExtraError,
    RetrieverError,
)
from exsearch.records import Passage
from exsearch.retrievers import build_index, open_retriever, retriever_kind
from exsearch.retrievers.servers.address import SECRETS
from qdrant_server import QdrantServer
from tiny_encoders import save_tiny_encoder

ANTS = [
    Passage("a", "Ants", "Ants are small and carry leaves."),
    Passage("b", "Bees", "Bees make honey."),
    Passage("c", "Wasps", "Wasps build paper nests."),
]
PLACES = {
    "elasticsearch": search_servers.elasticsearch_index,
    "milvus": search_servers.milvus_collection,
    "opensearch": search_servers.opensearch_index,
    "postgresql": search_servers.postgres_table,
    "qdrant": search_servers.qdrant_collection,
}
ADDRESSES = {
    "elasticsearch": "elasticsearch://{host}/docs?",
    "milvus": "milvus://{host}/docs?",
    "opensearch": "opensearch://{host}/docs?",
    "postgresql": "postgresql://{host}/db?table=docs&",
    "qdrant": "qdrant://{host}/docs?",
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return PLACES[request.param](tmp_path)


def fill(place: str, passages: Any = ANTS, **settings: Any) -> int:
    return build_index(passages, place, settings=settings, progress=False)


def ask(place: str, query: str, k: int = 5) -> list[str]:
    (found,) = open_retriever(place, cache=0).search([query], k)
    return [passage.id for passage in found]


def broken_off(count: int) -> Iterator[Passage]:
    """A corpus that ends in an error after so many passages."""
    for number in range(count):
        yield Passage(f"p{number:04}", "", f"number {number}")
    raise KeyboardInterrupt


def test_a_fill_goes_on_where_it_ended_and_is_seen_whole_only(
    place: str, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(KeyboardInterrupt):
        fill(place, broken_off(700))
    with pytest.raises(IndexDamagedError, match="in part only; run `exsearch index` again"):
        open_retriever(place)
    corpus = [Passage(f"p{number:04}", "", f"number {number}") for number in range(800)]
    sent: list[str] = []
    collection = type(open_collection(place))
    write = collection.write

    def counted(self: Any, rows: Any, settings: Any) -> None:
        sent.extend(row.id for row in rows)
        write(self, rows, settings)

    monkeypatch.setattr(collection, "write", counted)
    assert fill(place, corpus) == 800
    assert sent == [f"p{number:04}" for number in range(500, 800)]  # a batch stood there
    assert fill(place, corpus) == 800
    assert len(sent) == 300
    assert ask(place, "734") == ["p0734"]


def open_collection(place: str) -> Any:
    """The collection at an address, before anything was asked of it."""
    caught: list[Any] = []

    class Caught(Exception):
        pass

    from exsearch.retrievers.servers import retriever

    def catch(self: Any, collection: Any) -> None:
        caught.append(collection)
        raise Caught

    original = retriever.ServerRetriever.__init__
    retriever.ServerRetriever.__init__ = catch  # type: ignore[method-assign]
    try:
        with pytest.raises(Caught):
            open_retriever(place)
    finally:
        retriever.ServerRetriever.__init__ = original  # type: ignore[method-assign]
    return caught[0]


def test_what_stands_there_is_left_as_it_is(place: str):
    fill(place)
    other = [*ANTS[:2], Passage("c", "Wasps", "Wasps sting.")]
    for passages in (other, ANTS[:2], [*ANTS, Passage("d", "", "Beetles.")], ANTS[::-1]):
        with pytest.raises(ConfigError, match="another corpus stands there; name another"):
            fill(place, passages)
    assert ask(place, "wasps that build") == ["c"]


def test_a_corpus_that_was_begun_is_not_mixed_with_another(place: str):
    with pytest.raises(KeyboardInterrupt):
        fill(place, broken_off(600))
    with pytest.raises(DataError, match="'p0000' stands there with another text"):
        fill(place, [Passage("p0000", "", "zero")])
    with pytest.raises(DataError, match="3 passages were read and 503 stand there"):
        fill(place)
    with pytest.raises(IndexDamagedError, match="in part only"):
        open_retriever(place)


def test_passages_that_can_not_be_kept(place: str):
    for passages, message in (
        ([], "the corpus is empty"),
        ([*ANTS, ANTS[0]], "the id 'a' comes twice"),
        ([Passage("n", "", "nul \0 in it")], "'n' can't be kept there: NUL"),
        ([Passage("x" * 513, "", "text")], "its id has more than 512 bytes"),
    ):
        with pytest.raises(DataError, match=message):
            fill(place, passages)
        with pytest.raises(IndexDamagedError, match="nothing stands there"):
            open_retriever(place)


def test_an_empty_query_finds_nothing(place: str):
    fill(place)
    assert [*map(len, open_retriever(place).search(["", "bees", " \n\0"], 3))] == [0, 1, 0]


def test_a_name_that_is_none(place: str):
    for name in ("", "a b", "a;b", '"'):
        cut = place[: max(place.rfind("/"), place.rfind("=")) + 1]
        with pytest.raises(ConfigError, match="is no name of"):
            open_retriever(cut + name)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_secret_is_neither_taken_from_an_address_nor_told(
    kind: str, monkeypatch: pytest.MonkeyPatch
):
    for act in (open_retriever, fill):
        with pytest.raises(ConfigError, match=f"leave it out and set {SECRETS[kind]}") as error:
            act(ADDRESSES[kind].format(host="me:pa55@127.0.0.1:9"))
        assert "pa55" not in str(error.value)
    monkeypatch.setenv(SECRETS[kind], "pa55")
    address = ADDRESSES[kind].format(host="127.0.0.1:9") + "timeout=2&retries=0"
    with pytest.raises(RetrieverError, match=rf"{kind} at 127\.0\.0\.1:9, docs: ") as failed:
        open_retriever(address)
    assert "pa55" not in str(failed.value)
    monkeypatch.setenv(SECRETS[kind], "pa55\n\x07")
    if kind != "postgresql":  # libpq reads it itself
        with pytest.raises(ConfigError, match=f"the value of {SECRETS[kind]} has signs"):
            open_retriever(address)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_an_option_that_there_is_not(kind: str):
    with pytest.raises(ConfigError, match=r"there is no option 'colour'; it has .*'timeout'"):
        open_retriever(ADDRESSES[kind].format(host="127.0.0.1:9") + "colour=red")


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("elasticsearch", "elasticsearch"),
        ("milvus", "pymilvus"),
        ("opensearch", "opensearchpy"),
        ("postgresql", "psycopg"),
        ("qdrant", "qdrant_client"),
    ],
)
def test_a_missing_client_is_named_by_its_extra(
    kind: str, package: str, monkeypatch: pytest.MonkeyPatch
):
    module = retriever_kind(kind).__module__
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    extra = "postgres" if kind == "postgresql" else kind
    with pytest.raises(MissingExtraError, match=rf"pip install 'exsearch\[{extra}\]'"):
        retriever_kind(kind)


# Vectors.


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    save_tiny_encoder(folder, similarity_fn_name="cosine")
    return folder / "model"


def named(place: str, encoder: Path) -> str:
    return f"{place}{'&' if '?' in place else '?'}encoder={encoder}"


@pytest.mark.parametrize("kind", ["postgresql", "milvus", "qdrant"])
def test_vectors_find_what_is_nearest(kind: str, encoder: Path, tmp_path: Path):
    from exsearch.retrievers.encoder import Encoder, passage_text

    place = PLACES[kind](tmp_path)
    near = named(place, encoder)
    passages = [Passage(str(n), f"Title {n}", f"Peter Pan flew {n} miles") for n in range(40)]
    fill(near, passages)
    query, model = "who flew 7 miles?", Encoder.open(str(encoder))
    texts = [passage_text(passage) for passage in passages]
    expected = (model.passages(texts) @ model.queries([query])[0]).astype(float)
    (found,) = open_retriever(near, cache=0).search([query], 40)
    assert [p.score for p in found] == pytest.approx(np.sort(expected)[::-1], abs=1e-5)
    assert [p.score for p in found] == pytest.approx(expected[[int(p.id) for p in found]], abs=1e-5)
    assert ask(place, "7") == ["7"]  # by words
    identities = {open_retriever(one).identity() for one in (near, place)}
    assert len(identities) == 2 and not any(str(encoder) in one for one in identities)


@pytest.mark.parametrize("kind", ["postgresql", "milvus", "qdrant"])
def test_another_encoder_is_refused(kind: str, encoder: Path, tmp_path: Path):
    place = PLACES[kind](tmp_path)
    fill(place)
    with pytest.raises(IndexDamagedError, match="it was filled without this encoder; name"):
        open_retriever(named(place, encoder))
    with pytest.raises(ConfigError, match="it was filled with the settings"):
        fill(named(place, encoder))


# Elasticsearch, OpenSearch, Qdrant: what a server may say.


@pytest.fixture(params=["elasticsearch", "opensearch", "qdrant"])
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """A server of one's own, filled, and the address."""
    server: Any = QdrantServer()
    if request.param != "qdrant":
        server.close()
        server = ElasticServer("Elasticsearch" if request.param == "elasticsearch" else None)
    place = f"{request.param}://127.0.0.1:{server.port}/docs?retries=2&timeout=5"
    fill(place)
    yield server, place
    server.close()


def failing(times: int, status: int) -> Callable[[str, int, Any], tuple[int, Any]]:
    left = [times]

    def fault(path: str, usual: int, reply: Any) -> tuple[int, Any]:
        left[0] -= 1
        return (status, {"error": "pa55 is wrong"}) if left[0] >= 0 else (usual, reply)

    return fault


def test_a_busy_server_is_asked_again(asked: tuple[Any, str]):
    server, place = asked
    retriever = open_retriever(place, cache=0)
    expected = retriever.search(["bees"], 3)
    for status in (429, 503):
        server.fault = failing(2, status)
        assert retriever.search(["bees"], 3) == expected
    server.fault = failing(3, 503)
    with pytest.raises(RetrieverError, match=r"503.*\(attempt 3\)"):
        retriever.search(["bees"], 3)


def test_a_refusal_is_an_error_at_once_and_repeats_no_key(
    asked: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    server, place = asked
    monkeypatch.setenv(SECRETS[place.partition(":")[0]], "pa55")
    user = "" if place.startswith("qdrant") else "me@"
    retriever = open_retriever(place.replace("://", f"://{user}"), cache=0)
    assert f"127.0.0.1:{server.port} gets the key in " in caplog.text and "pa55" not in caplog.text
    assert "pa55" in server.headers.get("api-key", "") or server.headers["authorization"]
    for status in (400, 401, 403, 500):
        server.fault = failing(1, status)
        with pytest.raises(RetrieverError, match=rf"{status}.*\(attempt 1\)") as error:
            retriever.search(["bees"], 3)
        assert "pa55" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: reply["responses"][1].update(error={"type": "odd"}),
        lambda reply: reply["responses"][0].update(timed_out=True),
        lambda reply: reply["responses"][0]["_shards"].update(failed=1),
        lambda reply: reply["responses"].pop(),
        lambda reply: reply["responses"][0]["hits"].pop("hits"),
        lambda reply: reply["responses"][0]["hits"]["hits"][0]["_source"].update(text="x"),
    ],
)
@pytest.mark.parametrize("product", ["Elasticsearch", None])
def test_a_part_of_an_answer_is_none(change: Callable[[Any], object], product: str | None):
    server = ElasticServer(product)
    place = f"{(product or 'opensearch').lower()}://127.0.0.1:{server.port}/docs?retries=0"
    fill(place)
    retriever = open_retriever(place, cache=0)

    def fault(path: str, status: int, reply: Any) -> tuple[int, Any]:
        reply = __import__("copy").deepcopy(reply)
        change(reply)
        return status, reply

    server.fault = fault
    with pytest.raises(RetrieverError):
        retriever.search(["bees", "wasps"], 3)
    server.close()


def test_a_passage_that_an_index_does_not_take_is_an_error():
    server = ElasticServer()

    def fault(path: str, status: int, reply: Any) -> tuple[int, Any]:
        if path.endswith("_bulk"):
            item = {"_id": "b", "status": 400, "error": {"type": "mapper", "reason": "no room"}}
            reply = reply | {"errors": True, "items": [{"index": item}]}
        return status, reply

    server.fault = fault
    place = f"elasticsearch://127.0.0.1:{server.port}/docs"
    with pytest.raises(RetrieverError, match=r"does not take a passage: .*no room.*attempt 1"):
        fill(place)
    with pytest.raises(IndexDamagedError, match="in part only"):
        open_retriever(place)
    server.close()


def test_another_server_than_elasticsearch_is_named():
    server = ElasticServer(None)
    with pytest.raises(RetrieverError, match="not Elasticsearch"):
        fill(f"elasticsearch://127.0.0.1:{server.port}/docs")
    server.close()


def test_a_qdrant_that_keeps_no_metadata_is_named():
    server = QdrantServer(keeps_metadata=False)
    with pytest.raises(RetrieverError, match=r"Qdrant 1\.16 or later is needed"):
        fill(f"qdrant://127.0.0.1:{server.port}/docs")
    server.close()


# milvus-lite, in a file.


def test_a_file_of_milvus_lite(tmp_path: Path):
    place = f"milvus://{tmp_path}/wiki.db/docs"
    code = f"from exsearch.retrievers import *; print(open_retriever({place!r}).identity())"
    assert fill(place) == 3
    assert ask(place, "Who makes honey?") == ["b"]
    identity = open_retriever(place).identity()
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(f"{tmp_path}/wiki.db")  # it is for one process
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout.strip() == identity, child.stderr
    with pytest.raises(ConfigError, match=r"none/wiki\.db is in no folder"):
        open_retriever(f"milvus://{tmp_path}/none/wiki.db/docs")
    for wrong in ("milvus:///docs", "milvus:///x.txt/docs", "milvus://h:1/x.db/docs"):
        with pytest.raises(ConfigError, match=r"expected milvus://host:port/collection or"):
            open_retriever(wrong)


def test_a_text_that_milvus_has_no_room_for(tmp_path: Path):
    place = PLACES["milvus"](tmp_path)
    with pytest.raises(DataError, match="'long' can't be kept there: Milvus keeps 65535 bytes"):
        fill(place, [Passage("long", "", "é" * 33_000)])


def test_scores_of_milvus_fall(tmp_path: Path):
    place = PLACES["milvus"](tmp_path)
    fill(place, [*ANTS, Passage("d", "", "Bees and more bees."), Passage("e", "", "Sea.")])
    (found,) = open_retriever(place).search(["bees that make honey"], 5)
    scores: list[Any] = [p.score for p in found]
    assert [p.id for p in found] == ["b", "d"] and scores[0] > scores[1] > 0
