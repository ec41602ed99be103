"""A re-ranker learns to tell support from what else was found, and goes on where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.config import parse_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.errors import ConfigError, DataError
from exsearch.progress import Bars
from exsearch.records import Passage, Question
from exsearch.retrievers import build_index, open_retriever
from exsearch.retrievers.scorers import Scorer, kind_of
from exsearch.training.reranker import (
    Candidates,
    RerankerConfig,
    dev_figures,
    find_candidates,
    pairs,
)
from tiny_encoders import save_tiny_encoder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    build_index(read_corpus([sample_path("corpus")]), folder / "index", progress=False)
    save_tiny_encoder(folder / "tiny")
    return folder


def command(base: Path, out: Path, *more: str) -> list[str]:
    where = ["--index", str(base / "index"), "--model", str(base / "tiny" / "model")]
    size = ["--limit", "12", "--first", "6", "--max-tokens", "40", "--evaluations", "2"]
    files = ["--questions", "sample:train", "--dev", "sample:dev"]
    return ["train-reranker", *files, *where, "--out", str(out), *size, "-q", "--json", *more]


def passages(*ids: str) -> list[Passage]:
    return [Passage(id_, "", f"text of {id_}") for id_ in ids]


def test_wrong_passages_are_found_and_hold_no_answer():
    question = Question("q", "Who?", answers=("Ada Fenn",), supporting=("a", "b"))
    found = [*passages("c", "a", "d"), Passage("e", "Ada Fenn", "A builder.")]
    each = Candidates(question, found, passages("a", "b"))
    assert [p.id for p in each.wrong()] == ["c", "d"]
    yes = Candidates(Question("q", "Is it?", answers=("yes",), supporting=("a",)), [], [])
    assert yes.wrong() == []
    says_yes = Candidates(yes.question, [Passage("f", "", "Yes, it is.")], [])
    assert [p.id for p in says_yes.wrong()] == ["f"]


def test_pairs_are_every_support_and_some_of_the_wrong():
    question = Question("q", "Who?", answers=("x",), supporting=("a", "b"))
    each = Candidates(question, passages(*"abcdefgh"), passages("a", "b"))
    data = pairs([each], RerankerConfig(negatives=3))
    assert data["label"] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert data["query"] == ["Who?"] * 5
    assert data["passage"][:2] == ["text of a", "text of b"]
    assert len(set(data["passage"])) == 5
    assert pairs([each], RerankerConfig(negatives=3)) == data
    assert pairs([each], RerankerConfig(negatives=3, seed=1)) != data
    with pytest.raises(DataError, match="nothing to learn from"):
        pairs([Candidates(question, passages("a"), passages("a"))], RerankerConfig())


def test_figures_by_hand():
    def with_support(*ids: str) -> Candidates:
        return Candidates(Question("q", "?", supporting=ids), [], [])

    dev = [with_support("a", "b"), with_support("z"), with_support("f")]
    lists = [passages(*"cabde"), passages(*"abc"), passages(*"abcdef")]
    assert dev_figures(dev, lists) == {
        "recall_at_5": pytest.approx((1 + 0 + 0) / 3),
        "mrr": pytest.approx((1 / 2 + 0 + 1 / 6) / 3),
    }


def test_questions_without_support_in_the_place_are_left_out(base: Path):
    retriever = open_retriever(base / "index")
    known = load_questions(sample_path("train"), 3)
    stranger = Question("s", "Who?", supporting=("not there",))
    found = find_candidates([*known, stranger], retriever, 4, Bars(False))
    assert [each.question.id for each in found] == [question.id for question in known]
    assert all(len(each.found) <= 4 for each in found)


def test_the_command_trains_a_model_that_combine_takes(base: Path, tmp_path: Path):
    result = CliRunner().invoke(cli, command(base, tmp_path / "out"))
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["model"] == str(tmp_path / "out" / "model")
    steps = [entry["step"] for entry in figures["evaluations"]]
    assert len(steps) == 2 and figures["pairs"] > 12
    assert figures["best"] in figures["evaluations"]
    assert figures["best"]["recall_at_5"] == max(e["recall_at_5"] for e in figures["evaluations"])
    model = tmp_path / "out" / "model"
    assert kind_of(model) == "cross-encoder"
    scorer = Scorer.open(str(model))
    assert scorer._longest == 32 * 40  # as many tokens as it was trained with
    made = CliRunner().invoke(
        cli,
        ["combine", str(base / "index"), "--rerank", str(model), "--out", str(tmp_path / "c")],
    )
    assert made.exit_code == 0, made.output
    assert open_retriever(tmp_path / "c").search(["Peter Pan"], 3)[0]
    again = CliRunner().invoke(cli, command(base, tmp_path / "out"))
    assert json.loads(again.stdout) == figures  # it is done
    other = CliRunner().invoke(cli, command(base, tmp_path / "out", "--negatives", "2"))
    assert other.exit_code == 7 and "negatives was 3, is now 2" in other.output


@pytest.mark.slow
def test_it_learns(base: Path, tmp_path: Path):
    """Trained on its own dev questions, a model ranks the support higher than one that is not."""
    lines = sample_path("train").read_text(encoding="utf-8").splitlines()[:12]
    dev = tmp_path / "dev.jsonl"
    dev.write_text(
        "\n".join(json.dumps({**json.loads(n), "id": str(i)}) for i, n in enumerate(lines))
    )
    from exsearch.jobs import reranker

    tiny = str(base / "tiny" / "model")
    settings: dict[str, Any] = {"model": tiny, "max_tokens": 48, "batch_size": 8}
    config = RerankerConfig(**settings, epochs=12, learning_rate=5e-3, evaluations=6, first=10)
    candidates = find_candidates(
        load_questions(dev), open_retriever(base / "index"), 10, Bars(False)
    )
    figures = reranker.train_on(candidates, candidates, tmp_path / "out", config, Bars(False))
    assert figures["best"]["mrr"] > figures["evaluations"][0]["mrr"]


KILLED = """
import os, signal, sys
from exsearch.training import reranker

