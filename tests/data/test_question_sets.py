"""Public question sets become ours: every form that they come in, and what is wrong in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from exsearch.data import FORMATS, formats
from exsearch.data.benchmarks import NO_GOLD, NO_TEXT, UNANSWERED
from exsearch.data.corpus import read_corpus
from exsearch.data.formats import convert
from exsearch.data.question_sets import MORE_GOLD, NO_PARAGRAPH, UNJUDGED
from exsearch.data.questions import load_questions
from exsearch.errors import DataError
from exsearch.records import Passage, Question

TRIVIA = {
    "Data": [
        {
            "Answer": {
                "Aliases": ["Quillmoor", "Old Quillmoor"],
                "HumanAnswers": ["Quillmore"],
                "NormalizedAliases": ["quillmoor", "old quillmoor"],
                "Type": "WikipediaEntity",
                "Value": "Quillmoor",
            },
            "EntityPages": [{"Title": "Quillmoor", "Filename": "Quillmoor.txt"}],
            "Question": "Where was Ada Fenn born?",
            "QuestionId": "tc_1",
            "SearchResults": [],
        },
        {"Question": "Who was she?", "QuestionId": "tc_2"},
    ],
    "Domain": "unfiltered-web",
    "Split": "train",
    "Version": 1.0,
}
POPQA = (
    "id\tsubj\tprop\tquestion\tpossible_answers\n"
    '7\tAda\toccupation\tWhat was Ada?\t"[""builder"", ""maker""]"\n'
)
FLASHRAG = {
    "id": "test_0",
    "question": "Where was Ada Fenn born?",
    "golden_answers": ["Quillmoor"],
    "metadata": {"type": "bridge", "level": None, "context": {}},
}
KILT = {
    "id": "k1",
    "input": "Where was Ada Fenn born?",
    "meta": {},
    "output": [
        {"answer": "Quillmoor"},
        {
            "answer": "Quillmoor",
            "provenance": [
                {"wikipedia_id": "12", "start_paragraph_id": 1, "end_paragraph_id": 2},
                {"wikipedia_id": "13", "start_paragraph_id": 0, "end_paragraph_id": 0},
            ],
        },
        {"provenance": [{"wikipedia_id": "13", "start_paragraph_id": 1}]},
    ],
}
PAGES = [
    {
        "wikipedia_id": "12",
        "wikipedia_title": "Ada Fenn",
        "text": [
            "Ada Fenn\n",
            "She built.\n",
            "She was born in Quillmoor.\n",
            "Section::::Life.\n",
        ],
    },
    {"wikipedia_id": "13", "wikipedia_title": "Quillmoor", "text": ["Quillmoor\n", " ", "Old.\n"]},
]
SEARCH_R1 = {
    "id": "train_0",
    "question": "Where was Ada Fenn born?",
    "golden_answers": ["Quillmoor"],
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "Answer the question."}],
    "reward_model": {"ground_truth": {"target": ["Quillmoor", "Q."]}, "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
}


def lines(path: Path, *items: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(content)
    return path


def rows(path: Path, *items: dict[str, Any]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(list(items)), path)
    return path


def converted(format: str, *sources: Path) -> tuple[list[Question], dict[str, Any]]:
    """The questions of the first file that was written, and the summary."""
    out = sources[0].parent / "out"
    summary = convert(format, sources, out)
    return load_questions(out / next(iter(summary["questions"]))), summary


def passages(folder: Path) -> list[Passage]:
    return list(read_corpus(folder / "out" / "corpus.jsonl"))


def test_every_format_is_known_by_its_name():
    assert tuple(formats._FORMATS) == FORMATS


@pytest.mark.parametrize("format", ["nq-open", "webquestions"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nq-test.qa.csv", "Who?\t['X', \"Y's\"]\nWhen?\t['May']\n"),
        ("nq-test.qa.tsv", 'question\tanswer\nWho?\t["X", "Y\'s"]\nWhen?\tMay\n'),
        (
            "nq-test.qa.jsonl",
            '{"question": "Who?", "answers": ["X", "Y\'s"]}\n'
            '{"question": "When?", "answer": ["May"]}\n',
        ),
    ],
)
def test_questions_and_answers_as_dpr_has_them(
    tmp_path: Path, format: str, name: str, content: str
):
    questions, summary = converted(format, text(tmp_path / name, content))
    first = 2 if content.startswith("question") else 1
    assert questions == [
        Question(f"nq-test.qa-{first}", "Who?", ("X", "Y's"), dataset=format),
        Question(f"nq-test.qa-{first + 1}", "When?", ("May",), dataset=format),
    ]
    assert summary["passages"] == 0
    assert not (tmp_path / "out" / "corpus.jsonl").exists()


@pytest.mark.parametrize("head", ["", '{"Earlier": {"Data": [[1]]}, "x": ["Data"], '])
def test_triviaqa(tmp_path: Path, head: str):
    content = json.dumps(TRIVIA, indent=1)
    source = tmp_path / "unfiltered-web-train.json.gz"
    source.write_bytes(gzip.compress((head + content[1:] if head else content).encode()))
    questions, summary = converted("triviaqa", source)
    answers = ("Quillmoor", "Old Quillmoor", "Quillmore")
    assert questions == [
        Question("tc_1", "Where was Ada Fenn born?", answers, dataset="triviaqa"),
        Question("tc_2", "Who was she?", dataset="triviaqa"),
    ]
    assert summary["notes"] == {UNANSWERED: 1}


def test_popqa(tmp_path: Path):
    questions, _ = converted("popqa", text(tmp_path / "test.tsv", POPQA))
    assert questions == [Question("7", "What was Ada?", ("builder", "maker"), dataset="popqa")]
    written = json.loads((tmp_path / "out" / "test.jsonl").read_text())
    assert written["type"] == "occupation"


def test_a_lone_surrogate_can_be_written(tmp_path: Path):
    content = POPQA.replace("builder", "\\ud800")
    questions, _ = converted("popqa", text(tmp_path / "test.tsv", content))
    assert questions[0].answers == ("\ufffd", "maker")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", 'Question,Answer\n"Who, then?",X\nWhen?,May\n'),
        (
            "b.json",
            '[{"Question": "Who, then?", "Answer": "X"}, {"Question": "When?", "Answer": "May"}]',
        ),
        (
            "b.jsonl",
            '{"question": "Who, then?", "answer": "X"}\n{"Question": "When?", "Answer": "May"}',
        ),
    ],
)
def test_bamboogle(tmp_path: Path, name: str, content: str):
    questions, _ = converted("bamboogle", text(tmp_path / name, content))
    first = 2 if name == "b.csv" else 1
    assert questions == [
        Question(f"b-{first}", "Who, then?", ("X",), dataset="bamboogle"),
        Question(f"b-{first + 1}", "When?", ("May",), dataset="bamboogle"),
    ]


def test_flashrag_with_its_corpus(tmp_path: Path):
    source = lines(tmp_path / "test.jsonl", FLASHRAG, {**FLASHRAG, "id": 2, "metadata": None})
    wiki = [{"id": "0", "contents": '"Ada Fenn"\nShe built.'}, {"id": "1", "contents": " "}]
    questions, summary = converted("flashrag", source, lines(tmp_path / "wiki18.jsonl", *wiki))
    asked = "Where was Ada Fenn born?"
    assert questions == [
        Question("test_0", asked, ("Quillmoor",), dataset="flashrag"),
        Question("2", asked, ("Quillmoor",), dataset="flashrag"),
    ]
    assert passages(tmp_path) == [Passage("0", "Ada Fenn", "She built.")]
    assert (summary["passages"], summary["notes"]) == (1, {NO_TEXT: 1})


def write_beir(folder: Path) -> Path:
    lines(
        folder / "corpus.jsonl",
        {"_id": "d1", "title": "Ada", "text": "She built.", "metadata": {}},
        {"_id": "d2", "title": "", "text": "Old."},
    )
    lines(
        folder / "queries.jsonl",
        {"_id": "q1", "text": "Who built?", "metadata": {"answer": "Ada"}},
        {"_id": "q2", "text": "What is old?", "metadata": {}},
        {"_id": "q3", "text": "Never judged?"},
        {"_id": "q4", "text": "Nothing?"},
    )
    head = "query-id\tcorpus-id\tscore\n"
    text(
        folder / "qrels" / "test.tsv",
        f"{head}q2\td2\t2\nq1\td1\t1\nq1\td2\t0\nq2\td1\t1\nq4\td1\t0\n",
    )
    text(folder / "qrels" / "dev.tsv", f"{head}q1\td2\t1\nq1\td9\t1\n")
    return folder


def test_beir_as_a_folder_or_as_files(tmp_path: Path):
    folder = write_beir(tmp_path / "set")
    questions, summary = converted("beir", folder)
    assert questions == [Question("q1", "Who built?", ("Ada",), (), dataset="beir")]
    test = load_questions(tmp_path / "out" / "test.jsonl")
    assert test == [
        Question("q2", "What is old?", (), ("d2", "d1"), dataset="beir"),
        Question("q1", "Who built?", ("Ada",), ("d1",), dataset="beir"),
    ]
    assert summary["questions"] == {"dev.jsonl": 1, "test.jsonl": 2}
    assert summary["notes"] == {NO_GOLD: 1, UNJUDGED: 1}
    assert passages(tmp_path) == [Passage("d1", "Ada", "She built."), Passage("d2", "", "Old.")]
    files = [folder / "qrels" / "test.tsv", folder / "queries.jsonl", folder / "corpus.jsonl"]
    convert("beir", files, tmp_path / "files")
    assert load_questions(tmp_path / "files" / "test.jsonl") == test
    convert("beir", files[:2], tmp_path / "alone")  # gold passages can't be looked up
    assert load_questions(tmp_path / "alone" / "test.jsonl") == test


def test_kilt_with_its_knowledge_source(tmp_path: Path):
    page_only = {"id": 2, "input": "Which?", "output": [{"provenance": [{"wikipedia_id": "12"}]}]}
    source = lines(tmp_path / "nq-dev-kilt.jsonl", KILT, page_only)
    (first, second), summary = converted("kilt", source)
    gold = ("12-1", "12-2", "13-0")
    assert first == Question("k1", KILT["input"], ("Quillmoor",), gold, dataset="nq")
    assert (second.id, second.supporting) == ("2", ())
    assert summary["notes"] == {MORE_GOLD: 1, NO_PARAGRAPH: 1, UNANSWERED: 1}
    pages = lines(tmp_path / "kilt_knowledgesource.json", *PAGES)
    questions, _ = converted("kilt", source, pages)
    assert questions == [first, second]
    assert [p.id for p in passages(tmp_path)] == ["12-0", "12-1", "12-2", "13-0", "13-2"]
    assert passages(tmp_path)[2] == Passage("12-2", "Ada Fenn", "She was born in Quillmoor.")
    (first, _), summary = converted("kilt", source, lines(pages, PAGES[0]))
    assert first.supporting == ()
    assert summary["notes"][NO_GOLD] == 1


def test_search_r1(tmp_path: Path):
    other = {**SEARCH_R1, "data_source": "hotpotqa", "golden_answers": None}
    questions, _ = converted("search-r1", rows(tmp_path / "train.parquet", SEARCH_R1, other))
    asked, answers = SEARCH_R1["question"], ("Quillmoor", "Q.")
    assert questions == [
        Question("nq-train_0", asked, answers, dataset="nq"),
        Question("hotpotqa-train_0", asked, answers, dataset="hotpotqa"),
    ]


@pytest.mark.parametrize(
    ("info", "id_"),
    [
        ({"question": "Who?", "split": "test", "index": 3}, "nq-test-3"),
        ({"question": "Who?", "index": 3}, "nq-3"),
        ({"question": "Who?"}, "train-1"),
    ],
)
def test_search_r1_with_the_question_in_its_extra_info(tmp_path: Path, info, id_: str):
    row = {
        "data_source": "nq",
        "reward_model": {"ground_truth": {"target": "X"}},
        "extra_info": info,
    }
    questions, _ = converted("search-r1", rows(tmp_path / "train.parquet", row))
    assert questions == [Question(id_, "Who?", ("X",), dataset="nq")]


SPAN = {"wikipedia_id": "1", "start_paragraph_id": 1, "end_paragraph_id": 2}


def kilt(**span: Any) -> str:
    return json.dumps({**KILT, "output": [{"provenance": [{**SPAN, **span}]}]})


WRONG = [
    ("nq-open", "a.csv", "Who?\n", r"a.csv:1: no line of names"),
    ("nq-open", "a.jsonl", '{"question": 5}', r'a.jsonl:1: field "question" is a number'),
    ("webquestions", "a.tsv", "Who?\t['X']\textra\n", "a.tsv:1: no line of names"),
    ("triviaqa", "a.json", "[]", r'a JSON object with a list "Data": it must begin with "\{"'),
    ("triviaqa", "a.json", '{"data": []}', "no question in it"),
    ("triviaqa", "a.json", '{"Data": {"a": 1}}', r'item \[0\]: not JSON \("Data" is no list\)'),
    ("triviaqa", "a.json", '{"Data": [{"Question": "Q"}]}', r'"Data\[0\].QuestionId" is missing'),
    (
        "triviaqa",
        "a.json",
        '{"Data": [{"Question": "Q", "QuestionId": "1"}]',
        r"item \[1\]: not JSON",
    ),
    (
        "triviaqa",
        "a.json",
        '{"Data": [{"Question": "Q", "QuestionId": "1", "Answer": {"Aliases": []}}]}',
        r'field "Data\[0\].Answer.Value" is missing',
    ),
    ("popqa", "a.tsv", "id\tquestion\tpossible_answers\n1\tQ\tX\n", "a list of texts in JSON"),
    ("popqa", "a.tsv", "id\tquestion\tpossible_answers\n1\tQ\t[1]\n", "a list of texts in JSON"),
    ("popqa", "a.tsv", "1\tQ\t[]\n", "no line of names"),
    ("bamboogle", "a.csv", "Frage,Antwort\nQ,A\n", 'the first must name the fields, "Question"'),
    ("bamboogle", "a.json", '[{"Question": "Q", "Answer": [5]}]', r'"\[0\].answer" is a list'),
    ("flashrag", "a.jsonl", '{"id": 1, "question": "Q", "metadata": []}', '"metadata" is an empty'),
    (
        "flashrag",
        "a.jsonl",
        '{"id": 1, "question": "Q", "golden_answers": [2]}',
        "list of texts only",
    ),
    ("kilt", "a.jsonl", '{"id": 1, "output": []}', 'a.jsonl:1: field "input" is missing'),
    ("kilt", "a.jsonl", kilt(wikipedia_id=None), r'"output\[0\].provenance\[0\].wikipedia_id" is'),
    ("kilt", "a.jsonl", kilt(start_paragraph_id="1"), "a whole number, with at most 100"),
    ("kilt", "a.jsonl", kilt(end_paragraph_id=0), "a whole number, with at most 100"),
    ("kilt", "a.jsonl", kilt(end_paragraph_id=10**9), "a whole number, with at most 100"),
    ("search-r1", "a.parquet", "no table", "a.parquet: no Parquet file"),
    (
        "beir",
        "a.tsv",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
        'a.tsv:2: no query has the id "q1"',
    ),
]


@pytest.mark.parametrize(("format", "name", "content", "said"), WRONG)
def test_a_wrong_file_is_one_line_and_leaves_nothing(tmp_path: Path, format, name, content, said):
    source = text(tmp_path / name, content)
    with pytest.raises(DataError, match=said) as caught:
        convert(format, [source], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_source": None}, 'train.parquet:1: field "data_source" is null'),
        ({"question": None, "extra_info": None}, 'train.parquet:1: field "question" is null'),
        ({"reward_model": "rule"}, 'field "reward_model" is the text'),
        ({"reward_model": {"ground_truth": {"target": [1]}}}, "ground_truth.target. is a list"),
    ],
)
def test_a_wrong_row_of_search_r1_is_named(tmp_path: Path, change, said: str):
    source = rows(tmp_path / "train.parquet", {**SEARCH_R1, **change})
    with pytest.raises(DataError, match=said):
        convert("search-r1", [source], tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_wrong_judgements_and_passages_leave_nothing(tmp_path: Path):
    folder = write_beir(tmp_path / "set")
    file = text(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\thigh\n")
    with pytest.raises(DataError, match=r'test.tsv:2: field "score" is the text .high.'):
        convert("beir", [folder], tmp_path / "out")
    file.unlink()
    lines(folder / "corpus.jsonl", {"_id": "d1", "text": "x"}, {"_id": "d1", "text": "y"})
    with pytest.raises(DataError, match='the id "d1" came before'):
        convert("beir", [folder], tmp_path / "out")
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(DataError, match="no source file given that holds questions"):
        convert("beir", [folder], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
