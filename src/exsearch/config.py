"""A recipe file is TOML that fills a tree of dataclasses; what can't be used is said in one line.

The dataclasses live beside what they configure. This module reads, overrides, checks and writes
them; it knows none of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from exsearch.errors import ConfigError

Config = TypeVar("Config")


def renamed(was: str, **options: Any) -> Any:
    """A dataclass field that has had another name, under which it is still read.

    Args:
        was: The other name.
        options: More arguments of `dataclasses.field`.
    """
    return dataclasses.field(metadata={"was": was}, **options)


def load_config(config_type: type[Config], file: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file as a dataclass.

    Args:
        config_type: The dataclass that the file's keys are fields of.
        file: The TOML file.
        overrides: Values that replace the file's, each as `key.sub=value`.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (with the nearest one), a wrong value.
    """
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: a folder, expected a file (.toml)") from None
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # ValueError: also 4,300 digits
        raise ConfigError(f"{file}: not TOML: {error}") from None
    for override in [overrides] if isinstance(overrides, str) else overrides:
        set_value(values, override)
    return parse_config(config_type, values, place=str(file))


def parse_config(
    config_type: type[Config], values: Mapping[str, Any], *, place: str = "", prefix: str = ""
) -> Config:
    """A dataclass from plain values.

    Args:
        config_type: The dataclass to fill.
        values: The values of its fields by name; sections are mappings.
        place: The file that the values come from, for messages; empty where it is none.
        prefix: The section that the values stand in, with its dot, such as `method.`, for messages.

    Raises:
        ConfigError: an unknown key or an unusable value; the message names file, section and key.
    """
    from pydantic import TypeAdapter, ValidationError

    place = place and f"{place}: "
    current = _current(config_type, values, place, prefix)
    try:
        return TypeAdapter(config_type).validate_python(current)
    except ConfigError as error:  # raised by a part that reads its own values, such as a method
        raise ConfigError(f"{place}{error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{prefix}{'.'.join(map(str, first['loc']))}".rstrip(".")
        # A check of our own says the value itself; its input would be the whole section.
        own = first["type"] == "value_error"
        got = "" if own or first["type"] == "missing" else f", got {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place}{key}{': ' if key else ''}{message}{got}") from None


def user_path(name: str | Path) -> Path:
    """The path of a name in which `~` stands for a home folder.

    Raises:
        ConfigError: no user has that name.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name}: no such user; write ./{name} for a folder here") from None


def to_plain(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; infinities and NaN become the texts `inf`, `-inf`, `nan`."""
    from pydantic import TypeAdapter

    return json.loads(
        json.dumps(TypeAdapter(type(config)).dump_python(config), default=str),
        parse_constant=lambda text: {"Infinity": "inf", "-Infinity": "-inf"}.get(text, "nan"),
    )


def check_least(config: Any, **least: float) -> None:
    """Make sure that settings are not below what makes sense.

    Args:
        config: The object whose settings are checked.
        least: The smallest allowed value for each setting, by the setting's name.

    Raises:
        ValueError: a setting is below; the message names it.
    """
    for name, value in least.items():
        if not getattr(config, name) >= value:
            raise ValueError(f"{name} is {getattr(config, name)}, expected {value} or more")


def check_positive(config: Any, *names: str) -> None:
    """Make sure that settings are above 0.

    Args:
        config: The object whose settings are checked.
        names: The names of the settings.

    Raises:
        ValueError: a setting is 0, below, or no number; the message names it.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}, expected more than 0")


def check_share(config: Any, *names: str) -> None:
    """Make sure that settings are shares, from 0 to 1.

    Args:
        config: The object whose settings are checked.
        names: The names of the settings.

    Raises:
        ValueError: a setting is no share; the message names it.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected a share from 0 to 1")


def first_difference(old: Any, new: Any, key: str = "") -> str | None:
    """The first key whose value differs between two plain configs, as a text; None if equal.

    Args:
        old: The values of before.
        new: The values of now.
        key: The key under which both stand, for the text.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            place = f"{key}.{name}" if key else name
            found = first_difference(old.get(name), new.get(name), place)
            if found:
                return found
        return None
    return None if old == new else f"{key} was {old!r}, is now {new!r}"


def set_value(
    values: dict[str, Any],
    override: str,
    option: str = "--set",
    example: str = "m_step.learning_rate=1e-5",
) -> None:
    """Put what `key.sub=value` says into plain values.

    Args:
        values: The plain values, which are changed in place.
        override: The text `key.sub=value`; the value is read as TOML, or else taken as text.
        option: The option of the command line that it came from, for messages.
        example: A right value for this option, for messages.

    Raises:
        ConfigError: the text is not of this form, or the key stands below a value.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{option} {override}: expected key=value, such as {example}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # plain text needs no quotes on a command line
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{option} {override}: {part} is a value, not a section")
    values[parts[-1]] = value


def _current(config_type: Any, values: Any, place: str, prefix: str) -> Any:
    """The values with old names replaced by today's; an unknown name is a ConfigError."""
    origin, inner_types = get_origin(config_type), get_args(config_type)
    if origin is list and isinstance(values, list):
        each = enumerate(values, start=1)
        return [_current(inner_types[0], v, place, f"{prefix}{n}.") for n, v in each]
    if origin is dict and isinstance(values, dict):
        return {k: _current(inner_types[1], v, place, f"{prefix}{k}.") for k, v in values.items()}
    if not (dataclasses.is_dataclass(config_type) and isinstance(values, Mapping)):
        return values
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    olds = {name: f.metadata["was"] for name, f in fields.items() if "was" in f.metadata}
    today: dict[str, str] = {was: name for name, was in olds.items()}
    hints = get_type_hints(config_type)
    current: dict[str, Any] = {}
    for given, value in values.items():
        key = today.get(given, str(given))
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(fields)}"
            raise ConfigError(f"{place}unknown key {prefix}{key}; {hint}")
        if key in current:
            old, new = f"{prefix}{olds[key]}", f"{prefix}{key}"
            raise ConfigError(f"{place}{old} is now called {new}: give only one")
        for inner in _alternatives(hints[key]):
            value = _current(inner, value, place, f"{prefix}{key}.")
        current[key] = value
    return current


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
