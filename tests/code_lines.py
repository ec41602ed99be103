"""Counts lines of code: no blank lines, comments or docstrings. `make count` runs it."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Lines of a module that hold code."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            docstrings.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def main(folder: str, limit: int) -> None:
    """Print the count of a folder's modules; exit code 1 where it is above the limit."""
    files = sorted(Path(folder).rglob("*.py"))
    count = sum(code_lines(file.read_text(encoding="utf-8")) for file in files)
    print(f"{count} lines of code in {len(files)} modules of {folder} (limit {limit})")  # noqa: T201
    sys.exit(count > limit)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
