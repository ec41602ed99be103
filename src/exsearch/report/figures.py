"""A figure is drawn from values, which stand beside it, as a picture for a page and for a paper.

In a page its colours are those of the page's style, so that it follows the theme.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from exsearch.errors import MissingExtraError
from exsearch.evaluation.metrics import find_metric
from exsearch.runs import make_folder, write_atomic
from exsearch.terminal import safe

INK, SOFT, LINE, PAPER = "#1d2226", "#575e64", "#dcd9d2", "#ffffff"
# Told apart by those who see few colours, and by their markers and lines, too.
COLOURS = ("#0f5f5c", "#b4571a", "#5b4ba0", "#a3312a", "#2f6f9f", "#6b7a1f", "#8c3b78", "#575e64")
MARKERS = "os^DvPX*"
_IN_PAGE = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--raised"}
_IN_PAGE |= {colour: f"--series-{n}" for n, colour in enumerate(COLOURS) if colour != SOFT}
_STYLE = str(files("exsearch.report") / "figures.mplstyle")
Values = list[list[Any]]  # the heads first


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: The name of its files.
        title: What it shows.
        values: What it is drawn from.
        svg: The picture.
        png: The picture in points, on white.
    """

    name: str
    title: str
    values: Values
    svg: str
    png: bytes

    @property
    def in_page(self) -> str:
        """The picture as an element of a page: no style of its own, colours of the page's."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
        svg = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), svg)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{self.name}-", svg)
        for colour, name in _IN_PAGE.items():
            svg = svg.replace(colour, f"var({name})")
        return svg


def _attributes(style: str) -> str:
    """The declarations of a style as attributes, which a page's policy lets in."""
    pairs = (each.split(":", 1) for each in style.replace("&quot;", "'").split(";") if ":" in each)
    kept = ((name.strip(), value.strip()) for name, value in pairs)
    return "".join(f' {name}="{value}"' for name, value in kept if name != "font-family")


