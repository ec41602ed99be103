"""The contract of every place: what a retriever promises, on each kind of `places.PLACES`."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exsearch.errors import ExSearchError, IndexDamagedError, RetrieverError
from exsearch.records import Passage
from exsearch.retrievers import open_retriever
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import guarded
from places import BROKEN, PASSAGES, PLACES, broken_server

QUERIES = [
    "Who discovered polonium and radium?",
    "the longest river in Poland",
    "Röntgen naïve albums São Paulo",
    "zebras that eat grass",
]
ODD_QUERIES = [
    "",
    "  \n\t",
    "?! & | () : * ' \" \\ -- ; {} [] ~ ^ / <> %",
    "a OR b AND NOT (c NEAR/2 d):* ''; DROP TABLE passages; --",
    "蜜蜂 蜂蜜",
    "النحل \u202eabc",
    "\U0001f469\u200d\U0001f52c \U0001f41d e\u0301",
    "a\x00b \x1b[31m\x7f",
    "half \ud83d of a pair",
    "x" * 1_000_000,
]
PATIENCE = 60  # seconds, on a busy machine, for what takes well below one on an idle one


@dataclass
class Open:
    """A place of the table, filled and open."""

    name: str
    place: str | Path
    retriever: Retriever
    scratch: Path

    def search(self, query: str, k: int = 5) -> list[Passage]:
        (found,) = self.retriever.search([query], k)
        return found


@pytest.fixture(scope="module", params=PLACES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    scratch = tmp_path_factory.mktemp("place")
    (scratch / "one").mkdir()
    with PLACES[request.param].make(iter(PASSAGES), scratch / "one") as place:
        yield Open(request.param, place, open_retriever(place, cache=0), scratch)


def alike(one: Sequence[Passage], other: Sequence[Passage]) -> bool:
    """Whether two lists hold the same; a batch may round the last digits of a score otherwise."""
    if [p.score for p in one] != pytest.approx([p.score for p in other], rel=1e-4, abs=1e-5):
        return False
    scores = {p.id: p.score for p in one}
    return scores == pytest.approx({p.id: p.score for p in other}, rel=1e-4, abs=1e-5)


def answers(retriever: Retriever, query: str, k: int = 5) -> bool:
    """Whether a query has an answer; else there is a `RetrieverError` on one line, never less."""
    try:
        (found,) = retriever.search([query], k)
    except RetrieverError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 2000
        return False
    assert len(found) <= k
    assert all(isinstance(p, Passage) for p in found)
    return True


def test_it_finds_what_is_there(opened: Open):
    assert isinstance(opened.retriever, Retriever)
    for passage in PASSAGES[:8]:
        query = f"{passage.title}: {passage.text[:100]}"
        found = {p.id: p for p in opened.search(query, 20)}
        assert found[passage.id].fields == passage.fields


def test_scores_fall_and_passages_come_once(opened: Open):
    for k in (1, 3, 20):
        for found in opened.retriever.search(QUERIES, k):
            scores: list[Any] = [p.score for p in found]
            assert 0 < len(found) <= k
            assert all(type(score) is float and math.isfinite(score) for score in scores)
            assert scores == sorted(scores, reverse=True)
            assert len({p.id for p in found}) == len(found)


def test_a_batch_equals_single_searches(opened: Open):
    batch = [*QUERIES, QUERIES[0], *ODD_QUERIES[:2], QUERIES[1], QUERIES[0]]
    found = opened.retriever.search(batch, 5)
    assert len(found) == len(batch)
    assert all(alike(one, opened.search(q)) for one, q in zip(found, batch, strict=True))
    assert alike(found[0], found[4]) and alike(found[0], found[8])
    assert opened.retriever.search([], 5) == []
    assert opened.retriever.search(tuple(QUERIES), 1) == opened.retriever.search(QUERIES, 1)


def test_k_larger_than_the_corpus(opened: Open):
    for k in (len(PASSAGES), 1000):
        found = opened.search(QUERIES[0], k)
        assert alike(found[:5], opened.search(QUERIES[0], 5))
        assert len({p.id for p in found}) == len(found) <= len(PASSAGES)
    answers(opened.retriever, QUERIES[0], 10_000_000)


@pytest.mark.parametrize("query", ODD_QUERIES, ids=lambda query: ascii(query)[:20])
def test_an_odd_query_is_answered_or_an_error(opened: Open, query: str):
    before = opened.search(QUERIES[0])
    start = time.monotonic()
    answers(opened.retriever, query)
    assert time.monotonic() - start < PATIENCE
    assert alike(opened.search(QUERIES[0]), before)


@pytest.mark.parametrize(
    "query",
    [" ".join(f"word{n}" for n in range(100_000)), "polonium radium " * 50_000],
    ids=["different", "the same"],
)
def test_100_000_words_are_answered_or_an_error(opened: Open, query: str):
    start = time.monotonic()
    answers(opened.retriever, query)
    assert time.monotonic() - start < PATIENCE


def test_fetch_gives_the_same_in_every_place(opened: Open):
    ids = [p.id for p in PASSAGES]
    assert opened.retriever.fetch(ids) == PASSAGES
    assert opened.retriever.fetch([*ids[::-1], ids[0]]) == [*PASSAGES[::-1], PASSAGES[0]]
    assert opened.retriever.fetch([]) == []
    strange = ["", "none", "a'b", "%", "*", "../x", "s-0001 ", "S-0001", "x" * 100_000]
    assert opened.retriever.fetch(strange) == [None] * len(strange)
    assert opened.retriever.fetch(["none", ids[3], "none"]) == [None, PASSAGES[3], None]


def test_what_can_not_be_meant_is_refused(opened: Open):
    with pytest.raises(TypeError, match="queries is one text"):
        opened.retriever.search("one query", 3)
    with pytest.raises(TypeError, match="ids is one text"):
        opened.retriever.fetch("s-0001")
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"k is {k}"):
            opened.retriever.search(QUERIES, k)


def test_8_threads_find_what_one_finds(opened: Open):
    expected = opened.retriever.search(QUERIES, 5)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for _ in range(3):
            found = opened.retriever.search(QUERIES, 5)
            assert all(map(alike, found, expected))
            assert opened.retriever.fetch([PASSAGES[number].id]) == [PASSAGES[number]]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


def test_a_deadline_leaves_the_next_search_well(opened: Open):
    """A search that is left behind goes on beside the next one, and disturbs nothing."""
    goes_on = threading.Event()

    class Held:
        def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            if queries[0] == QUERIES[3]:
                assert goes_on.wait(PATIENCE)
            return opened.retriever.search(queries, k)

        fetch, identity = opened.retriever.fetch, opened.retriever.identity

    guard = guarded(Held(), 0.05)
    with pytest.raises(RetrieverError, match=r"no reply within 0\.05 s"):
        guard.search([QUERIES[3]], 5)
    guard.timeout = PATIENCE
    goes_on.set()
    for _ in range(3):
        assert all(map(alike, guard.search(QUERIES[:3], 5), map(opened.search, QUERIES[:3])))
    assert guard.identity() == opened.retriever.identity()


def test_the_identity_is_the_content(opened: Open):
    identity = opened.retriever.identity()
    assert identity and identity.isprintable() and len(identity) < 1000
    assert str(opened.scratch) not in identity
    assert open_retriever(opened.place, cache=0).identity() == identity
    for name, passages, same in (("same", PASSAGES, True), ("less", PASSAGES[1:], False)):
        (opened.scratch / name).mkdir()
        with PLACES[opened.name].make(iter(passages), opened.scratch / name) as place:
            other = open_retriever(place, cache=0)
            assert (other.identity() == identity) is same
            assert other.fetch(["s-0001"]) == [PASSAGES[0] if same else None]


CHILD = """
import sys
from pathlib import Path
from exsearch.retrievers import open_retriever
from exsearch.retrievers.guarded import guarded
retriever = guarded(open_retriever(sys.argv[1], cache=0))
print(retriever.search(sys.argv[2:3], 1)[0][0].id, flush=True)
while True:
    retriever.search(sys.argv[2:], 5)
