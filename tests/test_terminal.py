"""What is shown can't steer a terminal, whatever it is made of, and JSON keeps its values."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from exsearch.terminal import safe, safe_json, safe_lines

EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2Jgone \u202eback\u2066 \u061c\ud800\U000e0041\x7f."
# Chosen so that hypothesis meets the dangerous ones often.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(EVIL + "\r\n\t\x00\u2028\ufeff")))


def harmless(text: str) -> bool:
    bad = {"Cc", "Cs", "Zl", "Zp"}
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return not any(
        unicodedata.category(c) in bad or unicodedata.bidirectional(c) in directions for c in text
    )


def test_by_hand() -> None:
    assert safe(EVIL) == "red gone back ."
    assert safe_lines("a  b\x1b[2J\n\x9b1mc") == "a  b \n c"
    assert safe_json('["\u202e\x9b\x7f\ud800\U000e0041 é"]') == (
        r'["\u202e\u009b\u007f\ud800\udb40\udc41 é"]'
    )


@given(TEXTS)
def test_nothing_that_steers_is_left(text: str) -> None:
    assert harmless(safe(text))
    assert harmless(safe_lines(text).replace("\n", ""))
    safe(text).encode(), safe_lines(text).encode()


@given(TEXTS)
def test_json_keeps_its_values(text: str) -> None:
    made = safe_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert harmless(made)
    assert json.loads(made) == json.loads(json.dumps({text: [text]}))
    made.encode()
