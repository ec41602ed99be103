"""Every command does its work, and with `--json` its last line is one JSON object."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exsearch.cli import cli
from exsearch.data import sample_path
from exsearch.retrievers import open_retriever
from exsearch.runs import new_folder

Run = Callable[..., Result]
Fails = Callable[..., str]
QUESTION = "To which hospital did the author of Peter Pan leave the income from the play?"
COMMANDS = [
    "index",
    "combine",
    "retrieve",
    "evaluate-retrieval",
    "train-reranker",
    "ask",
    "rollout",
    "train",
    "track",
    "evaluate",
    "score",
    "compare",
    "experiment",
    "data",
    "show",
    "diagnose",
    "report",
    "judge",
    "serve",
    "mcp",
    "serve-retriever",
    "quickstart",
    "doctor",
]
TINY_RECIPE = """
name = "tiny"
[model]
device = "cpu"
[method]
max_steps = 2
passages = 2
passage_words = 20
thought_tokens = 8
record_tokens = 8
[warm_up]
examples = 2
[gem]
iterations = 0
dev_questions = 2
"""


def last_json(result):
    return json.loads(result.stdout.splitlines()[-1])


def test_help_lists_every_command_in_the_order_of_use(run: Run):
    lines = run("--help").stdout.split("Commands:")[1].split("Examples:")[0].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == COMMANDS
    assert not any(line.rstrip().endswith("...") for line in lines)


@pytest.mark.parametrize("command", [*COMMANDS, "data fetch", "data convert", "data merge"])
def test_every_command_has_help(run: Run, command: str):
    text = run(*command.split(), "--help").stdout
    if command not in ("data", "doctor"):
        assert f"Examples:\n    exsearch {command}" in text
    if command != "data":
        for option in ("--json", "--debug", "--quiet", "--verbose"):
            assert option in text


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        command = [sys.executable, "-m", "exsearch", "--help"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 3  # 0.15 on an idle machine


def test_index_counts_passages(run: Run, tmp_path: Path):
    result = run("index", sample_path("corpus"), "--out", tmp_path / "index", "--json")
    counts = {"passages": 298, "left_out": 0}
    assert last_json(result) == {"index": str(tmp_path / "index"), **counts}


def test_index_leaves_blank_passages_out_and_says_so(run: Run, tmp_path: Path):
    corpus = tmp_path / "c.jsonl"
    texts = [{"title": "Ada", "text": ""}, {"title": " ", "text": None}, {"text": "\n"}]
    lines = [json.dumps({"id": n, **text}) for n, text in enumerate(texts)]
    corpus.write_text("\n".join([*lines, '{"_id": 9, "text": "Ada is here."}']))
    result = run("index", corpus, "--out", tmp_path / "index", "--json")
    assert "index: 2 blank passages are left out" in result.stderr
    assert (last_json(result)["passages"], last_json(result)["left_out"]) == (2, 2)
    assert json.loads((tmp_path / "index" / "retriever.json").read_text())["left_out"] == 2
    found = open_retriever(tmp_path / "index").search(["ada"], 5)
    assert {p.id: p.text for p in found[0]} == {"0": "", "9": "Ada is here."}


def test_an_index_says_its_own_kind(run: Run, fails: Fails, tmp_path: Path):
    command = ["index", sample_path("corpus"), "--out", tmp_path / "index"]
    assert "no retriever 'bm52'; did you mean bm25?" in fails(*command, "--kind", "bm52", code=2)
    assert not (tmp_path / "index").exists()
    run(*command, "--kind", "bm25")
    assert json.loads((tmp_path / "index" / "retriever.json").read_text())["kind"] == "bm25"
    for option, message in (("k11=1", "did you mean k1?"), ("k1", "expected key=value")):
        assert message in fails(*command, "--option", option, code=2)
    run(*command, "--option", "k1=0.9")
    assert "(--out)" in run(*command[:2], code=2).stderr
    assert "no retriever 'redis'" in fails(*command[:2], "--to", "redis://localhost", code=2)
    assert "expected an address" in run(*command[:2], "--to", "localhost", code=2).stderr
    ask = ["ask", QUESTION, "--engine", "scripted", "--model", "none.jsonl"]
    assert "no retriever 'redis'" in fails(*ask, "--index", "redis://localhost", code=2)


def test_retrieve_prints_passages_or_writes_them(
    run: Run, fails: Fails, index: Path, tmp_path: Path
):
    place = ("--index", index, "--k", 2)
    file, out = tmp_path / "queries.txt", tmp_path / "found.run"
    file.write_text("Who wrote the play about Peter Pan?\nthe longest river in Poland\n")
    text = run("retrieve", file, *place).stdout
    assert "1: Who wrote" in text and "s-0141  Peter Pan" in text and "s-0003  Vistula" in text
    found = last_json(run("retrieve", file, *place, "--json"))
    assert [r["passages"][0]["id"] for r in found["results"]] == ["s-0141", "s-0003"]
    assert (found["queries"], found["passages"], found["failed"]) == (2, 4, 0)
    said = run("retrieve", file, *place, "--form", "trec", "--out", out).stdout
    assert said == f"4 passages for 2 queries are in {out}\n"
    assert out.read_text().splitlines()[2].startswith("2 Q0 s-0003 1 ")
    typed = CliRunner().invoke(cli, ["retrieve", "-", "--index", str(index)], input="Vistula\n")
    assert "s-0003  Vistula" in typed.stdout
    assert run("retrieve", "sample:dev", *place, "--limit", 1).stdout.startswith("dev-0001: ")
    fetched = run("retrieve", *place, "--fetch", "s-0003", "--fetch", "none").stdout
    assert fetched.startswith("s-0003  Vistula\n") and "none  no such passage" in fetched
    values = last_json(run("retrieve", *place, "--fetch", "none", "--fetch", "s-0003", "--json"))
    assert [p and p["title"] for p in values["passages"]] == [None, "Vistula"]
    run("retrieve", *place, code=2)
    run("retrieve", file, "--fetch", "s-0003", *place, code=2)
    assert "no such query file" in fails("retrieve", tmp_path / "none", *place, code=3)
    assert "begun with other settings" in fails("retrieve", file, *place, "--out", out, code=7)


def test_evaluate_retrieval_says_what_flipped(run: Run, fails: Fails, index: Path, tmp_path: Path):
    other, out = tmp_path / "other", tmp_path / "out"
    run("index", sample_path("corpus"), "--out", other, "--option", "title_weight=0")
    command = ["evaluate-retrieval", "--questions", "sample:dev", "--index", index, "--out", out]
    text = run(*command, "--against", other).stdout
    assert "all_support@5" in text and "against the other place" in text
    summary = last_json(run(*command, "--against", other, "--json"))
    gained = summary["against"]["compared"]["all_support@5"]["gained"]
    assert gained
    assert all(f"  + {id_}  " in text for id_ in gained)
    assert "all_support@5 gained" in run("show", out).stdout
    run(*command, "--trajectories", "t.jsonl", code=2)
    run(*command[:1], *command[3:], code=2)
    assert "--out" in fails(*command, code=7)


def test_an_index_is_changed_in_place(run: Run, fails: Fails, tmp_path: Path):
    index, corpus, ids = tmp_path / "index", tmp_path / "c.jsonl", tmp_path / "ids.txt"
    corpus.write_text('{"id": "x", "text": "The X-43A flew."}')
    run("index", sample_path("corpus"), "--out", index)
    assert last_json(run("index", corpus, "--add", "--out", index, "--json"))["passages"] == 299
    assert open_retriever(index).search(["X-43A"], 1)[0][0].id == "x"
    assert 'the id "x" comes twice' in fails("index", corpus, "--add", "--out", index, code=3)
    ids.write_text("\ufeffs-0001\n\nx\n")
    assert last_json(run("index", "--remove", ids, "--out", index, "--json"))["passages"] == 297
    assert 'no passage "s-0001"' in fails("index", "--remove", ids, "--out", index, code=3)
    ids.write_bytes(b"\xff")
    assert "no passage" in fails("index", "--remove", ids, "--out", index, code=3)
    for given in ([], [corpus, "--remove", ids], [corpus, "--add", "--option", "k1=1"]):
        assert "Error" in run("index", *given, "--out", index, code=2).stderr
    assert "known are" in fails(
        "index", corpus, "--out", tmp_path / "other", "--option", "language=zz", code=2
    )


def test_ask_gives_the_answer_then_the_evidence(run: Run, scripted: list[object]):
    result = run("ask", QUESTION, *scripted)
    answer, fact, _, source = result.stdout.splitlines()
    assert answer == "Great Ormond Street (unsupported)"  # no passage that was found says so
    assert fact.startswith("  - Peter Pan was written by Barrie. [1")
    assert re.fullmatch(r'  \[1\] .+ \(s-\d+\): ".*Barrie.*"', source)
    search, found, record, answered = result.stderr.splitlines()[-4:]
    assert search == "search: Who wrote the play about Peter Pan?"
    assert found.startswith("  found: ") and " | " in found
    seconds = r"\d+\.\d s"
    assert re.fullmatch(rf"  record: Peter Pan was written by Barrie\. \({seconds}\)", record)
    assert re.fullmatch(rf"answered \({seconds}; {seconds} in all\)", answered)
    assert not run("ask", QUESTION, *scripted, "-q").stderr


def test_ask_as_json(run: Run, scripted: list[object]):
    answer = last_json(run("ask", QUESTION, *scripted, "--json", "--passages", 3))
    assert answer["answer"] == "Great Ormond Street"
    assert answer["stop_reason"] == "answered"
    fact, said = answer["claims"]
    assert fact["citations"][0]["passage_id"].startswith("s-") and said["citations"] == []
    (step,) = answer["steps"]
    assert step["query"] == "Who wrote the play about Peter Pan?"
    assert len(step["passages"]) == 3
    (evidence,) = answer["evidence"]
    assert evidence["passage_ids"] == [step["passages"][0]["id"]]
    assert answer["tokens"]["prompt"] > answer["tokens"]["output"] > 0


def test_ask_by_another_method(run: Run, fails: Fails, index: Path, tmp_path: Path):
    script = tmp_path / "script.jsonl"
    script.write_text('{"contains": "Answer:", "reply": "Great Ormond Street"}\n')
    command = ["ask", QUESTION, "--index", index, "--model", script, "--engine", "scripted"]
    answer = last_json(run(*command, "--method", "direct", "--json"))
    assert (answer["answer"], answer["steps"]) == ("Great Ormond Street", [])
    rag = [*command, "--method", "rag", "--passages", 2, "--json"]
    (step,) = last_json(run(*rag))["steps"]
    assert (step["query"], len(step["passages"])) == (QUESTION, 2)
    option = "--method-option"
    assert last_json(run(*rag, option, "answer_tokens=1"))["stop_reason"] == "max_tokens"
    refused = run(*command, "--method", "direct", "--max-steps", 2, code=2).stderr
    assert "--max-steps is no setting of method direct: answer_tokens" in refused
    refused = run(*rag, option, "answer_token=1", code=2).stderr
    assert "answer_token is no setting of method rag" in refused
    assert "--method-option answer_tokens: expected key=value" in fails(
        *command, option, "answer_tokens", code=2
    )
    message = fails(*command, "--method", "direkt", code=2)
    assert "no method 'direkt'; did you mean direct?" in message


def test_ask_on_a_real_model(run: Run, index: Path, tiny_model_folder: Path):
    options = ["--index", index, "--model", tiny_model_folder, "--device", "cpu", "--json"]
    first = last_json(run("ask", QUESTION, *options, "--temperature", 1, "--seed", 1))
    again = last_json(run("ask", QUESTION, *options, "--temperature", 1, "--seed", 1))
    del first["seconds"], again["seconds"]
    assert first == again
    assert first["stop_reason"] in ("malformed", "max_tokens", "answered", "max_steps")


def test_a_damaged_model_is_used_only_where_it_is_wanted(
    run: Run, fails: Fails, index: Path, tiny_model_folder: Path, tmp_path: Path
):
    with new_folder(tmp_path / "model") as folder:
        shutil.copytree(tiny_model_folder, folder, dirs_exist_ok=True)
    (tmp_path / "model" / "generation_config.json").write_text("{}")
    command = ["ask", "Why?", "--index", index, "--model", tmp_path / "model", "--max-steps", 1]
    said = fails(*command, code=5)
    assert "generation_config.json: has 2 bytes" in said
    assert "--no-verify" in said
    run(*command, "--no-verify")
    fails(*command, code=5)


def test_evaluate_writes_answers_and_figures(run: Run, scripted: list[object], tmp_path: Path):
    out = tmp_path / "test"
    command = ["evaluate", "--questions", sample_path("test"), *scripted, "--limit", 4]
    summary = last_json(run(*command, "--out", out, "--json"))
    assert {"n", "em", "f1", "acc", "union_recall", "passages_a_search", "ci95"} <= summary.keys()
    assert summary["n"] == 4
    assert summary["em"] == 0.25  # the script always gives the first question's answer
    low, high = summary["ci95"]["em"]
    assert 0 <= low <= 0.25 <= high <= 1
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["em"] for row in rows] == [1, 0, 0, 0]
    text = run("show", out).stdout
    assert "EM %             25.0 [" in text
    assert text in run(*command, "--out", out).stdout


def test_evaluate_goes_on_with_the_same_settings_and_refuses_others(
    run: Run, fails: Fails, scripted: list[object], tmp_path: Path
):
    command = ["evaluate", "--questions", "sample:test", *scripted, "--out", tmp_path / "test"]
    first = last_json(run(*command, "--limit", 2, "--json"))
    before = (tmp_path / "test" / "trajectories.jsonl").read_bytes()
    assert last_json(run(*command, "--limit", 2, "--json")) == first  # the seconds, too
    assert (tmp_path / "test" / "trajectories.jsonl").read_bytes() == before
    message = fails(*command, "--limit", 3, code=7)
    assert "limit was 2, is now 3" in message
    assert "--out" in message
    message = fails(*command, "--limit", 2, "--max-steps", 2, code=7)
    assert "method.max_steps was 5, is now 2" in message


def test_evaluate_with_worked_examples(
    run: Run, fails: Fails, scripted: list[object], tmp_path: Path
):
    command = ["evaluate", "--questions", "sample:test", *scripted, "--limit", 1, "--json"]
    plain = last_json(run(*command, "--out", tmp_path / "plain"))
    shown = [*command, "--worked-examples", 2, "--examples-from", "sample:train"]
    examples = last_json(run(*shown, "--out", tmp_path / "examples"))
    assert examples["em"] == plain["em"] == 1
    assert examples["prompt_tokens"] > 2 * plain["prompt_tokens"]
    assert "go together" in run(*command, "--out", tmp_path, "--worked-examples", 2, code=2).stderr
    message = fails(*shown, "--out", tmp_path / "other", "--context", "transcript", code=2)
    assert "--context notes" in message


@pytest.mark.parametrize("command", ["evaluate", "rollout"])
def test_a_mistake_that_leaves_no_result_does_not_bind(
    run: Run, fails: Fails, scripted: list[object], tmp_path: Path, command: str
):
    asked = [command, "--questions", "sample:test", "--limit", 1, "--out", tmp_path / "out"]
    wrong = list(scripted)
    wrong[1] = tmp_path / "no-index"
    assert "no-index" in fails(*asked, *wrong, code=4)
    wrong = list(scripted)
    wrong[3] = tmp_path / "no-script"
    assert "no-script" in fails(*asked, *wrong, code=3)
    run(*asked, *scripted)
    wrong = list(scripted)
    wrong[1] = tmp_path / "small-index"
    (tmp_path / "notes.txt").write_text("Peter Pan was written by J. M. Barrie.")
    run("index", tmp_path / "notes.txt", "--out", wrong[1])
    message = fails(*asked, *wrong, code=7)
    assert "begun with other settings: index was 'sha256:" in message


def test_the_engine_s_own_settings(run: Run, fails: Fails, index: Path, tiny_model_folder: Path):
    command = ["ask", "Why?", "--index", index, "--model", tiny_model_folder, "--device", "cpu"]
    run(*command, "--token-budget", 64, "--engine-option", "cache_tokens=256", "--max-steps", 1)
    message = fails(*command, "--engine-option", "cash_tokens=256", code=2)
    assert "model.engine_options.cash_tokens" in message
    assert "cache_tokens" in message
    message = fails(*command, "--engine-option", "cache_tokens", code=2)
    assert "--engine-option cache_tokens: expected key=value, such as cache_tokens=65536" in message


def test_rollout_weighs_where_answers_are_known(
    run: Run, fails: Fails, scripted: list[object], tmp_path: Path
):
    questions = tmp_path / "questions.jsonl"
    known = {"id": "a", "question": QUESTION, "answers": ["Great Ormond Street"]}
    questions.write_text(f"{json.dumps(known)}\n{json.dumps({'id': 'b', 'question': QUESTION})}\n")
    out = tmp_path / "trajectories.jsonl"
    command = ["rollout", "--questions", questions, *scripted, "--samples", 2, "--out", out]
    result = run(*command, "--json")
    assert "1 of 2 questions have no answer: their trajectories get no weight" in result.stderr
    figures = last_json(result)
    assert figures["trajectories"] == 4
    assert figures["weighed"] == 2
    assert figures["em"] == figures["weighted_em"] == 1
    before = out.read_bytes()
    lines = [json.loads(line) for line in before.splitlines()]
    assert [line.get("weight") for line in lines] == [0.5, 0.5, None, None]
    run(*command)
    assert out.read_bytes() == before
    assert "samples was 2, is now 3" in fails(*command, "--samples", 3, code=7)
    text = run("show", out, "--id", "a#1").stdout
    assert "a#1" in text
    assert "(right)" in text
    assert "weight: 0.500" in text
    assert "weight" not in run("show", out, "--id", "b").stdout
    traces = last_json(run("show", out, "--json", "--limit", 3))["trajectories"]
    assert [trace["id"] for trace in traces] == ["a#0", "a#1", "b#0"]


def test_train_then_ask_the_run_as_it_was_trained(
    run: Run, fails: Fails, index: Path, tiny_model_folder: Path, tmp_path: Path
):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY_RECIPE)
    run_folder = tmp_path / "run"
    command = ["train", recipe, "--model", tiny_model_folder, "--out", run_folder]
    result = run(*command, "--set", "method.record_tokens=7", "--json")
    assert last_json(result)["stage"] == "warm_up"
    assert last_json(result)["run"] == str(run_folder)
    table = run("show", run_folder).stdout
    assert table.splitlines()[0] == "run: best: warm_up"
    assert "warm_up" in table.splitlines()[-1]
    assert last_json(run("show", run_folder, "--json"))["finished"] is True
    message = fails(*command, code=7)
    assert "method.record_tokens was 7, is now 8" in message
    options = ["--index", index, "--model", run_folder, "--limit", 1, "--system-prompt", ""]
    out = tmp_path / "test"
    run("evaluate", "--questions", "sample:test", *options, "--out", out, "--passages", 1)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["model"]["system_prompt"] == ""
    method = settings["method"]
    assert (method["name"], method["max_steps"], method["record_tokens"]) == ("searcher", 2, 7)
    assert method["passages"] == 1


def test_a_recipe_that_could_not_begin_can_be_mended(
    run: Run, fails: Fails, tiny_model_folder: Path, tmp_path: Path
):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY_RECIPE)
    command = ["train", recipe, "--out", tmp_path / "run"]
    assert "no model 'no-model'" in fails(*command, "--model", "no-model", code=5)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("{")
    command += ["--model", tiny_model_folder]
    broken = run(*command, "--set", f'data.corpus=["{corpus}"]', code=3)
    assert "corpus.jsonl:1: not JSON" in broken.stderr
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "q", "question": "Who?", "answers": ["Barrie"]}\n')
    lacking = [*command, "--set", f'data.train="{questions}"']
    failed = run(*lacking, code=10)  # its index is built by now
    assert "set warm_up.examples=0 to start without" in failed.stderr
    mended = run(*lacking, "--set", "warm_up.examples=0", "--json")
    assert "learned nothing yet, so it begins anew: recipe.warm_up.examples was 2" in mended.stderr
    assert last_json(mended)["stage"] == "start"
    command[3] = tmp_path / "other"
    assert last_json(run(*command, "--json"))["stage"] == "warm_up"


def test_score_counts_missing_predictions(run: Run, tmp_path: Path):
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text('{"id": "test-0001", "prediction": "great ormond street hospital"}\n')
    command = ["score", "--questions", "sample:test", "--predictions", predictions]
    figures = last_json(run(*command, "--limit", 2, "--json"))
    assert figures["n"] == 2
    assert figures["em"] == figures["f1"] == figures["acc"] == 0.5
    assert figures["missing"] == 1
    assert set(figures["ci95"]) == {"em", "f1", "acc"}
    assert "EM %             50.0 [" in run(*command, "--limit", 2).stdout


def test_score_against_another_system(run: Run, tmp_path: Path):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    ours.write_text('{"id": "test-0001", "prediction": "great ormond street hospital"}\n')
    theirs.write_text('{"id": "test-0001", "prediction": "nowhere"}\n')
    command = ["score", "--questions", "sample:test", "--predictions", ours, "--limit", 2]
    figures = last_json(run(*command, "--against", theirs, "--json"))
    assert figures["against"]["em"]["difference"] == 0.5
    assert (figures["against"]["em"]["better"], figures["against"]["em"]["worse"]) == (1, 0)
    shown = run(*command, "--against", theirs).stdout
    assert "em   +50.0 [-39.8, 89.8]  1.000       1      0" in shown


def test_data_convert(run: Run, tmp_path: Path):
    source = tmp_path / "NQ-open.dev.jsonl"
    source.write_text('{"question": "who wrote dune", "answer": ["Frank Herbert"]}\n')
    command = ["data", "convert", "--format", "nq-open", source, "--out", tmp_path / "nq"]
    summary = last_json(run(*command, "--json"))
    assert summary["questions"] == {"NQ-open.dev.jsonl": 1}
    assert "1 questions" in run(*command).stdout


def test_doctor(run: Run, monkeypatch: pytest.MonkeyPatch):
    found = run("doctor").stdout.splitlines()
    assert found[0].startswith("ok    python: 3.")
    monkeypatch.setenv("EXSEARCH_CACHE", "/dev/null/cache")
    report = last_json(run("doctor", "--json", code=1))
    assert report["ok"] is False
    (failed,) = [check for check in report["checks"] if check["status"] == "fail"]
    assert failed["name"] == "model cache"
    assert "EXSEARCH_CACHE" in failed["remedy"]


def test_doctor_knows_the_versions_that_are_tested():
    from exsearch.doctor import EMBEDDED_PACKAGE, TESTED, TESTED_LOCAL

    pins = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    for name, version in {**TESTED, **TESTED_LOCAL}.items():
        assert f"{name.lower()}=={version}" in pins
    assert EMBEDDED_PACKAGE in pins


@pytest.mark.parametrize("command", ["evaluate", "rollout"])
def test_a_setting_that_an_older_version_had_not_makes_no_difference(
    run: Run, fails: Fails, scripted: list[object], tmp_path: Path, command: str
):
    out = tmp_path / "out"
    asked = [command, "--questions", "sample:test", "--limit", 1, "--out", out, *scripted]
    run(*asked)
    (file,) = (out if out.is_dir() else tmp_path).glob("*settings.json")
    settings = json.loads(file.read_text())
    del settings["method"]["passage_words"]
    settings.get("sampling", {}).pop("max_error_share", None)
    file.write_text(json.dumps(settings))
    run(*asked)
    assert "method.max_steps was 5, is now 2" in fails(*asked, "--max-steps", 2, code=7)
