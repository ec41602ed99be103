"""Judgements as tables for a person: rates beside the metrics, and how far judges agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exsearch.show.tables import table
from exsearch.terminal import safe

RATES = {
    "answer": "right %",
    "em": "EM %",
    "f1": "F1 %",
    "right_not_em": "right, not EM %",
    "em_not_right": "EM, not right %",
    "query": "useful query %",
    "passage": "relevant passage %",
    "evidence": "supported record %",
}


def summary_text(found: Mapping[str, Any]) -> str:
    """The figures of a study as text: a row a part, then pairs, then agreement.

    Args:
        found: What `judging.summary.summarise` gives.
    """
    judges = ", ".join(f"{safe(name)} {count}" for name, count in found["judges"].items())
    lines = [f"{found['items']} items; judgements: {judges or 'none'}"]
    lines += ["value [95 % interval] (questions)", ""]
    lines.append(_rates(found["parts"]))
    for part in found["parts"]:
        if shown := part["rates"].get("right_not_em", {}).get("examples"):
            ids = "  ".join(map(safe, shown))
            lines.append(f"  right, not EM, in {_named(part)}: {ids}")
    if any(other["n"] for other in found["against"]):
        lines += ["", _against(found["parts"][0], found["against"])]
    return "\n".join([*lines, "", _agreement(found["agreement"])])


def _rates(parts: Sequence[Mapping[str, Any]]) -> str:
    known = [name for name in RATES if any(name in part["rates"] for part in parts)]
    rows = [["judged", *(RATES[name] for name in known)]]
    for part in parts:
        rows.append([_named(part), *(_rate(part["rates"].get(name)) for name in known)])
    return table(rows)


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "-"
    low, high = rate["ci95"]
    return f"{100 * rate['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({rate['n']})"


def _against(first: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    rows = [[f"{_named(first)} less", "questions", "right, points", "p", "EM, points", "p"]]
    for other in (other for other in others if other["n"]):
        cells = [_named(other), str(other["n"])]
        for name in ("answer", "em"):
            (low, high), value = other[name]["ci95"], other[name]["difference"]
            cells.append(f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
            cells.append(f"{other[name]['p']:.3f}")
        rows.append(cells)
    return table(rows)


def _agreement(agreement: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["agreement of judges", "Krippendorff's alpha", "items of two or more"]]
    for kind, own in agreement.items():
        value = "-" if own["alpha"] is None else f"{own['alpha']:.3f}"
        rows.append([kind, value, str(own["n"])])
    return table(rows)


def _named(part: Mapping[str, Any]) -> str:
    return safe(" ".join(filter(None, (part["place"], part["stage"], part["method"]))))
