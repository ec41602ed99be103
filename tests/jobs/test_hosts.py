"""What a recipe says stays in its place: its folder below `runs/`, its hosts only when named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.config import parse_config
from exsearch.errors import ConfigError, DataError
from exsearch.jobs.train import train
from exsearch.training.recipe import Recipe

STRANGERS = """
name = "r"
[data]
train = "none.jsonl"
[warm_up]
examples = 2
source = "teacher"
[teacher]
base_url = "https://Stranger.example/v1"
model = "wise"
"""
OTHER = 'name = "r"\n[data]\ntrain = "none.jsonl"\n[retriever]\nindex = "http://stranger.example"\n'
SERVER = OTHER.replace("http://stranger.example", "postgresql://me@stranger.example/db?table=t")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../x", "/tmp/x", "a\0b"])
def test_a_run_stays_below_runs(name: str) -> None:
    with pytest.raises(ConfigError, match="below runs/"):
        parse_config(Recipe, {"name": name})


@pytest.mark.parametrize("name", ["mine", "a/b", "..a", "é", "~"])
def test_any_other_name_will_do(name: str) -> None:
    assert parse_config(Recipe, {"name": name}).name == name


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., None]:
    """Begins a run; a recipe that passes ends at its questions, which are not there."""

    def run(text: str = STRANGERS, *overrides: str, **options: object) -> None:
        recipe = tmp_path / "r.toml"
        recipe.write_text(text)
        train(recipe, overrides=overrides, out=tmp_path / "run", **options)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("text", [STRANGERS, OTHER, SERVER])
def test_a_recipe_asks_no_host_of_its_own(begin: Callable[..., None], text: str) -> None:
    with pytest.raises(ConfigError, match=r"sends questions to stranger\.example .*--allow-host"):
        begin(text)
    with pytest.raises(ConfigError, match="stranger"):
        begin(text, hosts=("example", "other.example"))


@pytest.mark.parametrize("text", [STRANGERS, OTHER, SERVER])
def test_a_host_may_be_named(begin: Callable[..., None], text: str) -> None:
    for options in ({"hosts": ("STRANGER.example",)}, {"confirm": lambda question: True}):
        with pytest.raises(DataError, match=r"none\.jsonl"):
            begin(text, **options)


def test_an_address_that_the_user_gives_is_named_by_that(begin: Callable[..., None]) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl"):
        begin(STRANGERS, "teacher.base_url=http://mine.example/v1")
    with pytest.raises(ConfigError, match="stranger"):
        begin(STRANGERS, "teacher.model=http://mine.example/v1")


def test_what_is_not_asked_needs_no_name(begin: Callable[..., None]) -> None:
    for overrides in (("warm_up.source=decomposition",), ("teacher.engine=scripted",)):
        with pytest.raises(DataError, match=r"none\.jsonl"):
            begin(STRANGERS, *overrides)


def test_the_question_names_host_and_key(begin: Callable[..., None]) -> None:
    asked: list[str] = []
    with pytest.raises(ConfigError):
        begin(STRANGERS, confirm=lambda question: bool(asked.append(question)))
    (question,) = asked
    assert "stranger.example (teacher.base_url)" in question
    assert "OPENAI_API_KEY" in question
    with pytest.raises(ConfigError, match=r"stranger\.example .*, and the key in PGPASSWORD where"):
        begin(SERVER)


def test_a_server_on_this_machine_needs_no_name(begin: Callable[..., None]) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl"):
        begin(SERVER.replace("me@stranger.example/db?", "/db?host=/tmp&"))


def test_the_command_takes_hosts_by_option_or_variable(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(STRANGERS)
    command = ["train", str(recipe), "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(cli, command, input="y\n").exit_code == 2  # no terminal to ask
    assert CliRunner().invoke(cli, [*command, "--allow-host", "stranger.example"]).exit_code == 3
    named = {"EXSEARCH_ALLOW_HOST": "one.example stranger.example"}
    assert CliRunner().invoke(cli, command, env=named).exit_code == 3