mark = reranker.mark_whole
saves = []

def kills(checkpoint):
    saves.append(checkpoint)
    if len(saves) == 2:
        os.kill(os.getpid(), signal.SIGKILL)  # torn: it was not marked
    mark(checkpoint)

import exsearch.training.reranker_steps as steps
steps.mark_whole = kills
from exsearch.cli import main
main()
"""


@pytest.mark.slow
def test_a_killed_training_ends_as_another(base: Path, tmp_path: Path):
    arguments = command(base, tmp_path / "killed", "--evaluations", "3", "--batch-size", "8")
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (tmp_path / "killed" / "model").exists()
    goes_on = CliRunner().invoke(cli, arguments)
    whole = CliRunner().invoke(
        cli, command(base, tmp_path / "whole", "--evaluations", "3", "--batch-size", "8")
    )
    first, second = json.loads(goes_on.stdout), json.loads(whole.stdout)
    assert len(second["evaluations"]) == 3
    assert first["evaluations"] == second["evaluations"]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--dev", "sample:train"], 3, "is also one to learn from"),
        (["--index", "none"], 4, "no such folder"),
        (["--model", "./none"], 5, "no such model"),
        (["--questions", "none.jsonl"], 3, "none.jsonl"),
        (["--max-tokens", "3"], 2, "max_tokens is 3"),
        (["--learning-rate", "nan"], 2, "learning"),
    ],
)
def test_bad_input_is_one_line(base: Path, tmp_path: Path, more: list[str], code: int, said: str):
    result = CliRunner().invoke(cli, command(base, tmp_path / "out", *more))
    assert result.exit_code == code, result.output
    assert said in result.output
    assert not (tmp_path / "out" / "model").exists()


def test_questions_without_support(base: Path, tmp_path: Path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "1", "question": "Who?", "answers": ["x"]}\n')
    result = CliRunner().invoke(cli, command(base, tmp_path / "out", "--dev", str(file)))
    assert result.exit_code == 3
    assert "no question has supporting passages that are in" in result.output


def test_settings_that_can_not_be_used():
    with pytest.raises(ConfigError, match="first is 1"):
        parse_config(RerankerConfig, {"first": 1})
