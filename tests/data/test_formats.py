"""Official benchmark files become questions and a corpus, whole or not at all."""

from __future__ import annotations

import gzip
import json

import pytest

from exsearch.data import json_array
from exsearch.data.benchmarks import NO_GOLD, NO_TEXT, UNANSWERED
from exsearch.data.corpus import read_corpus
from exsearch.data.formats import convert
from exsearch.data.questions import load_questions
from exsearch.errors import ConfigError, DataError

HOTPOT = {
    "_id": "5a8b",
    "question": "Were Scott and Ed of the same nationality?",
    "answer": "yes",
    "supporting_facts": [["Scott", 0], ["Ed", 0], ["Scott", 1]],
    "context": [
        ["Ed", ["Ed Wood was an American.", " He made films."]],
        ["Other", ["Unrelated."]],
        ["Scott", ["Scott is an American director."]],
        ["Empty", []],
    ],
    "type": "comparison",
    "level": "hard",
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Who is the spouse of the Green performer?",
    "answer": "Miquette Giraudy",
    "answer_aliases": ["Giraudy", "Miquette Giraudy"],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "Green", "paragraph_text": "By Hillage.", "is_supporting": True},
        {"idx": 1, "title": "X", "paragraph_text": "Nothing.", "is_supporting": False},
        {"idx": 2, "title": "Hillage", "paragraph_text": "Spouse G.", "is_supporting": True},
    ],
    "question_decomposition": [
        {"id": 1, "question": "Green >> performer", "answer": "H", "paragraph_support_idx": 0},
        {"id": 2, "question": "#1 >> spouse", "answer": "G", "paragraph_support_idx": 2},
        {"id": 3, "question": "third", "answer": "G", "paragraph_support_idx": None},
    ],
}


