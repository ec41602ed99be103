"""A diagnosis as tables for a person: a column a part, and below each the ids to look at."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.diagnosis.loss import Cause
from exsearch.diagnosis.rounds import BINS
from exsearch.show.tables import table
from exsearch.terminal import safe

# By table its rates, each with what a person reads; those with a % are shares.
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "stops": (
        "early stop and over-search",
        {
            "early_stop": "stopped early %",
            "over_search": "searched on %",
            "steps_too_many": "searches too many",
            "search_helped": "search helped %",
            "search_hurt": "search hurt %",
        },
    ),
    "spread": (
        "records, and how their errors spread",
        {
            "unsupported": "no passage says it %",
            "wrong_passage": "another passage says it %",
            "weakly_supported": "said in other words %",
            "record_empty": "missed, empty %",
            "record_wrong": "missed, wrong %",
            "recovered": "miss recovered later %",
            "error_in_next_query": "error in next query %",
            "error_in_answer": "error in answer %",
            "right_after_miss": "right after a miss %",
            "right_without_miss": "right without a miss %",
        },
    ),
    "drift": (
        "queries",
        {
            "no_support": "found no support %",
            "nothing_new": "found nothing new %",
            "repeated_query": "repeats a query %",
            "unrelated_query": "unrelated to all %",
        },
    ),
    "lost_by": (
        "what missed facts were lost by",
        {
            "retrieval": "retrieval %",
            "query": "query %",
            "query_bound": "  of it by a bound %",
            "reading": "reading %",
            "untold": "untold %",
            "without_support_retrieval": "no support named: retrieval %",
            "without_support_query": "no support named: query %",
            "without_support_query_bound": "  of it by a bound %",
            "without_support_reading": "no support named: reading %",
            "without_support_untold": "no support named: untold %",
        },
    ),
    "behaviour": (
        "answers, queries and weights",
        {
            "em": "EM %",
            "f1": "F1 %",
            "guessed": "as the rule guesses %",
            "unfounded": "answer in no passage %",
            "answer_words": "words an answer",
            "distinct_queries": "distinct queries %",
            "surprise": "entropy, nats a token",
            "effective_samples": "effective samples % of K",
            "objective": "objective, nats",
        },
    ),
}
_BARS = " ▁▂▃▄▅▆▇█"


def diagnosis_text(found: Mapping[str, Any]) -> str:
    """A diagnosis as text for a person.

    Args:
        found: What `diagnosis.diagnose` gives.
    """
    parts = found["parts"]
    heads = _heads(parts)
    blocks = [_opening(found)]
    for name, (title, labels) in TABLES.items():
        rates = [part[name] for part in parts]
        blocks.append(_rates_table(title, labels, rates, heads, examples=name != "behaviour"))
    numbers = sorted({number for part in parts for number in part["gains"]}, key=int)
    labels = {number: f"search {number}" for number in numbers}
    gains = [part["gains"] for part in parts]
    blocks.append(_rates_table("gain of each search, nats", labels, gains, heads, examples=False))
    blocks += _budgets(parts, heads)
    blocks.append(_cost(parts, heads))
    blocks += [_rounds(run) for run in found["runs"]]
    blocks.append(_closing(parts))
    return "\n\n".join(block for block in blocks if block)


def _opening(found: Mapping[str, Any]) -> str:
    trajectories = sum(part["samples"] for part in found["parts"])
    failed = sum(part["failed"] for part in found["parts"])
    lost = f", {failed} of them failed and left out" if failed else ""
    seconds = found["seconds_a_search"]
    if seconds is None:
        made = "no search made"
    else:
        bad = f", {found['failed_searches']} failed" if found["failed_searches"] else ""
        made = f"{found['searches']} searches made at {1000 * seconds:.1f} ms{bad}"
    return f"{trajectories} trajectories{lost}; {made}\nvalue [95 % interval] (questions)"


def _heads(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name of each part, with its place or method only where there are several."""
    places = {part["place"] for part in parts}
    methods = {part["method"] for part in parts}
    heads = []
    for part in parts:
        stage = f"{part['stage']} {part['kind']}" if part["stage"] else ""
        place = Path(part["place"]).name if len(places) > 1 or not stage else ""
        method = part["method"] if len(methods) > 1 else ""
        heads.append(safe(" ".join(filter(None, (place, stage, method)))))
    return heads


def _rates_table(
    title: str,
    labels: Mapping[str, str],
    rates: Sequence[Mapping[str, Any]],
    heads: Sequence[str],
    *,
    examples: bool,
) -> str:
    """The rates that some part has, and examples of the last part's."""
    rows = [(title, *heads)]
    lines: list[str] = []
    for name, label in labels.items():
        if not any(name in part for part in rates):
            continue
        rows.append((label, *(_cell(part.get(name), share="%" in label) for part in rates)))
        ids = rates[-1].get(name, {}).get("examples", [])
        if examples and ids:
            lines.append(f"  {label.strip(' %')}: {'  '.join(map(safe, ids))}")
    return "\n".join([table(rows), *lines]) if len(rows) > 1 else ""


