"""Tables stand in a terminal as aligned columns, and in a page of Markdown between markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from exsearch.errors import DataError
from exsearch.runs import write_atomic


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first row as their heads; figures stand to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def write_tables(page: Path, tables: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Put tables into a page, each between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Args:
        page: The page, which has the markers of one table at least.
        tables: By the name in the markers the table's cells, the heads first.

    Raises:
        DataError: the page is missing, has no such markers, or one of them alone or twice.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"can't be read ({type(error).__name__})", file=page) from None
    written = text
    for name, rows in tables.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if begin not in written and end not in written:
            continue
        if (written.count(begin), written.count(end)) != (1, 1):
            raise DataError(f"expected {begin.strip()} and {end}, each once", file=page)
        before, rest = written.split(begin)
        _, after = rest.split(end)
        lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        made = "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
        written = f"{before}{begin}{made}{end}{after}"
    if written is text:
        markers = " or ".join(f"<!-- begin {name} -->" for name in tables)
        raise DataError(
            f"no {markers} in it: put one and its end where the table belongs", file=page
        )
    write_atomic(page, written)