def write_array(path, items):
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def write_lines(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def read_back(folder, name):
    passages = {p.id: p for p in read_corpus([folder / "corpus.jsonl"])}
    return load_questions(folder / name), passages


def test_hotpotqa(tmp_path):
    test_item = {"_id": "t", "question": "Which?", "context": HOTPOT["context"]}
    train = write_array(tmp_path / "hotpot_train_v1.1.json", [HOTPOT])
    test = write_array(tmp_path / "test.json", [test_item])
    summary = convert("hotpotqa", [train, test], tmp_path / "out")
    (question,), passages = read_back(tmp_path / "out", "hotpot_train_v1.1.jsonl")
    assert (question.id, question.answers, question.dataset) == ("5a8b", ("yes",), "hotpotqa")
    assert [passages[i].title for i in question.supporting] == ["Scott", "Ed"]
    assert passages[question.supporting[1]].text == "Ed Wood was an American. He made films."
    assert len(passages) == 3
    (unanswered,), _ = read_back(tmp_path / "out", "test.jsonl")
    assert unanswered.answers == unanswered.supporting == ()
    assert summary["questions"] == {"hotpot_train_v1.1.jsonl": 1, "test.jsonl": 1}
    assert summary["passages"] == 3
    assert summary["notes"] == {"passages without text left out": 2, UNANSWERED: 1}
    assert json.loads((tmp_path / "out" / "conversion.json").read_text()) == summary


def test_hotpotqa_fullwiki_without_all_gold_has_no_supporting(tmp_path):
    item = {**HOTPOT, "context": HOTPOT["context"][:2]}
    summary = convert("hotpotqa", [write_array(tmp_path / "a.json", [item])], tmp_path / "out")
    (question,), _ = read_back(tmp_path / "out", "a.jsonl")
    assert question.supporting == ()
    assert any("gold passage is not in the file" in note for note in summary["notes"])


def test_ids_are_the_same_in_any_order_of_sources(tmp_path):
    one = write_array(tmp_path / "one.json", [HOTPOT])
    two = write_array(tmp_path / "two.json", [{**HOTPOT, "context": HOTPOT["context"][::-1]}])
    convert("hotpotqa", [one, two], tmp_path / "out1")
    convert("hotpotqa", [two, one], tmp_path / "out2")
    assert read_back(tmp_path / "out1", "two.jsonl") == read_back(tmp_path / "out2", "two.jsonl")


def test_2wikimultihopqa_with_aliases(tmp_path):
    item = {**HOTPOT, "answer": "United States", "answer_id": "Q30", "evidences_id": []}
    item["evidences"] = [["Scott", "country", "United States"]]
    source = write_array(tmp_path / "dev.json", [item])
    alias = {"Q_id": "Q30", "aliases": ["USA", "United States"], "demonyms": ["American"]}
    aliases = write_lines(tmp_path / "id_aliases.json", [alias])
    convert("2wikimultihopqa", [source], tmp_path / "plain")
    convert("2wikimultihopqa", [source, aliases], tmp_path / "out")
    (plain,), _ = read_back(tmp_path / "plain", "dev.jsonl")
    (question,), passages = read_back(tmp_path / "out", "dev.jsonl")
    assert plain.answers == ("United States",)
    assert question.answers == ("United States", "USA", "American")
    assert question.dataset == "2wikimultihopqa"
    assert [passages[i].title for i in question.supporting] == ["Scott", "Ed"]
    assert "evidences" in json.loads((tmp_path / "out" / "dev.jsonl").read_text())


def test_musique(tmp_path):
    unanswerable = {**MUSIQUE, "answerable": False}
    test_item = {"id": "t", "question": "Who?", "paragraphs": MUSIQUE["paragraphs"][:1]}
    source = write_lines(tmp_path / "musique.jsonl", [MUSIQUE, unanswerable, test_item])
    summary = convert("musique", [source], tmp_path / "out")
    (question, unlabelled), passages = read_back(tmp_path / "out", "musique.jsonl")
    assert question.answers == ("Miquette Giraudy", "Giraudy")
    assert [passages[i].title for i in question.supporting] == ["Green", "Hillage"]
    hops = question.decomposition
    assert [hop.question for hop in hops] == ["Green >> performer", "#1 >> spouse", "third"]
    assert [hop.support_id for hop in hops] == [*question.supporting, None]
    assert (unlabelled.id, unlabelled.answers) == ("t", ())
    assert summary["notes"] == {"unanswerable questions left out": 1, UNANSWERED: 1}


def test_a_blank_paragraph_of_musique_is_left_out_and_noted(tmp_path):
    blank, *rest = MUSIQUE["paragraphs"]
    item = {**MUSIQUE, "paragraphs": [{**blank, "paragraph_text": " "}, *rest]}
    summary = convert("musique", [write_lines(tmp_path / "m.jsonl", [item])], tmp_path / "out")
    (question,), passages = read_back(tmp_path / "out", "m.jsonl")
    assert summary["notes"] == {NO_TEXT: 1, NO_GOLD: 1}
    assert (question.supporting, len(passages)) == ((), 2)
    assert [hop.support_id is None for hop in question.decomposition] == [True, False, True]


@pytest.mark.parametrize(
    ("fields", "answers", "notes"),
    [
        ({"golden_answers": ["X", "Y"]}, ["X", "Y"], {}),
        ({"possible_answers": '["X"]', "answer": None}, ["X"], {}),
        ({"answer": []}, [], {UNANSWERED: 1}),
        ({"gold_answers": ["X"]}, [], {f"{UNANSWERED}, but a field 'gold_answers'": 1}),
    ],
)
def test_nq_open_with_answers_elsewhere_or_none(tmp_path, fields, answers, notes):
    source = write_lines(tmp_path / "nq.jsonl", [{"question": "Who?", **fields}])
    summary = convert("nq-open", [source], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "nq.jsonl").read_text())["answers"] == answers
    assert summary["notes"] == notes


def test_one_source_is_not_taken_for_its_letters(tmp_path):
    with pytest.raises(TypeError, match="sources is one text"):
        convert("nq-open", str(tmp_path / "nq.jsonl"), tmp_path / "out")


