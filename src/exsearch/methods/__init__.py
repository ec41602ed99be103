"""Methods are the ways to answer a question, one file each; `METHODS` names them.

They are plain text: no tokens, no engine, no retriever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from exsearch import plugins
from exsearch.config import parse_config, to_plain
from exsearch.errors import ConfigError
from exsearch.methods.base import Method

METHODS = {
    "searcher": "exsearch.methods.searcher:SearcherMethod",
    "direct": "exsearch.methods.direct:DirectMethod",
    "rag": "exsearch.methods.rag:RagMethod",
    "chain-of-thought": "exsearch.methods.chain_of_thought:ChainOfThoughtMethod",
    "self-ask": "exsearch.methods.self_ask:SelfAskMethod",
    "ircot": "exsearch.methods.ircot:IrcotMethod",
    "iter-retgen": "exsearch.methods.iter_retgen:IterRetgenMethod",
    "guess": "exsearch.methods.guess:GuessMethod",
    "guess-title": "exsearch.methods.guess:GuessTitleMethod",
}
DEFAULT_METHOD = "searcher"


def open_method(values: Mapping[str, Any] | None = None) -> Method:
    """The method that plain values describe: its `name`, and settings of its own.

    Args:
        values: The name and settings, as in a recipe's `[method]`; without a name the searcher is
            meant.

    Raises:
        ConfigError: no such method, or a setting that it does not have or can't use.

    Example:
        >>> open_method({"name": "rag", "passages": 3})
        RagMethod(passages=3, passage_words=100, answer_tokens=64)
    """
    settings = dict(values or {})
    name = settings.pop("name", DEFAULT_METHOD)
    if not isinstance(name, str):
        raise ConfigError(f"method.name is {name!r}, expected a method's name")
    return parse_config(plugins.find(METHODS, name, "method"), settings, prefix="method.")


def method_values(method: Method) -> dict[str, Any]:
    """A method as plain values, with every setting; `open_method` reads them back."""
    return {"name": method.name, **to_plain(method)}


def _method_of(values: Any) -> Method:
    if isinstance(values, Method):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"method is {values!r}, expected a section with a name and settings")
    return open_method(values)


# A dataclass field that holds a method, read from a section such as `[method]`.
MethodField = Annotated[Method, PlainValidator(_method_of), PlainSerializer(method_values)]


def method_settings(name: str) -> list[str]:
    """The names of a method's settings.

    Args:
        name: The method's name.

    Raises:
        ConfigError: no such method.
    """
    return [field.name for field in dataclasses.fields(plugins.find(METHODS, name, "method"))]