def _cell(rate: Mapping[str, Any] | None, *, share: bool) -> str:
    if rate is None:
        return "-"
    by, digits = (100, 1) if share else (1, 2)
    low, high = (f"{by * end:.{digits}f}" for end in rate["ci95"])
    return f"{by * rate['value']:.{digits}f} [{low}, {high}] ({rate['n']})"


def _budgets(parts: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> Iterator[str]:
    """The loss budget of all questions, and of those that can't be guessed."""
    for group in ("all", "neither"):
        own = [part["budget"].get(group) for part in parts]
        if not any(budget and budget["wrong"] for budget in own):
            continue
        of = "all questions" if group == "all" else f"group {group}"
        rows = [(f"of 100 wrong answers, {of}", *heads)]
        wrong = [f"{b['wrong']} of {b['answers']}" if b else "-" for b in own]
        rows.append(("wrong answers", *wrong))
        lines: list[str] = []
        for name in [*(each.value for each in Cause), "bound"]:
            label = "  query or stop by a bound" if name == "bound" else name
            shares = [budget["shares"].get(name) if budget else None for budget in own]
            rows.append((label, *(_cell(share, share=True) for share in shares)))
            if name != "bound" and (last := shares[-1]) and last["examples"]:
                lines.append(f"  {name}: {'  '.join(map(safe, last['examples']))}")
        yield "\n".join([table(rows), *lines])


def _cost(parts: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> str:
    """Tokens by action, read and written, a trajectory."""
    rows: list[tuple[str, ...]] = [("cost a trajectory", *heads)]
    actions = dict.fromkeys(action for part in parts for action in part["cost"]["actions"])
    for action in actions:
        for name in ("calls", "read", "written"):
            own = [part["cost"]["actions"].get(action, {}).get(name) for part in parts]
            label = f"{action}: {name if name == 'calls' else f'tokens {name}'}"
            rows.append((safe(label), *(_cell(rate, share=False) for rate in own)))
    rows.append(("searches", *(f"{part['cost']['searches']:.2f}" for part in parts)))
    seconds = [part["cost"]["seconds"] for part in parts]
    if any(each is not None for each in seconds):
        shown = ("-" if each is None else f"{each:.0f}" for each in seconds)
        rows.append(("seconds, all together", *shown))
    return table(rows)


def _rounds(run: Mapping[str, Any]) -> str:
    """The stages of a run: gap, weights, objective and seconds; then the alarms."""
    heads = ("rounds", "gap of EM % [95 %]", "gap of F1 % [95 %]", "weights 0 to 1")
    rows: list[tuple[str, ...]] = [(*heads, "hopeless %", "probe objective", "seconds")]
    for stage in run["rounds"]:
        gaps = (_gap(stage["gap"].get(name)) for name in ("em", "f1"))
        journal = stage["journal"]
        probe = journal["probe_objective"]
        took = ", ".join(f"{name} {value:.0f}" for name, value in journal["seconds"].items())
        rows.append(
            (
                safe(stage["stage"]),
                *gaps,
                _weights(stage["weights"]),
                _cell(stage["hopeless"], share=True),
                "-" if probe is None else f"{probe:.2f}",
                took or "-",
            )
        )
    lines = [table(rows)]
    for stage in run["rounds"]:
        if shares := stage["dev_by"].get("dataset"):
            each = (
                f"{safe(name)}{_unseen(s)} {_cell(s, share=True)}" for name, s in shares.items()
            )
            lines.append(f"  {safe(stage['stage'])}, dev EM %: {'; '.join(each)}")
    for alarm in run["alarms"]:
        lines.append(f"alarm: {safe(alarm['stage'])}: {alarm['name']}: {alarm['says']}")
        lines.append(f"  try: {alarm['remedy']}")
    return "\n".join(lines)


def _gap(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return "-"
    low, high = gap["ci95"]
    return f"{100 * gap['value']:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _weights(counts: Sequence[int] | None) -> str:
    """A histogram as one bar a tenth, and how many lie in the first and in the last."""
    if not counts:
        return "-"
    top = max(counts)
    bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)
    return f"{counts[0]} |{bars}| {counts[BINS - 1]}"


def _unseen(share: Mapping[str, Any]) -> str:
    return "" if share.get("trained", True) else " (never trained on)"


def _closing(parts: Sequence[Mapping[str, Any]]) -> str:
    file = shlex.quote(safe(parts[-1]["trajectories"]))
    return f"ids are of the last column; open one: exsearch show {file} --id ID"