def draw(values: Mapping[str, Any]) -> list[Drawn]:
    """The figures of a report, of which those with nothing to show are left out.

    Args:
        values: The report's values (`build`).

    Raises:
        MissingExtraError: the packages that draw are not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("report", "report", str(error)) from None
    drawn: list[Drawn] = []
    with matplotlib.rc_context(fname=_STYLE):
        for name, plan in FIGURES.items():
            for title, own, paint, lines in plan(values):
                figure = Figure(figsize=(6, 0.27 * max(3, lines) + 0.7), layout="constrained")
                paint(figure.subplots(), own[1:])
                drawn.append(
                    Drawn(name, title, own, _saved(figure, "svg").decode(), _saved(figure, "png"))
                )
    return drawn


def _saved(figure: Any, kind: str) -> bytes:
    file = io.BytesIO()
    only = {"metadata": {"Date": None}, "transparent": True} if kind == "svg" else {"dpi": 200}
    figure.savefig(file, format=kind, **only)
    return file.getvalue()


def write_figures(drawn: Sequence[Drawn], folder: Path) -> None:
    """Write each figure as SVG, PNG and CSV.

    Args:
        drawn: The figures.
        folder: The folder, which is made where it is missing.
    """
    make_folder(folder)
    for one in drawn:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(one.values)
        write_atomic(folder / f"{one.name}.svg", one.svg)
        write_atomic(folder / f"{one.name}.png", one.png)
        write_atomic(folder / f"{one.name}.csv", text.getvalue())


# What each figure shows: its title, its values, how they are painted, and how many lines it takes.
Plan = tuple[str, Values, Callable[[Any, Values], None], int]


def _differences(values: Mapping[str, Any]) -> Iterator[Plan]:
    group = "neither" if values["compared"].get("neither") else ""
    lines = values["compared"].get(group) or []
    if lines:
        label, base = find_metric(values["metric"]).label, safe(values["base"])
        title = f"{label}: difference from {base}, points, 95 % interval{_of(group)}"
        heads = ["row", "difference", "low", "high", "p, Holm", "questions"]
        own = [
            [safe(one["name"]), *_points(one["difference"], *one["ci95"]), one["p_holm"], one["n"]]
            for one in lines
        ]
        yield title, [heads, *own], _bars, len(own)


def _of(group: str) -> str:
    return ", questions that can't be guessed" if group else ""


def _points(*shares: float) -> list[float]:
    return [round(100 * share, 2) for share in shares]


def _arms(rows: Values, at: int) -> Values:
    """From a value to the ends of its interval, which may lie to one side of it."""
    return [
        [max(0.0, row[at] - row[at + 1]) for row in rows],
        [max(0.0, row[at + 2] - row[at]) for row in rows],
    ]


def _bars(axes: Any, rows: Values) -> None:
    names = [row[0] for row in rows]
    middle = [row[1] for row in rows]
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in middle]
    axes.barh(range(len(rows)), middle, 0.62, color=colours)
    axes.errorbar(middle, range(len(rows)), xerr=_arms(rows, 1), ls="", lw=1, color=INK)
    axes.axvline(0, color=SOFT, lw=1)
    axes.set_yticks(range(len(rows)), names)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def _cost(values: Mapping[str, Any]) -> Iterator[Plan]:
    metric = values["metric"]
    rows = values["main"]["rows"]
    group = "neither" if any("neither" in row["all"]["by"] for row in rows) else ""
    own = [
        [safe(row["name"]), round(row["tokens"], 1), *_points(*figure)]
        for row in rows
        if (figure := row["all"]["by"].get(group, {}).get(metric))
    ]
    label = find_metric(metric).label
    if len(own) > 1:
        heads = ["row", "tokens a question", label, "low", "high"]
        title = f"{label} % by tokens a question{_of(group)}"
        yield title, [heads, *own], _points_by_cost, max(10, len(own))


def _points_by_cost(axes: Any, rows: Values) -> None:
    for n, row in enumerate(rows):
        style = {"color": COLOURS[n % 8], "marker": MARKERS[(n // 8 + n) % 8], "ls": ""}
        axes.errorbar(row[1], row[2], _arms([row], 2), lw=1, label=row[0], **style)
    axes.set_xlabel("tokens a question")
    axes.set_ylim(bottom=0)
    axes.figure.legend(loc="outside right upper", fontsize=8.5)


def _curves(values: Mapping[str, Any]) -> Iterator[Plan]:
    metric = values["metric"]
    own = [
        [safe(run["name"]), stage["stage"], *_points(*figure)]
        for run in values["training"]
        for stage in run["stages"]
        if stage["dev"] and (figure := stage["dev"][""].get(metric))
    ]
    label = find_metric(metric).label
    if own:
        heads = ["run", "stage", label, "low", "high"]
        yield f"{label} % on dev by stage, 95 % interval", [heads, *own], _lines, 10


def _objective(values: Mapping[str, Any]) -> Iterator[Plan]:
    own = [
        [safe(run["name"]), stage["stage"], *(round(mean + n * error, 3) for n in (0, -1, 1))]
        for run in values["training"]
        for stage in run["stages"]
        if (mean := stage["sampled"]["objective"]) is not None
        and (error := stage["objective_error"]) is not None
    ]
    if own:
        heads = ["run", "stage", "objective", "low", "high"]
        title = "Objective of each round's samples, nats, ± its standard error"
        yield title, [heads, *own], _lines, 10


def _lines(axes: Any, rows: Values) -> None:
    stages = list(dict.fromkeys(row[1] for row in rows))
    stages.sort(key=lambda name: (name.startswith("iteration"), name))
    names = list(dict.fromkeys(row[0] for row in rows))
    for n, name in enumerate(names):
        own = [row for row in rows if row[0] == name]
        at = [stages.index(row[1]) + 0.06 * (n - (len(names) - 1) / 2) for row in own]
        style = {"color": COLOURS[n % 8], "marker": MARKERS[n % 8], "lw": 1.4, "elinewidth": 1}
        axes.errorbar(at, [row[2] for row in own], _arms(own, 2), label=name, **style)
    axes.set_xticks(range(len(stages)), stages)
    axes.figure.legend(loc="outside right upper", fontsize=8.5)


def _budget(values: Mapping[str, Any]) -> Iterator[Plan]:
    of = values["diagnosis"][0]
    tables = [t for t in of["tables"] if "wrong" in t]
    if tables:
        table = tables[-1]
        lines = [line for line in table["lines"] if line["cause"]]
        heads = ["row", *(line["label"] for line in lines)]
        shares = [[cell["figure"][0] if cell else 0.0 for cell in line["cells"]] for line in lines]
        own = [
            [safe(head["name"]), *_points(*(each[n] for each in shares))]
            for n, head in enumerate(of["heads"])
            if table["wrong"][n]
        ]

        def paint(axes: Any, rows: Values) -> None:
            starts = [0.0] * len(rows)
            for n, cause in enumerate(heads[1:]):
                widths = [row[n + 1] for row in rows]
                look = {
                    "color": COLOURS[n % 8],
                    "edgecolor": PAPER,
                    "hatch": "///" if n > 7 else "",
                }
                axes.barh(range(len(rows)), widths, 0.7, starts, label=cause, linewidth=0.8, **look)
                starts = [start + width for start, width in zip(starts, widths, strict=True)]
            axes.set_yticks(range(len(rows)), [row[0] for row in rows])
            axes.set_xlim(0, 100)
            axes.grid(visible=False, axis="y")
            axes.invert_yaxis()
            axes.figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)

        yield f"What {table['title']}, were lost by", [heads, *own], paint, len(own) + 3


FIGURES: dict[str, Callable[[Mapping[str, Any]], Iterator[Plan]]] = {
    "differences": _differences,
    "cost": _cost,
    "curves": _curves,
    "objective": _objective,
    "budget": _budget,
}