def test_nq_open_has_ids_from_line_numbers_and_no_corpus(tmp_path):
    source = tmp_path / "NQ-open.dev.jsonl.gz"
    lines = [{"question": "who", "answer": ["A", "B"]}, {"question": "when", "answer": ["C"]}]
    source.write_bytes(gzip.compress("\n\n".join(map(json.dumps, lines)).encode()))
    convert("nq-open", [source], tmp_path / "out")
    questions = load_questions(tmp_path / "out" / "NQ-open.dev.jsonl")
    assert [q.id for q in questions] == ["NQ-open.dev-1", "NQ-open.dev-3"]
    assert questions[0].answers == ("A", "B")
    assert not (tmp_path / "out" / "corpus.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_id": None}, r'field "\[1\]._id" is null'),
        ({"question": 5}, r'field "\[1\].question" is a number'),
        ({"answer": [1]}, r'field "\[1\].answer" is a list.* not one with a number'),
        ({"context": [["T"]]}, r'field "\[1\].context".*pairs that begin with a title'),
        ({"context": [["T", "text"]]}, r"a list of texts after the title 'T'"),
        ({"supporting_facts": ["T"]}, r'field "\[1\].supporting_facts"'),
        ({}, 'id "5a8b" comes twice'),
    ],
)
def test_a_bad_item_leaves_nothing_behind(tmp_path, change, said):
    source = write_array(tmp_path / "a.json", [HOTPOT, {**HOTPOT, **change}])
    with pytest.raises(DataError, match=said):
        convert("hotpotqa", [source], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_bad_musique_line_is_named(tmp_path):
    hop = {"question": "q", "answer": "a", "paragraph_support_idx": 9}
    bad = {**MUSIQUE, "id": "other", "question_decomposition": [hop]}
    source = write_lines(tmp_path / "m.jsonl", [MUSIQUE, bad])
    with pytest.raises(DataError, match=r"m.jsonl:2: .*question_decomposition\[0\].paragraph_su"):
        convert("musique", [source], tmp_path / "out")


def test_options_that_cannot_be_used(tmp_path):
    source = write_array(tmp_path / "a.json", [HOTPOT])
    with pytest.raises(ConfigError, match="hotpotqa, 2wikimultihopqa, musique, nq-open"):
        convert("hotpot", [source], tmp_path / "out")
    with pytest.raises(DataError, match="no source"):
        convert("hotpotqa", [], tmp_path / "out")
    with pytest.raises(DataError, match="did you mean"):
        convert("hotpotqa", [tmp_path / "b.json"], tmp_path / "out")
    with pytest.raises(DataError, match=r"both become a\.jsonl"):
        convert("hotpotqa", [source, tmp_path / "x" / "a.json"], tmp_path / "out")
    with pytest.raises(ConfigError, match="is no converted data set"):
        convert("hotpotqa", [source], tmp_path)
    assert source.exists()
    convert("hotpotqa", [source], tmp_path / "out")
    convert("hotpotqa", [source], tmp_path / "out")  # its own folder is written anew


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_arrays_are_read_in_chunks_of_any_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_array, "CHUNK", chunk)
    items = [{"a": 'x"]},é\U0001f600', "n": 12}, {}, {"b": [{}, [1.5]]}]
    for text in (json.dumps(items), json.dumps(items, ensure_ascii=False, indent=2) + "\n "):
        path = tmp_path / "a.json"
        path.write_bytes(b"\xef\xbb\xbf" * (chunk > 2) + text.encode())
        assert list(json_array.read_array(path, "file")) == list(enumerate(items))
    path.write_text(" [ ] ")
    assert list(json_array.read_array(path, "file")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'must begin with "\\["'),
        ('{"a": 1}', 'must begin with "\\["'),
        ("[1]", r"item \[0\] is a number"),
        ('[{"a": 1}', r"item \[1\]: not JSON \(parse error: premature EOF\)$"),
        ('[{"a": 1} {"b": 2}]', r"item \[1\]: not JSON \(.*I expect ',' or '\]'\)$"),
        ('[{"a": 1}, {"b" 2}]', r"item \[1\]: not JSON"),
        ('[{"a": 1}, {"b": "', r"item \[1\]: not JSON"),
        ('[{"a": 1}] x', r"item \[1\]: not JSON \(parse error: trailing garbage\)$"),
        ("[" * 100_000, r"item \[0\]: not JSON"),
        ('[{"a": "\xff"}]', "not UTF-8"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=said):
        list(json_array.read_array(path, "file"))
