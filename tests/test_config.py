"""A recipe is checked key by key, and what is wrong is said in one line with its place."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal

import pytest

from exsearch.config import first_difference, load_config, parse_config, renamed, to_plain
from exsearch.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Inner:
    learning_rate: float = 1e-4
    epochs: int = 1
    mode: Literal["full", "lora"] = "full"

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}, expected 0 or more")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    m_step: Inner = dataclasses.field(default_factory=Inner)
    warm_up: Inner | None = None
    corpus: list[str] = dataclasses.field(default_factory=lambda: ["sample"])
    floor: float = -math.inf
    free: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: bool = False


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('name = "a"\n[m_step]\nepochs = 2\n')

    def load(*overrides, text=None):
        if text is not None:
            file.write_text(text)
        return load_config(Outer, file, overrides)

    return load


def test_a_recipe_fills_its_tree(recipe):
    assert recipe() == Outer("a", Inner(epochs=2))
    assert recipe(text='name = "a"\nfloor = -inf\n[warm_up]') == Outer("a", warm_up=Inner())
    assert recipe(text='name = "a"\n[free]\nany = {thing = 1}').free == {"any": {"thing": 1}}


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("m_step.learning_rate=1e-5", "m_step", Inner(1e-5, epochs=2)),
        (" m_step.epochs = 3", "m_step", Inner(epochs=3)),
        ("warm_up.epochs=3", "warm_up", Inner(epochs=3)),
        ("warm_up.mode=lora", "warm_up", Inner(mode="lora")),
        ("name=plain text", "name", "plain text"),
        ('name="quoted = text"', "name", "quoted = text"),
        ("name=a=b", "name", "a=b"),
        ("name=", "name", ""),
        ("name=~/data", "name", "~/data"),
        ("corpus=['a', 'b']", "corpus", ["a", "b"]),
        ("floor=-8", "floor", -8.0),
        ("floor=-inf", "floor", -math.inf),
        ("fast=true", "fast", True),
        ("free.a.b=1", "free", {"a": {"b": 1}}),
    ],
)
def test_an_override_sets_a_value(recipe, override, field, value):
    assert getattr(recipe(override), field) == value


def test_the_last_override_wins(recipe):
    assert recipe("m_step.epochs=3", "m_step.epochs=4").m_step.epochs == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("m_step.epochs", r"--set m_step\.epochs: expected key=value, such as m_step"),
        ("=3", "--set =3: expected key=value"),
        ("m_step.=3", "expected key=value"),
        ("name.first=3", r"--set name\.first=3: name is a value, not a section"),
        (
            "m_step.learning_rat=3",
            r"unknown key m_step\.learning_rat; did you mean m_step\.learning_rate\?",
        ),
        ("m_stp.epochs=3", r"r\.toml: unknown key m_stp; did you mean m_step\?"),
        ("warm_up.epoch=3", r"unknown key warm_up\.epoch; did you mean warm_up\.epochs\?"),
        ("zzz=3", r"unknown key zzz; known: name, m_step, warm_up"),
        ("m_step.epochs=many", r"r\.toml: m_step\.epochs: .*integer.*, got 'many'"),
        ("m_step.mode=half", r"m_step\.mode: Input should be 'full' or 'lora', got 'half'"),
        ("m_step=3", r"m_step: .*, got 3"),
        ("corpus=3", r"corpus: .* list, got 3"),
        ("fast=perhaps", r"fast: .*, got 'perhaps'"),
        ("m_step.epochs=-1", r"r\.toml: m_step: epochs is -1, expected 0 or more$"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(recipe, override, message):
    with pytest.raises(ConfigError, match=message) as error:
        recipe(override)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named(recipe):
    with pytest.raises(ConfigError, match=r"r\.toml: name: Field required$"):
        recipe(text="")


def test_a_file_that_is_no_recipe(tmp_path, recipe):
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        load_config(Outer, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"a folder, expected a file"):
        load_config(Outer, tmp_path)
    with pytest.raises(ConfigError, match=r"r\.toml: not TOML: .*line 1"):
        recipe(text="name a")
    with pytest.raises(ConfigError, match=r"r\.toml/x: can't be read: Not a directory"):
        load_config(Outer, tmp_path / "r.toml" / "x")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(Outer, tmp_path / "latin.toml")


def test_a_check_of_the_whole_names_no_key():
    @dataclasses.dataclass
    class Pair:
        low: int
        high: int

        def __post_init__(self):
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(ConfigError, match=r"^r: low is above high$"):
        parse_config(Pair, {"low": 2, "high": 1}, place="r")


@dataclasses.dataclass(frozen=True)
class Oven:
    warmth: int = renamed("heat", default=5)


@dataclasses.dataclass(frozen=True)
class Kitchen:
    oven: Oven | None = renamed("stove", default=None)


@pytest.mark.parametrize("section", ["oven", "stove"])
@pytest.mark.parametrize("key", ["warmth", "heat"])
def test_a_key_is_known_by_its_old_name_too(section, key):
    assert parse_config(Kitchen, {section: {key: 7}}, place="r") == Kitchen(Oven(7))
    with pytest.raises(ConfigError, match=r"^r: oven\.warmth: .*integer.*, got 'hot'$"):
        parse_config(Kitchen, {section: {key: "hot"}}, place="r")


def test_a_key_is_given_under_one_name_only():
    with pytest.raises(ConfigError, match=r"^r: stove is now called oven: give only one$"):
        parse_config(Kitchen, {"stove": {}, "oven": {}}, place="r")
    both = {"oven": {"warmth": 7, "heat": 7}}
    with pytest.raises(ConfigError, match=r"^r: oven\.heat is now called oven\.warmth: give only"):
        parse_config(Kitchen, both, place="r")
    with pytest.raises(ConfigError, match=r"unknown key oven\.warmt; did you mean oven\.warmth\?"):
        parse_config(Kitchen, {"oven": {"warmt": 7}}, place="r")
    assert to_plain(Kitchen(Oven(7))) == {"oven": {"warmth": 7}}


def test_a_resolved_config_is_plain_json_and_reads_back():
    config = Outer("a", Inner(1e-5), free={"x": (1, math.inf)})
    plain = to_plain(config)
    assert plain["floor"] == "-inf"
    assert plain["free"] == {"x": [1, "inf"]}
    json.dumps(plain, allow_nan=False)
    again = parse_config(Outer, json.loads(json.dumps(plain)), place="r")
    assert (again.floor, again.m_step) == (-math.inf, Inner(1e-5))


def test_the_first_difference_is_named():
    old = {"recipe": {"a": 1, "b": [1]}, "hash": "x"}
    assert first_difference(old, json.loads(json.dumps(old))) is None
    assert first_difference(old, {**old, "hash": "y"}) == "hash was 'x', is now 'y'"
    assert (
        first_difference(old, {**old, "recipe": {"a": 1, "b": [2]}})
        == "recipe.b was [1], is now [2]"
    )
    assert first_difference(old, {**old, "new": 1}) == "new was None, is now 1"
    assert first_difference(old, {"hash": "x"}).startswith("recipe was {'a': 1")
