"""docs/reference.md is what the code says, and leaves nothing out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import click
import pytest
from tools.reference import PAGE, commands, page

import exsearch
from exsearch import plugins
from exsearch.cli import cli
from exsearch.jobs.experiment import Experiment
from exsearch.methods import METHODS
from exsearch.training.recipe import Recipe

TEXT = PAGE.read_text(encoding="utf-8")


def part(heading: str) -> str:
    """What stands under a heading of the page."""
    found = re.search(
        rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE
    )
    assert found, f"docs/reference.md has no heading {heading!r}"
    return found[1]


def settings(of: Any, heading: str) -> Iterator[tuple[str, str, dataclasses.Field[Any]]]:
    """Every key of a tree of settings, with the heading that it stands under."""
    for field in dataclasses.fields(of):
        yield of.__name__, heading, field
        hint = get_type_hints(of)[field.name]
        for inner in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(inner):
                own = f"[{field.name}]" if of is Recipe else field.name
                yield from settings(inner, own)


def keys() -> list[Any]:
    trees = [*settings(Recipe, "Recipe"), *settings(Experiment, "Experiment")]
    for name in METHODS:
        method = plugins.find(METHODS, name, "method")
        trees += settings(method, f"method {name}")
    return [pytest.param(h, field, id=f"{of}.{field.name}") for of, h, field in trees]


def test_the_page_is_what_the_code_says() -> None:
    assert page() == TEXT, "docs/reference.md is stale: run `make reference`"


@pytest.mark.parametrize("name", exsearch.__all__)
def test_every_public_name_is_there_with_a_description(name: str) -> None:
    found = getattr(exsearch, name)
    if isinstance(found, type) and issubclass(found, exsearch.ExSearchError):
        assert re.search(rf"^\| `{name}` \| {found.exit_code} \| \w.+ \|$", TEXT, re.MULTILINE)
    else:
        assert part(f"`exsearch.{name}`").strip()


@pytest.mark.parametrize(("heading", "field"), keys())
def test_every_setting_is_there_with_a_description(
    heading: str, field: dataclasses.Field[Any]
) -> None:
    row = re.search(rf"^\| `{field.name}` \| .+ \| .+ \| (\S.*) \|$", part(heading), re.MULTILINE)
    assert row, f"{heading}: {field.name}"
    if "was" in field.metadata:
        assert f"`{field.metadata['was']}`" in row[1]


def leaves(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


@pytest.mark.parametrize(("name", "command"), [*leaves(cli, "exsearch")])
def test_every_command_is_there_with_its_options_and_examples(
    name: str, command: click.Command
) -> None:
    shared = TEXT.split("\n## Commands\n")[1].split("\n### ")[0]
    text = part(name)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"^\| `[^`]*{option}\b", text + shared, re.MULTILINE), option
    assert text.count(f"\n    {name}") >= (2 if command.epilog else 1)


def test_it_names_each_command_once() -> None:
    assert [name for name, _ in commands()] == [name for name, _ in leaves(cli, "exsearch")]


def test_it_says_nothing_of_the_machine() -> None:
    assert not re.search(r"/home/|/root|/work|/tmp|0x[0-9a-f]{6}|<function|<object", TEXT)
