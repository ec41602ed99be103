"""The reference is a page made of docstrings, settings and commands: docs/reference.md.

    python -m tools.reference

Settings and commands are asked for their defaults; what stands of them on the page stands at the
thing itself. A test fails where the page is not what this writes.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import griffe
from tools.docstrings import (
    ROOT,
    SOURCE,
    Row,
    anchor,
    errors,
    find,
    first_paragraph,
    one_line,
    python_names,
    sections,
    table,
)

import exsearch
from exsearch import plugins
from exsearch.cli import cli
from exsearch.jobs.experiment import Cell, Experiment, Part
from exsearch.methods import METHODS
from exsearch.methods.base import Method
from exsearch.retrievers import RETRIEVERS
from exsearch.training.recipe import Recipe

PAGE = ROOT / "docs" / "reference.md"
INTRO = """# Reference

Every public name, setting and command, from the code itself. `make reference` writes this page:
change the docstring, not the page. What files hold is in [file-formats.md](file-formats.md), what
engines and retrievers take beside it in [engines.md](engines.md) and [retrieval.md](retrieval.md).
"""
PYTHON = "Names of `exsearch`, loaded on first use: `import exsearch` needs no torch."
ERRORS = """All are an `ExSearchError`; what messages mean is in
[troubleshooting.md](troubleshooting.md)."""
SETTINGS = """A recipe is TOML, and a section is a table of it. A key that is left out has its
default; *none* is no value, which only leaving the key out gives. `--set KEY=VALUE` replaces a key
for one run, such as `--set m_step.learning_rate=1e-5`."""
METHOD = "Keys of `[method]` beside `name`, and of `--method-option`; without a name: `searcher`."
INDEXES = """Keys of `retriever.options` and of `exsearch index --option`. The kinds that are not
here are made by `exsearch combine`, or are addresses: [retrieval.md](retrieval.md)."""
WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
# Public names that are settings, with the headings under which these stand.
_SECTIONS = {
    "Recipe": "Recipe",
    "ModelConfig": "[model]",
    "EStepConfig": "[e_step]",
    "MStepConfig": "[m_step]",
}


def page() -> str:
    """The whole page."""
    parts = {
        "Python": [PYTHON, *python_names(_SECTIONS)],
        "Errors": [ERRORS, _errors()],
        "Settings of a recipe": [SETTINGS, *_recipe()],
        "Settings of methods": [*_methods()],
        "Settings of indexes": [*_kinds()],
        "Settings of an experiment": [*_experiment()],
        "Commands": [*_commands()],
    }
    body = "\n\n".join(f"## {name}\n\n" + "\n\n".join(texts) for name, texts in parts.items())
    return f"{INTRO}\n{_contents(body)}\n\n{body}\n"


def _contents(body: str) -> str:
    """A line for each part of the page, with a link to each of its headings."""
    lines: list[str] = []
    for part in re.split(r"^## ", body, flags=re.MULTILINE)[1:]:
        name, *heads = [part.split("\n")[0], *re.findall(r"^### (.+)$", part, re.MULTILINE)]
        links = " · ".join(f"[{h.replace('exsearch.', '')}](#{anchor(h)})" for h in heads)
        lines.append(f"- [{name}](#{anchor(name)})" + (f": {links}" if links else ""))
    found = re.findall(r"^##+ (.+)$", body, re.MULTILINE)
    twice = {a for a in map(anchor, found) if [anchor(f) for f in found].count(a) > 1}
    assert not twice, f"two headings have the link {twice}"
    return "\n".join(lines)


def _errors() -> str:
    """The errors with their exit codes."""
    rows = [
        (f"`{name}`", str(getattr(exsearch, name).exit_code), first_paragraph(of))
        for name, of in errors().items()
    ]
    return table(("name", "exit code", ""), rows)


def _recipe() -> Iterator[str]:
    yield "### Recipe"
    yield from _settings(Recipe)
    for field in dataclasses.fields(Recipe):
        hint = get_type_hints(Recipe)[field.name]
        for section in filter(dataclasses.is_dataclass, (hint, *get_args(hint))):
            yield f"### [{field.name}]"
            yield from _settings(section)


def _methods() -> Iterator[str]:
    yield METHOD
    for name in METHODS:
        yield f"### method {name}"
        yield from _settings(plugins.find(METHODS, name, "method"))


def _experiment() -> Iterator[str]:
    heads: dict[str, Any] = {"Experiment": Experiment, "parts": Part, "cells": Cell}
    for heading, of in heads.items():
        yield f"### {heading}"
        yield from _settings(of)


def _settings(of: Any) -> Iterator[str]:
    """A dataclass of settings: what it is, and a row for each key."""
    yield one_line((inspect.getdoc(of) or "").split("\n\n")[0])
    texts, hints = descriptions(of), get_type_hints(of)
    rows: list[Row] = []
    for field in dataclasses.fields(of):
        was = field.metadata.get("was")
        text = texts[field.name] + (f" Once called `{was}`, which is still read." if was else "")
        rows.append(
            (f"`{field.name}`", _type(hints[field.name], field.name), _default(field), text)
        )
    yield table(("key", "type", "default", ""), rows) if rows else "It has no settings."


def descriptions(of: Any) -> dict[str, str]:
    """What the docstrings of a dataclass, and of those it inherits from, say of its attributes."""
    found: dict[str, str] = {}
    for each in reversed(of.__mro__):
        if dataclasses.is_dataclass(each):
            for section in griffe.Docstring(inspect.getdoc(each) or "").parse("google"):
                if section.kind is griffe.DocstringSectionKind.attributes:
                    found |= {a.name: one_line(a.description) for a in section.value}
    return found


def _type(hint: Any, name: str) -> str:
    """A type in the words of a recipe."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return "value"
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if h is types.NoneType else _type(h, name) for h in inner)
    if origin in (list, tuple):
        return f"list of {_type(inner[0], name)}"
    if origin is dict:
        values = _type(inner[1], name)
        return "table" if values == "value" else f"table of {values}"
    if hint is Method:
        return "section [[method]](#settings-of-methods)"
    if dataclasses.is_dataclass(hint):
        return f"section [[{name}]](#{anchor(name)})"
    return WORDS[hint.__name__]


