"""The folder of the first answer holds what its question needs."""

from __future__ import annotations

import os

import pytest
from benchmarks.first_answer import QUESTION, in_memory, make_folder

from exsearch.jobs.folder_index import index_folder
from exsearch.retrievers import open_retriever


def test_the_folder_holds_what_the_question_needs(tmp_path):
    make_folder(tmp_path / "docs", 12)
    assert len(list((tmp_path / "docs").iterdir())) == 12
    made = index_folder(tmp_path / "docs", cache=tmp_path / "cache", progress=False)
    assert made.files == 12
    (found,) = open_retriever(made.index).search(["J. M. Barrie children's hospital"], 1)
    assert "Great Ormond Street" in found[0].text and "hospital" in QUESTION


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux says")
def test_what_was_just_written_is_in_memory(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    assert in_memory(tmp_path / "file") > 0.9
