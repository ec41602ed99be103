"""An index that passages are added to and removed from is the one built anew over the rest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exsearch.errors import ConfigError, DataError, IndexDamagedError, RunError
from exsearch.records import Passage
from exsearch.retrievers import open_retriever, update_index
from exsearch.retrievers.bm25 import Bm25Retriever, build_bm25
from exsearch.runs import MANIFEST, locked

WORDS = [
    "bee",
    "X-43A",
    "honey",
    "queen queen queen",
    "\u6771\u4eac\u90fd",
    "the",
    "Caf\u00e9s",
    "mid-1990s",
]
PASSAGES = st.builds(
    Passage,
    id=st.sampled_from("abcdefgh"),
    title=st.sampled_from(["", "Bees", "The Queen", " "]),
    text=st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join),
)
STEPS = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcdefgh"), max_size=4),
        st.lists(PASSAGES, max_size=4, unique_by=lambda p: p.id),
    ),
    min_size=1,
    max_size=3,
)
START = [
    Passage("z", "Bee", "A bee makes honey."),
    Passage("y", "", "of the"),
    Passage("x", "", " "),
]


def content(folder: Path) -> str:
    return (folder / MANIFEST).read_text()


@settings(max_examples=12, deadline=None)
@given(steps=STEPS, k1=st.sampled_from([1.2, 0]), title_weight=st.integers(0, 2))
def test_any_sequence_gives_the_bytes_of_an_index_built_anew(steps, k1, title_weight):
    options = {"k1": k1, "title_weight": title_weight, "progress": False}
    with tempfile.TemporaryDirectory() as scratch:
        changed, anew = Path(scratch) / "changed", Path(scratch) / "anew"
        build_bm25(START, changed, **options)
        there = list(START)
        for remove, add in steps:
            remove &= {p.id for p in there if p.title.strip() or p.text.strip()}
            there = [p for p in there if p.id not in remove]
            add = [p for p in add if p.id not in {q.id for q in there}]
            there += add
            update_index(iter(add), changed, remove=remove, progress=False)
            build_bm25(there, anew, **options)
            assert content(changed) == content(anew)


@pytest.fixture
def index(tmp_path):
    build_bm25(START, tmp_path / "index")
    return tmp_path / "index"


def test_a_passage_is_replaced_and_the_identity_changes(index):
    before = open_retriever(index)
    count = update_index([Passage("z", "Bee", "A bee dances.")], index, remove=["z"])
    after = open_retriever(index)
    assert count == 2
    assert after.identity() != before.identity()
    assert [p.text for p in after.search(["bee"], 5)[0]] == ["A bee dances."]
    assert [p.text for p in before.search(["bee"], 5)[0]] == ["A bee makes honey."]  # still open


@pytest.mark.parametrize(
    ("add", "remove", "said"),
    [
        ([Passage("z", "", "twice")], [], 'the id "z" comes twice'),
        ([Passage("w", "", "new")], ["w"], 'no passage "w"; nothing was removed'),
        ([], ["z", "y"], "the corpus is empty"),
        ([], ["z"], "no passage has a word"),
    ],
)
def test_a_change_that_fails_leaves_the_index_as_it_was(index, add, remove, said):
    before = content(index)
    with pytest.raises(DataError, match=said):
        update_index(add, index, remove=remove)
    assert content(index) == before
    assert {p.name for p in index.parent.iterdir()} == {"index", ".index.lock"}


def test_a_kill_in_the_middle_leaves_the_index_as_it_was(index):
    before = content(index)
    code = f"""if True:
        import os, signal
        from exsearch.records import Passage
        from exsearch.retrievers import update_index
        def passages():
            for n in range(100):
                yield Passage(str(n), "", "honey")
            os.kill(os.getpid(), signal.SIGKILL)
        update_index(passages(), {str(index)!r}, remove=["z"])
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert content(index) == before
    assert len(Bm25Retriever.open(index, hashes=True)) == 2
    assert update_index([Passage("w", "", "honey")], index) == 3
    assert {p.name for p in index.parent.iterdir()} == {"index", ".index.lock"}


def test_two_changes_at_once_lose_none(index):
    with locked(index.parent, index.name), pytest.raises(RunError, match="another process"):
        update_index([], index, remove=["z"])


def test_what_is_no_index_is_not_changed(index, tmp_path):
    with pytest.raises(IndexDamagedError, match="no such folder"):
        update_index([], tmp_path / "none")
    data = (index / "postings.npy").read_bytes()
    (index / "postings.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IndexDamagedError, match=r"postings\.npy"):
        update_index([], index)
    (index / "postings.npy").write_bytes(data)
    (index / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        update_index([], index)