def _default(field: dataclasses.Field[Any]) -> str:
    """A default as TOML."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "none"
    if dataclasses.is_dataclass(value) or isinstance(value, Method):
        return "its own"
    if isinstance(value, float):
        return f"`{value}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _kinds() -> Iterator[str]:
    yield INDEXES
    for kind, place in RETRIEVERS.items():
        module, name = place.split(":")
        build = find(module, f"{name}.build")
        if isinstance(build, griffe.Attribute):  # `build = staticmethod(NAME)`
            build = find(module, str(build.value).removeprefix("staticmethod(").removesuffix(")"))
        assert isinstance(build, griffe.Function)
        texts = {a.name: a.description for a in sections(build).get("parameters", [])}
        rows: list[Row] = [
            (f"`{p.name}`", WORDS[str(p.annotation)], _value(module, p), one_line(texts[p.name]))
            for p in build.parameters
            if p.kind is griffe.ParameterKind.keyword_only and p.name != "progress"
        ]
        if rows:
            yield f"### index kind {kind}"
            yield table(("key", "type", "default", ""), rows)


def _value(module: str, parameter: griffe.Parameter) -> str:
    """A default as TOML; in the source it may be the name of a constant."""
    text = str(parameter.default)
    value = getattr(SOURCE[module.removeprefix("exsearch.")].members.get(text), "value", text)
    return f"`{json.dumps(ast.literal_eval(str(value)))}`"


def commands(
    group: click.Group = cli, name: str = "exsearch"
) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with all words of its name."""
    for each in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), each)
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {each}")
        elif command is not None:
            yield f"{name} {each}", command


def _options(name: str, command: click.Command) -> list[Row]:
    """A command's options with their help, as `--help` shows them."""
    context = click.Context(command, info_name=name, show_default=True)
    options = (p for p in command.params if isinstance(p, click.Option))
    records = (option.get_help_record(context) for option in options)
    return [(f"`{names}`", one_line(text)) for names, text in filter(None, records)]


def _commands() -> Iterator[str]:
    every = {name: _options(name, command) for name, command in commands()}
    first, *others = every.values()
    shared = [row for row in first if all(row in rows for rows in others)]
    yield "What all of them take, beside `-h`, `--help`:"
    yield table(("option", ""), shared)
    for name, command in commands():
        yield f"### {name}"
        usage = command.collect_usage_pieces(click.Context(command))
        yield f"    {name} {' '.join(usage)}"
        for paragraph in (command.help or "").split("\n\n"):
            yield one_line(paragraph.replace("\b", ""))
        if rows := [row for row in every[name] if row not in shared]:
            yield table(("option", ""), rows)
        examples = (command.epilog or "").partition("Examples:\n")[2]
        if examples:
            yield "\n".join(f"  {line}" for line in examples.rstrip().splitlines())


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
