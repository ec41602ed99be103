"""Checks of the packaged sample: its passages, its questions and the splits between them."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import exsearch

SAMPLE = Path(exsearch.__file__).parent / "data" / "sample"
SPLITS = ("train", "dev", "test")
PAIRS = list(combinations(SPLITS, 2))
QUESTION_FIELDS = {
    "id",
    "question",
    "answers",
    "supporting",
    "decomposition",
    "type",
    "hops",
}
HOP_FIELDS = {"question", "answer", "answer_short", "support_id"}

Row = dict[str, Any]


def read_rows(name: str) -> list[Row]:
    """Read one of the sample's JSON-lines files."""
    lines = (SAMPLE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


PASSAGES = {row["id"]: row for row in read_rows("corpus.jsonl")}
SETS = {split: read_rows(f"{split}.jsonl") for split in SPLITS}
QUESTIONS = [row for split in SPLITS for row in SETS[split]]


def contains(phrase: str, text: str) -> bool:
    """Tell whether the phrase occurs in the text as whole words, whatever the case."""
    pattern = r"(?<!\w)" + re.escape(phrase.casefold()) + r"(?!\w)"
    return re.search(pattern, text.casefold()) is not None


def hop_key(hop: Row) -> tuple[str, str]:
    """Name a hop by its passage and its short answer."""
    return hop["support_id"], hop["answer_short"].casefold()


def chain_key(row: Row) -> frozenset[tuple[str, str]]:
    """Name a question's reasoning chain by the set of its hops."""
    return frozenset(hop_key(hop) for hop in row["decomposition"])


def is_yes_no(row: Row) -> bool:
    """Tell whether the question is answered with yes or no."""
    return row["answers"] in (["yes"], ["no"])


def test_passages_have_unique_ids_and_titles() -> None:
    rows = read_rows("corpus.jsonl")
    assert 200 <= len(rows) <= 400
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["title"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "title", "text"}
        assert re.fullmatch(r"s-\d{4}", row["id"])


def test_passage_lengths() -> None:
    for row in PASSAGES.values():
        assert row["title"].strip(), row["id"]
        assert 25 <= len(row["text"].split()) <= 55, row["id"]
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-ZÀ-Þ])", row["text"])
        assert 2 <= len(sentences) <= 5, row["id"]
        assert row["text"].endswith("."), row["id"]


def test_questions_have_unique_ids_and_texts() -> None:
    assert len(QUESTIONS) >= 150
    assert len({row["id"] for row in QUESTIONS}) == len(QUESTIONS)
    assert len({row["question"].casefold() for row in QUESTIONS}) == len(QUESTIONS)


def test_sizes_of_the_splits() -> None:
    assert len(SETS["train"]) > len(SETS["test"]) > len(SETS["dev"]) >= 20


def test_shares_of_hops() -> None:
    hops = Counter(row["hops"] for row in QUESTIONS)
    assert set(hops) <= {2, 3, 4}
    assert 0.70 <= hops[2] / len(QUESTIONS) <= 0.90
    for split in SPLITS:
        assert any(row["hops"] > 2 for row in SETS[split])


def test_yes_no_questions_are_few_and_balanced() -> None:
    answers = Counter(row["answers"][0] for row in QUESTIONS if is_yes_no(row))
    assert sum(answers.values()) <= 0.10 * len(QUESTIONS)
    assert abs(answers["yes"] - answers["no"]) <= 2


def test_comparisons_favour_neither_option() -> None:
    first = Counter(
        any(contains(answer, row["decomposition"][0]["answer"]) for answer in row["answers"])
        for row in QUESTIONS
        if row["type"] == "comparison" and not is_yes_no(row)
    )
    assert abs(first[True] - first[False]) <= 0.2 * sum(first.values())


def test_decompositions_match_the_questions() -> None:
    for row in QUESTIONS:
        assert set(row) == QUESTION_FIELDS, row["id"]
        assert row["type"] in ("bridge", "comparison"), row["id"]
        assert row["question"].endswith("?"), row["id"]
        assert row["answers"], row["id"]
        assert all(1 <= len(answer.split()) <= 5 for answer in row["answers"]), row["id"]
        hops = row["decomposition"]
        assert row["hops"] == len(hops), row["id"]
        assert row["supporting"] == [hop["support_id"] for hop in hops], row["id"]
        assert len(set(row["supporting"])) == len(hops), row["id"]
        assert all(set(hop) == HOP_FIELDS for hop in hops), row["id"]


def test_every_hop_is_supported_by_its_passage() -> None:
    for row in QUESTIONS:
        for hop in row["decomposition"]:
            assert hop["support_id"] in PASSAGES, row["id"]
            passage = PASSAGES[hop["support_id"]]
            assert contains(hop["answer_short"], f"{passage['title']} {passage['text']}"), row["id"]
            assert contains(hop["answer_short"], hop["answer"]), row["id"]
            assert hop["answer"].endswith("."), row["id"]
            assert "#" not in hop["answer"], row["id"]


def test_placeholders_refer_to_earlier_hops() -> None:
    for row in QUESTIONS:
        for earlier, hop in enumerate(row["decomposition"]):
            assert hop["question"].endswith("?"), row["id"]
            used = [int(digits) for digits in re.findall(r"#(\d+)", hop["question"])]
            assert all(1 <= place <= earlier for place in used), row["id"]
            if row["type"] == "bridge" and earlier:
                assert used, row["id"]


def test_bridge_questions_hide_their_bridges_and_their_answer() -> None:
    for row in QUESTIONS:
        if row["type"] != "bridge":
            continue
        *bridges, last = row["decomposition"]
        assert last["answer_short"] in row["answers"], row["id"]
        hidden = [hop["answer_short"] for hop in bridges] + row["answers"]
        assert not any(contains(phrase, row["question"]) for phrase in hidden), row["id"]


def test_comparisons_end_in_yes_no_or_a_named_option() -> None:
    for row in QUESTIONS:
        if row["type"] == "comparison" and not is_yes_no(row):
            assert any(contains(answer, row["question"]) for answer in row["answers"]), row["id"]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_splits_share_no_chain(one: str, other: str) -> None:
    chains = [{chain_key(row) for row in SETS[split]} for split in (one, other)]
    assert not chains[0] & chains[1]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_splits_share_no_last_hop(one: str, other: str) -> None:
    last = [{hop_key(row["decomposition"][-1]) for row in SETS[split]} for split in (one, other)]
    assert not last[0] & last[1]
