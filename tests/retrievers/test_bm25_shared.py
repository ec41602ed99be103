"""On real questions one search finds the gold that BM25 should; skipped without the data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.retrievers.bm25 import Bm25Retriever, build_bm25

SHARED = Path(
    os.environ.get("EXSEARCH_SHARED_DATA")
    or Path(__file__).resolve().parents[3] / "shared" / "data"
)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared question-answering data is not here")
@pytest.mark.parametrize(
    ("dataset", "count", "share"), [("2wikimultihopqa", 628, 0.33), ("hotpotqa", 2147, 0.59)]
)
def test_all_gold_in_the_top_five(tmp_path, dataset, count, share):
    folder = SHARED / dataset
    splits = [load_questions(folder / f"{name}.jsonl.gz") for name in ("train", "dev", "test")]
    questions = [question for split in splits for question in split if question.supporting]
    assert len(questions) == count
    build_bm25(read_corpus([folder / "corpus.jsonl.gz"]), tmp_path / "index", progress=False)
    retriever = Bm25Retriever.open(tmp_path / "index")
    found = retriever.search([question.question for question in questions], 5)
    complete = sum(
        set(question.supporting) <= {passage.id for passage in passages}
        for question, passages in zip(questions, found, strict=True)
    )
    assert complete / len(questions) >= share
