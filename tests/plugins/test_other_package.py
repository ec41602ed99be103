"""Parts of another package do in every command what the built-in ones do, and no less."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import exsearch
from exsearch.cli import cli
from exsearch.config import load_config
from exsearch.engines.local.engine import TransformersEngine
from exsearch.errors import ConfigError, IndexDamagedError
from exsearch.models.settings import model_settings
from exsearch.quickstart import RECIPE as QUICKSTART
from exsearch.quickstart import run as quickstart
from exsearch.records import Passage, Question, Step, StopReason, to_json
from exsearch.retrievers import build_index
from exsearch.training.recipe import Recipe
from exsearch.training.warm_up import example
from exsearch.trajectories import read_trajectories, to_lines

PACKAGE = Path(__file__).parent / "other_package"
ADDRESS = "memory://capitals"
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Norway": "Oslo", "Peru": "Lima"}


def capital(country: str) -> str:
    return f"What is the capital of {country}?"


@pytest.fixture(scope="module", autouse=True)
def other_parts() -> Iterator[Any]:
    """The package, as if it were installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGE))
        import other_parts  # pyright: ignore[reportMissingImports]

        yield other_parts
        patch.delitem(sys.modules, "other_parts")


@pytest.fixture(scope="module")
def run() -> Callable[..., Any]:
    """Runs a command; the JSON object that it prints, or its one line where it must fail."""

    def run_command(*args: object, code: int = 0) -> Any:
        words = [*map(str, args), "-q", *([] if code else ["--json"])]
        result = CliRunner().invoke(cli, words, prog_name="exsearch")
        assert result.exit_code == code, result.output
        if not code:
            return json.loads(result.stdout.splitlines()[-1])
        lines = result.stderr.strip().splitlines()
        assert result.stdout == "" and "Traceback" not in result.stderr
        return lines[-1]

    return run_command


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and questions."""
    folder = tmp_path_factory.mktemp("other")
    passages = [
        {"id": f"p-{c}", "title": c, "text": f"{a} is the capital of {c}."}
        for c, a in CAPITALS.items()
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(p) + "\n" for p in passages))
    questions = [Question(c, capital(c), (a,), (f"p-{c}",)) for c, a in CAPITALS.items()]
    for name, part in (("train", questions), ("dev", questions[:2])):
        (folder / f"{name}.jsonl").write_text("".join(to_json(q) + "\n" for q in part))
    return folder


@pytest.fixture(scope="module")
def index(run: Callable[..., Any], files: Path) -> Path:
    """The corpus, indexed by the other package's kind."""
    out = files / "index"
    made = run("index", files / "corpus.jsonl", "--kind", "memory", "--out", out)
    assert made == {"index": str(out), "passages": 5, "left_out": 0}
    return out


PARROT = ["--engine", "parrot", "--model", "Paris"]
LOOK_FIRST = ["--method", "look-first"]


# --- the commands ---


def test_index_writes_a_folder_that_says_its_kind(index: Path):
    assert json.loads((index / "retriever.json").read_text()) == {"kind": "memory"}
    assert (index / "manifest.json").is_file()


def test_ask_over_a_folder_and_over_an_address(run: Callable[..., Any], index: Path):
    for place, id_ in ((index, "p-France"), (ADDRESS, "France")):
        found = run("ask", capital("France"), "--index", place, *PARROT, *LOOK_FIRST)
        assert (found["answer"], found["stop_reason"]) == ("Paris", "answered")
        assert [step["query"] for step in found["steps"]] == [capital("France"), "Paris"]
        assert found["steps"][0]["passages"][0]["id"] == id_
        assert len(found["steps"][0]["passages"]) == 2


def test_settings_by_options(run: Callable[..., Any], index: Path):
    command = ["ask", capital("Peru"), "--index", index, *PARROT, *LOOK_FIRST]
    found = run(*command, "--passages", 4, "--engine-option", "volume=2")
    assert len(found["steps"][0]["passages"]) == 4
    assert found["answer"] == "Paris!!"
    found = run(*command, "--method-option", "answer_tokens=1")
    assert found["stop_reason"] == "max_tokens"


