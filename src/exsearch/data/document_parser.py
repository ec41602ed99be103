"""The parser of HTML and PDF files, which a process of its own runs; `documents` starts it.

Such a file may come from anyone, and its parser may take any time and memory, or crash. So this
file is a script that imports nothing of the package and ends where it takes too much. It reads a
path a line, and writes what it found, or what is wrong, as one JSON object a line.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

SECONDS = 120  # of one core, for a file
MEMORY = 2 << 30  # bytes
MAX_BYTES = 256 << 20  # of a file

_UNSEEN = (
    "head, script, style, noscript, template, nav, iframe, object, svg, canvas, button, select, "
    "textarea, datalist, dialog:not([open]), body > footer, [hidden], [aria-hidden=true]"
)
_BLOCKS = (
    "address, article, aside, blockquote, body, caption, center, dd, details, div, dl, dt, "
    "fieldset, figcaption, figure, footer, form, h1, h2, h3, h4, h5, h6, header, hr, li, main, ol, "
    "p, pre, section, summary, table, tr, ul"
)
_SPACED = "br, td, th"
_END = "\x1e"  # of a block: a record separator, which texts do without
_DIVIDED = re.compile(r"(?<=[^\W\d_])(?:-|\u00ad)\n(?=[^\W\d_A-Z])")  # a word at the end of a line


class UnreadableError(Exception):
    """A document can't be read; the message says why and what to do."""


def read_html(path: Path) -> tuple[str, str]:
    """The title of a page (empty where it has none) and its visible text, a paragraph a block."""
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    try:
        tree = LexborHTMLParser(path.read_bytes(), encoding=True)
    except SelectolaxError:  # any bytes are a page, so there was no memory for it
        raise MemoryError from None
    named = tree.css_first("head > title") or tree.css_first("h1, h2, h3, h4, h5, h6")
    title = _one_line(named.text()) if named else ""
    for node in tree.css(_UNSEEN):
        node.decompose()
    for node in tree.css(_BLOCKS):
        node.insert_before(_END)
        node.insert_after(_END)
    for node in tree.css(_SPACED):
        node.insert_after(" ")
    blocks = map(_one_line, tree.text().split(_END))
    return title, "\n\n".join(filter(None, blocks))


def read_pdf(path: Path) -> tuple[str, str]:
    """The title in a PDF's metadata (empty where it has none) and the text of its pages."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    try:
        reader = PdfReader(path)
        pages = [page.extract_text().strip() for page in reader.pages]
    except (FileNotDecryptedError, DependencyError):
        raise UnreadableError("encrypted; save it without a password") from None
    text = _DIVIDED.sub("", "\n".join(pages))  # a sentence may go on over the end of a page
    if not text.strip():
        raise UnreadableError("has no text; if its pages are scanned, recognise their text first")
    try:
        title = reader.metadata.title if reader.metadata else None
    except Exception:  # a damaged title is none
        title = None
    return _one_line(title or ""), text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _limit() -> None:
    """Give the process the time for one more file, where the system can."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + SECONDS, most))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _answer(path: Path) -> dict[str, str]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return {"error": f"of more than {MAX_BYTES >> 20} MiB; divide it"}
        title, text = (read_pdf if path.suffix.lower() == ".pdf" else read_html)(path)
    except UnreadableError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"takes more than {MEMORY >> 20} MiB of memory to read"}
    except OSError as error:
        return {"error": f"can't be read: {error.strerror or error}"}
    except Exception as error:  # whatever a parser makes of a file that is none
        reason = _one_line(str(error))[:200] or type(error).__name__
        return {"error": f"damaged ({reason}); save it anew"}
    return {"title": title, "text": text}


def main() -> None:
    """Answer each line of the standard input with one of the standard output."""
    for line in sys.stdin.buffer:
        _limit()
        print(json.dumps(_answer(Path(json.loads(line)))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
