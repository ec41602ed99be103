"""A place becomes a retriever: a folder says its own kind, and an address names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.errors import ConfigError, IndexDamagedError
from exsearch.records import Passage
from exsearch.retrievers import build_index, is_address, open_retriever
from exsearch.runs import MANIFEST

PASSAGES = [Passage("a", "Ants", "Ants are small."), Passage("b", "Bees", "Bees make honey.")]


@pytest.fixture(scope="module")
def sample_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opening") / "index"
    build_index(read_corpus([sample_path("corpus")]), folder, progress=False)
    return folder


def test_a_retriever_with_and_without_a_cache(sample_index: Path):
    cached: Any = open_retriever(sample_index)
    plain: Any = open_retriever(sample_index, cache=0)
    assert cached.search(["Peter Pan"], 2) == plain.search(["Peter Pan"], 2)
    assert (cached.hits, cached.misses) == (0, 1)
    assert not hasattr(plain, "hits")
    assert cached.identity() == plain.identity()


def test_a_retriever_that_can_not_be_opened(tmp_path: Path):
    with pytest.raises(IndexDamagedError, match="exsearch index"):
        open_retriever(tmp_path / "none")
    with pytest.raises(ConfigError, match="did you mean bm25"):
        build_index(PASSAGES, tmp_path / "index", kind="bm52")
    assert list(tmp_path.iterdir()) == []


def forge(folder: Path, facts: str) -> Path:
    """An index whose facts were replaced, with a manifest that vouches for nothing."""
    build_index(PASSAGES, folder, progress=False)
    (folder / "retriever.json").write_text(facts)
    (folder / MANIFEST).write_text('{"files": {}}')
    return folder


def test_a_folder_says_its_own_kind(tmp_path: Path):
    facts = json.dumps({"kind": "bm52"})
    with pytest.raises(ConfigError, match="no retriever 'bm52'; did you mean bm25"):
        open_retriever(forge(tmp_path / "index", facts))


@pytest.mark.parametrize("facts", ["{", "[]", "{}"])
def test_a_folder_that_does_not_say_its_kind(tmp_path: Path, facts: str):
    with pytest.raises(IndexDamagedError, match=r"retriever\.json: damaged .*exsearch index"):
        open_retriever(forge(tmp_path / "index", facts))


def test_an_address_is_told_from_a_folder(tmp_path: Path):
    assert is_address("http://localhost:8000") and is_address("HTTPS://host") and is_address("a://")
    assert not any(map(is_address, (tmp_path, "index", "c:/index", "a/b://c", "://x")))


OTHER = """
import json
from exsearch.records import Passage
from exsearch.runs import new_folder

class Other:
    def __init__(self, place):
        self.place = place

    @classmethod
    def open(cls, place):
        return cls(place)

    @classmethod
    def build(cls, passages, out, *, progress=True):
        if isinstance(out, str):
            return len(list(passages))
        with new_folder(out) as folder:
            (folder / "retriever.json").write_text(json.dumps({"kind": "other"}))
        return len(list(passages))

    def search(self, queries, k):
        return [[Passage(query, "", "", 1.0)] for query in queries]

    def fetch(self, ids):
        return [Passage(id_, "", "") for id_ in ids]

    def identity(self):
        return "other"
"""


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that adds a kind of retriever."""
    package = tmp_path / "package"
    site = package / "other-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[exsearch.retrievers]\nother = other_kind:Other\n")
    (package / "other_kind.py").write_text(OTHER)
    monkeypatch.syspath_prepend(str(package))


@pytest.mark.usefixtures("other")
def test_a_retriever_that_another_package_adds(tmp_path: Path):
    assert build_index(PASSAGES, tmp_path / "index", kind="other", progress=False) == 2
    plain: Any = open_retriever(tmp_path / "index", cache=0)
    assert (type(plain).__name__, plain.place) == ("Other", str(tmp_path / "index"))
    cached: Any = open_retriever(tmp_path / "index")
    assert (type(cached.inner), cached.identity()) == (type(plain), "other")
    assert cached.search(["x"], 1) == plain.search(["x"], 1)
    assert cached.fetch(["a"]) == plain.fetch(["a"])


@pytest.mark.usefixtures("other")
def test_an_address_names_its_kind():
    for place in ("other://host:80/x", "OTHER://host"):
        retriever: Any = open_retriever(place, cache=0)
        assert (type(retriever).__name__, retriever.place) == ("Other", place)
    with pytest.raises(ConfigError, match="no retriever 'othr'; did you mean other"):
        open_retriever("othr://host")


@pytest.mark.usefixtures("other")
def test_settings_reach_their_kind_by_name(tmp_path: Path):
    for settings, message in (
        (
            {"titel_weight": 1},
            "titel_weight is no setting .* bm25; did you mean title_weight",
        ),
        ({"progress": False}, "progress is no setting of the retriever bm25; its settings are "),
        ({"k1": -1}, "k1=-1"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_index(PASSAGES, tmp_path / "index", settings=settings, progress=False)
    with pytest.raises(ConfigError, match="no setting of the retriever other; it has no settings"):
        build_index(PASSAGES, tmp_path / "index", kind="other", settings={"k1": 1})
    assert not (tmp_path / "index").exists()
    build_index(PASSAGES, tmp_path / "index", settings={"k1": 0.9}, progress=False)
    build_index(PASSAGES, tmp_path / "plain", progress=False)
    first, second = (open_retriever(tmp_path / name).identity() for name in ("index", "plain"))
    assert first != second


@pytest.mark.usefixtures("other")
def test_an_address_is_built_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert build_index(PASSAGES, "other://host/name", progress=False) == 2
    with pytest.raises(ConfigError, match="other://host is a place of the kind other, not bm25"):
        build_index(PASSAGES, "other://host", kind="bm25")