def test_evaluate(run: Callable[..., Any], files: Path, index: Path, tmp_path: Path):
    out = tmp_path / "out"
    command = ["evaluate", "--questions", files / "train.jsonl", *PARROT, *LOOK_FIRST]
    summary = run(*command, "--index", index, "--out", out)
    assert (summary["n"], summary["em"], summary["brief"]) == (5, 0.2, 1.0)
    assert "brief" in summary["ci95"]
    assert summary["union_recall"] > 0
    settings = json.loads((out / "settings.json").read_text())
    assert settings["method"] == {
        "name": "look-first", "passages": 2, "query_tokens": 12, "answer_tokens": 12,
    }  # fmt: skip
    assert settings["index"] == exsearch.open_retriever(index).identity()
    assert settings["model"]["engine"] == "parrot"
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["brief"] for row in rows] == [1.0] * 5
    shown = CliRunner().invoke(cli, ["show", str(out)])
    assert "brief answers" in shown.stdout
    # Other passages are another evaluation.
    refused = run(*command, "--index", ADDRESS, "--out", out, code=7)
    assert "begun with other settings: index was 'memory:" in refused


def test_rollout(run: Callable[..., Any], files: Path, tmp_path: Path):
    out = tmp_path / "trajectories.jsonl"
    figures = run(
        "rollout", "--questions", files / "train.jsonl", "--index", ADDRESS, *PARROT, *LOOK_FIRST,
        "--samples", 2, "--out", out,
    )  # fmt: skip
    assert (figures["trajectories"], figures["weighed"], figures["em"]) == (10, 10, 0.2)
    trajectories = list(read_trajectories(out))
    assert {t.method for t in trajectories} == {"look-first"}
    assert {p.id for t in trajectories for p in t.passages} == set(CAPITALS)


# --- training ---

RECIPE = """
name = "other"
[model]
device = "cpu"
[data]
corpus = ["corpus.jsonl"]
train = "train.jsonl"
dev = "dev.jsonl"
[retriever]
{retriever}
[method]
name = "look-first"
passages = 3
[warm_up]
{warm_up}
epochs = 20
questions_per_step = 2
learning_rate = 1e-2
[e_step]
samples = 4
[m_step]
questions_per_step = 2
learning_rate = 1e-4
[gem]
iterations = {iterations}
select_by = "brief"
"""


@pytest.fixture(scope="module")
def recipe(files: Path) -> Callable[..., Path]:
    def write(name: str, retriever: str, *, warm_up: str = "", iterations: int = 1) -> Path:
        file = files / f"{name}.toml"
        text = RECIPE.format(retriever=retriever, warm_up=warm_up, iterations=iterations)
        file.write_text(text)
        return file

    return write


@pytest.fixture(scope="module")
def examples(files: Path, index: Path, tiny_engine: TransformersEngine) -> str:
    """A file of trajectories of the method, replayed in the model's tokens."""
    retriever = exsearch.open_retriever(index)
    method = exsearch.open_method({"name": "look-first", "passages": 3})
    items = []
    for question in exsearch.load_questions(files / "train.jsonl")[:3]:
        queries = ((question.question, 3), (question.id, 1))
        steps = [Step(q, tuple(retriever.search([q], k)[0])) for q, k in queries]
        made = exsearch.replay(question, steps, question.answers[0], method, tiny_engine.tokenizer)
        items.append(example(made, tiny_engine.tokenizer))
    (files / "examples.jsonl").write_text("".join(f"{line}\n" for line in to_lines(items)))
    return 'file = "examples.jsonl"'


