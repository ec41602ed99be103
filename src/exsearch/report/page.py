"""The page of a report is one file: values, figures, script and style, and a policy for them.

Texts of questions, passages and models reach it as JSON alone, and its script shows them as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from exsearch.runs import finite

_SERVING = files("exsearch.serving") / "page"  # the timeline, and the style of both pages
_OWN = files("exsearch.report") / "page"
_MODULE = re.compile(r"^(?:import .*;\n|export )", re.MULTILINE)


def page(
    values: Mapping[str, Any],
    pieces: Mapping[str, str],
    drawn: Mapping[str, str],
    *,
    live: str = "",
) -> str:
    """The text of a report's file.

    Args:
        values: What it shows at once.
        pieces: What it opens on demand (`Pack.pieces`).
        drawn: Figures as SVG by their names.
        live: The page's version where it is served while its run is trained, and looks for a newer
            one; empty asks nobody.
    """
    scripts = (_SERVING / "trace.js", _SERVING / "passage.js", _OWN / "report.js")
    # One script: a module on a disk can't import another.
    script = "\n".join(_MODULE.sub("", f.read_text(encoding="utf-8")) for f in scripts)
    styles = (_SERVING / "style.css", _OWN / "report.css")
    style = "\n".join(f.read_text(encoding="utf-8") for f in styles)
    icon = (_SERVING / "icon.svg").read_bytes()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
        + ("; connect-src 'self'" if live else "")
    )
    parts = {
        "policy": policy,
        "icon": base64.b64encode(icon).decode(),
        "style": style,
        "script": script,
        "values": _embedded({**values, "live": live}),
        "figures": "".join(
            f'<template id="figure-{n}">{svg}</template>' for n, svg in drawn.items()
        ),
        "pieces": "".join(
            f'<script type="text/plain" id="{name}">{text}</script>\n'
            for name, text in pieces.items()
        ),
    }
    template = (_OWN / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(value: Any) -> str:
    """JSON that no text in it can end, whatever the browser reads it as."""
    text = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