"""


def test_ctrl_c_ends_a_search(opened: Open):
    command = [sys.executable, "-c", CHILD, str(opened.place), *QUERIES]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout
            assert child.stdout.readline().strip() == opened.search(QUERIES[0], 1)[0].id
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=PATIENCE)
        finally:
            child.kill()
    assert (child.returncode, said.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert opened.search(QUERIES[0])


KILLED = """
import os, signal, sys
from pathlib import Path
from places import PASSAGES, PLACES

def dying(passages, end):
    yield from passages[:end]
    os.kill(os.getpid(), signal.SIGKILL)

PLACES[sys.argv[1]].build(dying(PASSAGES, int(sys.argv[2])), Path(sys.argv[3]))
"""


def test_a_build_that_was_killed_is_built_again(opened: Open, tmp_path: Path):
    kind = PLACES[opened.name]
    if kind.build is None:
        pytest.skip("another kind builds it")
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    for end in (len(PASSAGES) // 2, len(PASSAGES)):
        child = subprocess.run(
            [sys.executable, "-c", KILLED, opened.name, str(end), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        with pytest.raises((IndexDamagedError, RetrieverError)):  # a part is not taken for all
            open_retriever(kind.where(tmp_path), cache=0).search(QUERIES, 5)
    with kind.make(iter(PASSAGES), tmp_path) as place:
        again = open_retriever(place, cache=0)
        assert again.identity() == opened.retriever.identity()
        assert again.fetch([p.id for p in PASSAGES]) == PASSAGES
        assert all(map(alike, again.search(QUERIES, 5), opened.retriever.search(QUERIES, 5)))
    if kind.folder:
        assert [p.name for p in tmp_path.iterdir()] == ["index"]  # what it left behind is gone


def faults(folder: Path) -> Iterator[tuple[str, Path, bytes | None]]:
    """Every file of a folder with what it is damaged to; None removes it."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        if content:
            middle = len(content) // 2
            flipped = bytes([content[middle] ^ 1])
            yield "flipped", file, content[:middle] + flipped + content[middle + 1 :]
            yield "cut", file, content[:middle]
        yield "longer", file, content + b"\0"
        yield "missing", file, None


