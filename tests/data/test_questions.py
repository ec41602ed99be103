"""Questions are read as they stand, and every fault is named with file, line and field."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.data import SAMPLES, sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.errors import DataError
from exsearch.records import Hop, Question

GOOD = '{"id": "a", "question": "Who?", "answers": ["X"]}'


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_all_fields_are_read_and_unknown_ones_passed_over(tmp_path):
    hop = {"question": "p >> q", "answer": "long X", "answer_short": "X", "support_id": "p1"}
    line = {
        "id": 7,
        "question": "Who?",
        "answers": ["X", "Y"],
        "supporting": ["p1", "p2"],
        "decomposition": [hop, {"question": "#1?", "answer": ""}],
        "dataset": "nq",
        "hops": 2,
    }
    path = write(tmp_path / "q.jsonl", json.dumps(line))
    assert load_questions(path) == [
        Question(
            id="7",
            question="Who?",
            answers=("X", "Y"),
            supporting=("p1", "p2"),
            decomposition=(Hop("p >> q", "long X", "X", "p1"), Hop("#1?", "")),
            dataset="nq",
        )
    ]


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({}, ()),
        ({"answer": "X"}, ("X",)),
        ({"answer": ["X", "Y"]}, ("X", "Y")),
        ({"answers": None, "answer": "X"}, ("X",)),
        ({"answers": ["X"], "answer": "Y"}, ("X",)),
        ({"answers": [], "answer": "Y"}, ("Y",)),
        ({"golden_answers": ["X", "Y"]}, ("X", "Y")),  # FlashRAG
        ({"possible_answers": '["X", "Y"]', "prop": "job"}, ("X", "Y")),  # PopQA
        ({"possible_answers": "['X']"}, ("X",)),
        ({"answer": "X", "answer_aliases": ["Y", "X"]}, ("X", "Y")),  # MuSiQue
        ({"answers": {"text": ["X", "Y"], "answer_start": [1, 2]}}, ("X", "Y")),  # SQuAD
        ({"answer": {"value": "X", "aliases": ["Y"], "type": "Entity"}}, ("X", "Y")),  # TriviaQA
        ({"output": [{"answer": "X"}, {"provenance": []}, {"answer": "Y"}]}, ("X", "Y")),  # KILT
        ({"output": "no list of answers"}, ()),
    ],
)
def test_answer_stands_for_answers(tmp_path, fields, answers):
    line = json.dumps({"id": "a", "question": "Who?", **fields})
    assert load_questions(write(tmp_path / "q.jsonl", line))[0].answers == answers


@pytest.mark.parametrize(
    "name", ["anwsers", "gold_answers", "Answer", "labels", "ground_truth", "correct answers"]
)
def test_a_field_that_may_be_meant_for_answers_is_named(tmp_path, caplog, name):
    line = {"id": "a", "question": "Who?", name: ["X"]}
    path = write(tmp_path / "q.jsonl", json.dumps(line), json.dumps({**line, "id": "b"}))
    assert [q.answers for q in load_questions(path)] == [(), ()]
    said = f"a field {name!r}, which is not read, stands in 2 of the questions without an answer"
    assert said in caplog.text


def test_no_field_is_named_without_need(tmp_path, caplog):
    other = {"answer_type": "person", "answerable": True, "answer_id": "Q1", "gold": [], "hops": 2}
    plain = {"id": "a", "question": "Who?", **other}
    found = {"id": "b", "question": "Who?", "answers": ["X"], "gold_answers": ["X"]}
    load_questions(write(tmp_path / "q.jsonl", json.dumps(plain), json.dumps(found)))
    assert caplog.text == ""


TABLES = {
    "named.csv": 'id,question,answers\n7,Who?,"[\'X\', ""Y\'s""]"\n8,"When, then?",May\n9,W?,\n',
    "unnamed.csv": 'Who?\t[\'X\', "Y\'s"]\r\n\r\n"When, then?"\tMay\nW?\t\n',  # DPR
    "popqa.tsv": 'id\tquestion\tpossible_answers\n7\tWho?\t"[""X"", ""Y\'s""]"\n'
    "8\tWhen, then?\tMay\n9\tW?\t[]\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_questions_and_answers_in_a_table(tmp_path, name):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(("\ufeff" + TABLES[name]).encode()))
    found = load_questions(path)
    assert [q.question for q in found] == ["Who?", "When, then?", "W?"]
    assert [q.distinct_answers for q in found] == [("X", "Y's"), ("May",), ()]
    ids = ["unnamed-1", "unnamed-3", "unnamed-4"] if name == "unnamed.csv" else ["7", "8", "9"]
    assert [q.id for q in found] == ids


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one,two,three\n", "q.csv:1: no line of names"),
        ("question,answer\nWho?\n", "q.csv:2: 1 fields where the line of names has 2"),
        ('question,answer\nWho?,"X"Y\n', "q.csv:2: not a table"),
        ('question,answer\nWho?,"X\n', "q.csv:2: not a table"),
        ("question,answer\n", "no question in it"),
        ("", "no question in it"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, said):
    path = tmp_path / "q.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        load_questions(path)


def test_ids_are_texts_or_whole_numbers_everywhere(tmp_path):
    hop = {"question": "p", "answer": "q", "support_id": 5}
    line = {"_id": 7, "question": "Who?", "supporting": [5, "p6"], "decomposition": [hop]}
    (question,) = load_questions(write(tmp_path / "q.jsonl", json.dumps(line)))
    assert (question.id, question.supporting) == ("7", ("5", "p6"))
    assert question.decomposition[0].support_id == "5"
    for bad in (5.0, True, " ", []):
        path = write(tmp_path / "bad.jsonl", json.dumps({**line, "supporting": [bad]}))
        with pytest.raises(DataError, match='field "supporting" is a list, expected a list of ids'):
            load_questions(path)


def test_gzip_bom_blank_lines_and_crlf(tmp_path):
    path = tmp_path / "q.jsonl.gz"
    text = "\ufeff\r\n" + GOOD + "\r\n  \r\n" + GOOD.replace('"a"', '"b"')
    path.write_bytes(gzip.compress(text.encode()))
    assert [q.id for q in load_questions(path)] == ["a", "b"]


def test_limit_stops_before_later_faults(tmp_path):
    path = write(tmp_path / "q.jsonl", GOOD, "broken")
    assert [q.id for q in load_questions(path, limit=1)] == ["a"]
    with pytest.raises(ValueError, match="limit is 0"):
        load_questions(path, limit=0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "expected a JSON object, got a list"),
        ('{"question": "Who?"}', 'field "id" is missing'),
        ('{"id": true, "question": "Who?"}', 'field "id" is true or false'),
        ('{"id": "b"}', 'field "question" is missing, expected text.*fields here: id'),
        ('{"id": "b", "question": " "}', "field \"question\" is the text ' '"),
        ('{"id": "b", "question": 3}', 'field "question" is a number, expected text'),
        ('{"id": "b", "question": "Q", "answers": "X"}', "field \"answers\" is the text 'X'"),
        ('{"id": "b", "question": "Q", "answers": [1]}', "not one with a number"),
        ('{"id": "b", "question": "Q", "answer": 1}', 'field "answer" is a number'),
        ('{"id": "b", "question": "Q", "supporting": {}}', 'field "supporting" is an object'),
        ('{"id": "b", "question": "Q", "decomposition": ["x"]}', 'field "decomposition"'),
        (
            '{"id": "b", "question": "Q", "decomposition": [{"answer": "x"}]}',
            r'field "decomposition\[0\].question" is missing',
        ),
        ("[" * 100_000, "nested too deeply|not JSON"),
        (GOOD, 'id "a" is also on line 1'),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = write(tmp_path / "q.jsonl", GOOD, "", line)
    with pytest.raises(DataError, match=said) as caught:
        load_questions(path)
    assert (caught.value.file, caught.value.line) == (path, 3)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_bad_utf8_names_line_and_byte(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"id": "\xff"}\n')
    with pytest.raises(DataError, match=r"q.jsonl:2: byte 9 is not UTF-8"):
        load_questions(path)


@pytest.mark.parametrize("damage", ["cut", "altered", "no gzip"])
def test_bad_gzip(tmp_path, damage):
    data = gzip.compress("\n".join(GOOD.replace('"a"', f'"{n}"') for n in range(999)).encode())
    middle = len(data) // 2
    flipped = bytes([data[middle] ^ 0xFF])
    path = tmp_path / "q.jsonl.gz"
    path.write_bytes(
        {
            "cut": data[:-20],
            "altered": data[:middle] + flipped + data[middle + 1 :],
            "no gzip": GOOD.encode(),
        }[damage]
    )
    with pytest.raises(DataError, match=r"q.jsonl.gz"):
        load_questions(path)


def test_missing_file_names_the_nearest(tmp_path):
    write(tmp_path / "train.jsonl", GOOD)
    with pytest.raises(DataError, match=r"did you mean train.jsonl\?"):
        load_questions(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match="does not exist"):
        load_questions(tmp_path / "no" / "train.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        load_questions(tmp_path)


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_empty_file(tmp_path, text):
    path = tmp_path / "q.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="no question in it"):
        load_questions(path)


def test_a_lone_surrogate_can_be_written_again(tmp_path):
    path = write(tmp_path / "q.jsonl", r'{"id": "a", "question": "a \ud83d\ude00 b \ud800"}')
    (question,) = load_questions(path)
    assert question.question == "a \U0001f600 b \ufffd"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "q.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + data)
    try:
        assert load_questions(path)
    except DataError as error:
        assert "\n" not in str(error)


def test_samples_fit_together():
    ids = {passage.id for passage in read_corpus([sample_path("corpus")])}
    for name in SAMPLES[1:]:
        for question in load_questions(sample_path(name)):
            assert question.answers
            assert set(question.supporting) <= ids
    with pytest.raises(ValueError, match="corpus, train, dev, test"):
        sample_path("../corpus")
