"""A control token marks turns and ends; a text that is put to a model must never become one.

Ordinary words stay whole, also those that were added to a vocabulary. It does not know what the
texts are about.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# What a template writes around turns, as a token of its own or not: <|im_end|>, [/INST], <<SYS>>.
MARK = re.compile(r"<{1,2}/?[^<>\s]{1,60}>{1,2}|\[/?[A-Z_]{3,}\]")
# Those of well-known models, for a model behind a server, whose tokenizer is out of sight.
_KNOWN = re.compile(
    r"<\|[^<>|\n]{1,60}\|>|</?s>|<</?sys>>|<(?:bos|eos|pad|unk|mask|sep|cls)>"
    r"|</?(?:start|end)_of_\w{1,20}>|</?(?:\w{1,20}:)?(?:think\w*|tools?(?:_\w{1,20})?)>"
    r"|\[/?(?:inst|system_prompt|available_tools|tool_calls|tool_results|think)\]",
    re.IGNORECASE,
)


def pattern(controls: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of these texts, the longest first; it finds nothing without any."""
    longest_first = sorted(set(controls), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def broken_up(text: str, controls: re.Pattern[str]) -> str:
    """Text without control tokens: each is broken up, or taken out where that is not enough.

    Args:
        text: Any text.
        controls: Finds what a control token is spelled as.
    """
    text = controls.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)
    while controls.search(text):
        text = controls.sub("", text)
    return text


def for_servers(text: str) -> str:
    """Text in which no well-known control token is spelled, nor what a normaliser folds into one.

    Look-alikes (full-width signs, letters of another style, invisible characters in between) count,
    since the tokenizer behind the server may fold them.
    """
    if text.isascii() and not _KNOWN.search(text):
        return text
    # One character at a time, so that each knows where it stands in the text.
    parts = [_folded(character) for character in text]
    places = [n for n, part in enumerate(parts) for _ in part]
    for match in reversed(list(_KNOWN.finditer("".join(parts)))):
        place = places[match.start()] + 1
        text = f"{text[:place]} {text[place:]}"
    return text


def _folded(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character)
    return "".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Mn"))
