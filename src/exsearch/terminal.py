"""Text for a terminal is what anyone may have written, without what a terminal would obey or hide.

All that a command prints passes through here. Where the text comes from does not matter.
"""

from __future__ import annotations

import json
import re

# C1 controls and what reorders, hides or breaks text: marks of direction, blanks without width,
# line separators, tags, halves of surrogate pairs.
_HIDDEN = (
    r"\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f"
)
# CSI and OSC sequences whole, other escapes with their letter, then every other control character.
_STEERING = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    rf"|\x1b.?|[\x00-\x1f{_HIDDEN}]",
    re.DOTALL,
)
_IN_JSON = re.compile(f"[{_HIDDEN}]")


def safe(text: str) -> str:
    """Untrusted text on one line, without what a terminal would obey."""
    return " ".join(_STEERING.sub(" ", text).split())


def safe_lines(text: str) -> str:
    """Untrusted text with its lines and blanks, without what a terminal would obey."""
    return "\n".join(_STEERING.sub(" ", line) for line in text.split("\n"))


def safe_json(text: str) -> str:
    r"""JSON with the same values, in which what a terminal would obey stands as `\u` escapes."""
    return _IN_JSON.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 0x10000 else json.dumps(found[0])[1:-1]