def test_a_damaged_file_is_refused(opened: Open, tmp_path: Path):
    if not PLACES[opened.name].folder:
        pytest.skip("it is no folder")
    copy = shutil.copytree(opened.place, tmp_path / "index")
    open_retriever(copy)
    for what, file, content in faults(copy):
        whole = file.read_bytes()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        try:
            with pytest.raises(IndexDamagedError) as error:
                open_retriever(copy)
            assert len(str(error.value).splitlines()) == 1, (what, file)
            assert str(tmp_path) in str(error.value)
        except pytest.fail.Exception:
            pytest.fail(f"{file.relative_to(copy)} is {what}, and nothing is said")
        file.write_bytes(whole)
    assert open_retriever(copy).identity() == opened.retriever.identity()


SERVERS = [name for name, kind in PLACES.items() if kind.address]


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", SERVERS)
def test_a_broken_server_is_an_error(name: str, fault: str):
    address = PLACES[name].address
    assert address
    with broken_server(BROKEN[fault]) as port:
        for act in (lambda r: r.search(QUERIES, 5), lambda r: r.fetch(["s-0001"])):
            start = time.monotonic()
            with pytest.raises((RetrieverError, IndexDamagedError)) as error:
                act(open_retriever(address(port), cache=0))
            assert time.monotonic() - start < PATIENCE
            assert len(str(error.value).splitlines()) == 1
            assert isinstance(error.value, ExSearchError)


def test_every_built_in_kind_is_in_the_table():
    from exsearch.retrievers import RETRIEVERS

    missing = [kind for kind in RETRIEVERS if not any(kind in name for name in PLACES)]
    assert not missing, f"add these kinds to places.PLACES: {missing}"


def test_the_damages_are_of_every_file(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"")
    found = [(what, file.name, content) for what, file, content in faults(tmp_path)]
    assert found == [
        ("flipped", "a", b"ac"),
        ("cut", "a", b"a"),
        ("longer", "a", b"ab\0"),
        ("missing", "a", None),
        ("longer", "b", b"\0"),
        ("missing", "b", None),
    ]
