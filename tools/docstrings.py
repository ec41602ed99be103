"""The Python part of the reference: every public name, read from the source without running it.

griffe reads signatures and docstrings. Settings and commands are `reference`'s.
"""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100  # characters, from which on a signature has a line for each parameter
Row = tuple[str, ...]


def table(heads: Row, rows: Iterable[Row]) -> str:
    """A table of Markdown."""
    cells = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in cells)


def anchor(heading: str) -> str:
    """What a link to a heading says: small letters, blanks as hyphens, no other signs."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def one_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def _source() -> griffe.Module:
    logging.getLogger("griffe").setLevel(logging.CRITICAL)  # what it misses is no fault of ours
    loaded = griffe.load(
        "exsearch",
        search_paths=[str(ROOT / "src")],
        docstring_parser="google",
        docstring_options={"returns_multiple_items": False, "returns_named_value": False},
    )
    assert isinstance(loaded, griffe.Module)
    return loaded


SOURCE = _source()


def find(module: str, name: str) -> griffe.Object:
    """What a module of the package calls so."""
    return _itself(SOURCE[f"{module}.{name}".removeprefix("exsearch.")])


def _itself(member: griffe.Object | griffe.Alias) -> griffe.Object:
    return member.final_target if isinstance(member, griffe.Alias) else member


def public() -> dict[str, griffe.Object]:
    """The public names with what they name, as the stub says."""
    stub = ast.parse((ROOT / "src/exsearch/__init__.pyi").read_text(encoding="utf-8"))
    return {
        alias.name: find(str(node.module), alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def errors() -> dict[str, griffe.Object]:
    """The public names that are errors."""
    return {name: of for name, of in public().items() if of.module.path == "exsearch.errors"}


def sections(of: griffe.Object) -> dict[str, Any]:
    """A docstring's sections by kind: the text before them, and lists of what is described."""
    found: dict[str, Any] = {}
    for section in of.docstring.parsed if of.docstring else []:
        found.setdefault(section.kind.value, section.value)
    return found


def first_paragraph(of: griffe.Object) -> str:
    """A docstring's first paragraph, on one line."""
    return one_line(sections(of).get("text", "").split("\n\n")[0])


def python_names(elsewhere: Mapping[str, str]) -> Iterator[str]:
    """The paragraphs of all public names but errors.

    Args:
        elsewhere: The names whose fields stand under another heading, with that heading.
    """
    for name, of in public().items():
        if name in errors():
            continue
        yield f"### `exsearch.{name}`"
        if name in elsewhere:
            link = f"[{elsewhere[name]}](#{anchor(elsewhere[name])})"
            yield f"{first_paragraph(of)} Its fields are the keys of {link}."
        elif isinstance(of, griffe.Function):
            yield _signature(name, of)
            yield from _described(of)
        elif isinstance(of, griffe.Class):
            yield from _class(name, of)
        elif isinstance(of, griffe.Attribute):
            yield f"    {name} = {of.value}"
    yield "### `exsearch.__version__`"
    yield "The version of the package, as a text."


def _signature(name: str, of: griffe.Function) -> str:
    """A function as a block of code."""
    given = [p for p in of.parameters if p.name not in ("self", "cls")]
    parts = [_parameter(p) for p in given]
    by_name = [p.kind is griffe.ParameterKind.keyword_only for p in given]
    if True in by_name and not any(p.startswith("*") and p[1] != "*" for p in parts):
        parts.insert(by_name.index(True), "*")
    returns = f" -> {of.returns}" if of.returns is not None and of.name != "__init__" else ""
    name = f"async {name}" if "async" in of.labels else name
    short = f"    {name}({', '.join(parts)}){returns}"
    if len(short) <= WIDTH:
        return short
    return f"    {name}(\n" + "".join(f"        {part},\n" for part in parts) + f"    ){returns}"


def _parameter(parameter: griffe.Parameter) -> str:
    stars = {
        griffe.ParameterKind.var_positional: "*",
        griffe.ParameterKind.var_keyword: "**",
    }.get(parameter.kind or griffe.ParameterKind.positional_only, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not None:
        text += f": {parameter.annotation}"
    return text if stars or parameter.default is None else f"{text} = {parameter.default}"


def _described(of: griffe.Object) -> Iterator[str]:
    """A docstring's first paragraph, then parameters, what is returned and what is raised."""
    if text := first_paragraph(of):
        yield text
    parts = sections(of)
    if given := parts.get("parameters"):
        yield table(("argument", ""), [(f"`{a.name}`", one_line(a.description)) for a in given])
    if given := parts.get("returns"):
        yield "*Returns:* " + " ".join(one_line(value.description) for value in given)
    if given := parts.get("raises"):
        each = [f"`{e.annotation}`: {one_line(e.description).removesuffix('.')}." for e in given]
        yield "*Raises:* " + " ".join(each)


def _class(name: str, of: griffe.Class) -> Iterator[str]:
    """A class: how it is made, its attributes, then its methods, inherited ones too."""
    members = {n: _itself(member) for n, member in of.all_members.items()}
    start = members.get("__init__")
    if isinstance(start, griffe.Function) and "dataclass" not in of.labels:
        yield _signature(name, start)
    yield from _described(of)
    if any(str(base) == "StrEnum" for base in of.bases):
        values = [ast.literal_eval(str(m.value)) for m in of.attributes.values() if m.value]
        yield "*Values:* " + ", ".join(f"`{json.dumps(value)}`" for value in values)
    described = sections(of).get("attributes", [])
    rows = [(f"`{a.name}`", _type(members[a.name]), one_line(a.description)) for a in described]
    known = {a.name for a in described}
    own = {
        n: member
        for n, member in members.items()
        if not n.startswith("_") and n not in known and member.path.startswith("exsearch.")
    }
    rows += [
        (f"`{n}`", _type(member), first_paragraph(member))
        for n, member in own.items()
        if "property" in member.labels
    ]
    if rows:
        yield table(("attribute", "type", ""), rows)
    for member_name, member in own.items():
        if isinstance(member, griffe.Function):
            yield _signature(f"{name}.{member_name}", member)
            yield from _described(member)


def _type(member: griffe.Object) -> str:
    """The type of an attribute, with its default where it has one."""
    assert isinstance(member, griffe.Attribute), member.path
    text, value = f"`{member.annotation}`", str(member.value)
    if member.value is None:
        return text
    default = re.search(r"\bdefault(?:_factory)?=([^,)]+)", value)
    return f"{text} = `{default[1] if default else value}`"