@pytest.fixture(scope="module")
def trained(
    run: Callable[..., Any],
    recipe: Callable[..., Path],
    examples: str,
    tiny_model_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run with an index of its own: warm-up by the file, one GEM round."""
    file = recipe("own-index", 'kind = "memory"', warm_up=examples)
    out = tmp_path_factory.mktemp("trained") / "run"
    best = run("train", file, "--model", tiny_model_folder, "--out", out)
    assert best["selected_by"] == "dev brief"
    assert 0 <= best["dev"]["brief"] <= 1
    return out


def test_train_over_an_index_of_its_own(trained: Path):
    assert json.loads((trained / "index" / "retriever.json").read_text()) == {"kind": "memory"}
    written = json.loads((trained / "recipe.json").read_text())
    assert written["recipe"]["retriever"]["kind"] == "memory"
    assert written["recipe"]["method"]["name"] == "look-first"
    sampled = list(read_trajectories(trained / "iteration-01" / "trajectories.jsonl"))
    assert len(sampled) == 2 * 4  # the questions that are no examples
    assert {t.method for t in sampled} == {"look-first"}
    assert all(t.steps[0].query == t.question.question for t in sampled)
    assert {p.id for t in sampled for p in t.steps[0].passages} <= {f"p-{c}" for c in CAPITALS}
    assert all(len(t.steps[0].passages) == 3 for t in sampled)
    settings = model_settings(trained)
    assert (settings.method.name, settings.method) == (
        "look-first",
        exsearch.open_method({"name": "look-first", "passages": 3}),
    )


def test_a_trained_model_is_asked_as_it_was_trained(run: Callable[..., Any], trained: Path):
    found = run("ask", capital("Italy"), "--index", ADDRESS, "--model", trained, "--device", "cpu")
    assert found["steps"][0]["query"] == capital("Italy")
    assert len(found["steps"][0]["passages"]) == 3


@pytest.mark.parametrize("place", ["index", ADDRESS])
def test_train_over_a_place_without_warm_up(
    run: Callable[..., Any],
    recipe: Callable[..., Path],
    index: Path,
    trained: Path,
    tmp_path: Path,
    place: str,
):
    """From a model that answers: an untrained one has no trajectory to learn from."""
    file = recipe("place", f'index = "{place}"')
    known_host = [] if place == "index" else ["--allow-host", "capitals"]
    best = run("train", file, "--model", trained, "--out", tmp_path / "run", *known_host)
    assert best["stage"] in ("start", "iteration-01")
    assert not (tmp_path / "run" / "index").exists()
    opened = exsearch.open_retriever(index if place == "index" else place)
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert written["index"] == opened.identity()
    sampled = list(read_trajectories(tmp_path / "run" / "iteration-01" / "trajectories.jsonl"))
    assert len(sampled) == 5 * 4
    known = {p.id for t in sampled for p in t.passages}
    assert known == {f"p-{c}" if place == "index" else c for c in CAPITALS}


def test_decompositions_are_the_searcher_s_alone(
    run: Callable[..., Any], recipe: Callable[..., Path], tiny_model_folder: Path, tmp_path: Path
):
    file = recipe("decomposed", f'index = "{ADDRESS}"', warm_up="examples = 2")
    command = ["train", file, "--model", tiny_model_folder, "--out", tmp_path / "run"]
    assert "name it: --allow-host capitals" in run(*command, code=2)
    said = run(*command, "--allow-host", "capitals", code=2)
    assert "examples for the methods searcher, direct and rag, not look-first" in said


# --- the quick start ---


class Indexed(Exception):
    """The quick start has come to its second stage."""


def test_quickstart_indexes_as_its_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
):
    def stop(*args: Any, **options: Any) -> None:
        raise Indexed

    monkeypatch.setattr("exsearch.quickstart.evaluate", stop)
    overrides = ("retriever.kind=memory", f"model.name={tiny_model_folder}", "model.device=cpu")
    with pytest.raises(Indexed):
        quickstart(tmp_path / "out", size="small", overrides=overrides)
    facts = json.loads((tmp_path / "out" / "index" / "retriever.json").read_text())
    assert facts["kind"] == "memory"


def test_quickstart_is_for_the_searcher(
    run: Callable[..., Any], tmp_path: Path, tiny_model_folder: Path
):
    """Its recipe sets the searcher's own fields, and it warms up by decompositions."""
    command = ["quickstart", "--size", "small", "--model", tiny_model_folder, "--device", "cpu"]
    command += ["--out", tmp_path / "out", "--set"]
    assert "unknown key method.max_steps" in run(*command, "method.name=look-first", code=2)
    with pytest.raises(ConfigError, match=r"unknown key method\.max_steps"):
        load_config(Recipe, QUICKSTART, ["method.name=look-first"])


# --- from Python ---


def test_a_retriever_from_python(index: Path, other_parts: Any):
    for place, id_ in ((index, "p-Peru"), (ADDRESS, "Peru")):
        cached: Any = exsearch.open_retriever(place)
        plain: Any = exsearch.open_retriever(place, cache=0)
        assert type(cached.inner) is type(plain) is other_parts.MemoryRetriever
        assert isinstance(cached, exsearch.Retriever) and isinstance(plain, exsearch.Retriever)
        # All but searches passes the cache by.
        assert cached.identity() == plain.identity()
        peru, none = cached.fetch([id_, "nowhere"])
        assert [peru, none] == plain.fetch([id_, "nowhere"])
        assert (peru, none) == (Passage(id_, "Peru", "Lima is the capital of Peru."), None)
        before = len(other_parts.MemoryRetriever.searched)
        first, again = (cached.search(["capital Peru"], 1) for _ in range(2))
        assert first == again == plain.search(["capital Peru"], 1)
        assert first[0][0].id == id_
        # Once for the cached one, once for the plain one.
        assert other_parts.MemoryRetriever.searched[before:] == ["capital Peru"] * 2
    assert exsearch.open_retriever(index).identity() != exsearch.open_retriever(ADDRESS).identity()


def test_the_same_passages_in_another_folder_are_the_same(files: Path, index: Path, tmp_path: Path):
    count = exsearch.build_index(
        exsearch.read_corpus([files / "corpus.jsonl"]), tmp_path / "copy", kind="memory"
    )
    assert count == 5
    copy = exsearch.open_retriever(tmp_path / "copy")
    assert copy.identity() == exsearch.open_retriever(index).identity()


def test_a_searcher_from_python():
    method = exsearch.open_method({"name": "look-first", "passages": 1})
    engine = exsearch.load_engine("Oslo", engine="parrot", engine_options={"volume": 1})
    with exsearch.Searcher(engine, ADDRESS, method=method) as searcher:
        found = searcher.ask(capital("Norway"))
    assert (found.answer, found.trajectory.method) == ("Oslo!", "look-first")
    assert [s.query for s in found.trajectory.steps] == [capital("Norway"), "Oslo!"]
    assert [p.id for p in found.trajectory.steps[0].passages] == ["Norway"]
    with exsearch.Searcher("Rome", ADDRESS, method=method, engine="parrot") as by_name:
        assert by_name.ask(capital("Italy")).answer == "Rome"


def test_a_rollout_from_python():
    questions = [Question(c, capital(c), (a,)) for c, a in CAPITALS.items()]
    trajectories = exsearch.rollout(
        questions,
        exsearch.load_engine("Lima", engine="parrot"),
        exsearch.open_retriever(ADDRESS),
        method=exsearch.open_method({"name": "look-first"}),
        samples=2,
    )
    assert [t.id for t in trajectories] == [f"{c}#{n}" for c in CAPITALS for n in range(2)]
    assert {(t.answer, t.stop_reason) for t in trajectories} == {("Lima", StopReason.ANSWERED)}


# --- what is wrong is one line ---


@pytest.mark.parametrize(
    ("given", "message", "code"),
    [
        (["--index", "memori://capitals"], "no retriever 'memori'; did you mean memory?", 2),
        (["--index", "memory://towns"], "memory://towns: no such collection; known: capitals", 4),
        (["--index", ADDRESS, "--method", "look-frist"], "did you mean look-first?", 2),
        (["--index", ADDRESS, *LOOK_FIRST, "--max-steps", 2], "no setting of method look-first", 2),
        (
            ["--index", ADDRESS, *LOOK_FIRST, "--method-option", "passages=0"],
            "passages is 0, expected 1 or more",
            2,
        ),
        (["--index", ADDRESS, "--engine-option", "pitch=1"], "'parrot' takes volume", 2),
        (["--index", ADDRESS, "--engine", "parot"], "no engine 'parot'; did you mean parrot?", 2),
    ],
)
def test_a_wrong_name_or_setting(
    run: Callable[..., Any], given: list[object], message: str, code: int
):
    assert message in run("ask", "Why?", *PARROT, *given, code=code)


def test_a_wrong_kind_of_index(run: Callable[..., Any], files: Path, tmp_path: Path):
    said = run(
        "index", files / "corpus.jsonl", "--kind", "memry", "--out", tmp_path / "index", code=2
    )
    assert "no retriever 'memry'; did you mean memory?" in said
    assert not (tmp_path / "index").exists()
    with pytest.raises(ConfigError, match="did you mean memory"):
        build_index([], tmp_path / "index", kind="memry")
    with pytest.raises(exsearch.DataError, match="no passage to index"):
        build_index([], tmp_path / "index", kind="memory")
    with pytest.raises(IndexDamagedError, match="no such folder"):
        exsearch.open_retriever(tmp_path / "index")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('retriever.kind="memry"', "no retriever 'memry'; did you mean memory?"),
        ('retriever.index="memory://towns"', "no such collection; known: capitals"),
        ('retriever.index="memori://capitals"', "no retriever 'memori'; did you mean memory?"),
        ('method.name="look-frist"', "no method 'look-frist'; did you mean look-first?"),
        ("method.passage=2", "unknown key method.passage; did you mean method.passages?"),
        ("method.passages=0", "passages is 0, expected 1 or more"),
        ('gem.select_by="breif"', "no metric 'breif'; did you mean brief?"),
        ('model.engine="parrot"', "model.engine: 'parrot' has no weights to train"),
    ],
)
def test_a_wrong_recipe(
    run: Callable[..., Any],
    recipe: Callable[..., Path],
    tiny_model_folder: Path,
    tmp_path: Path,
    override: str,
    message: str,
):
    file = recipe("wrong", 'kind = "memory"')
    command = ["train", file, "--model", tiny_model_folder, "--out", tmp_path / "run"]
    said = run(*command, "--set", override, code=4 if "towns" in override else 2)
    assert message in said
