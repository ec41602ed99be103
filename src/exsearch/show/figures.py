"""Figures of runs, evaluations and comparisons as tables for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exsearch.errors import RunError
from exsearch.evaluation.audit import FIGURES, FIRST
from exsearch.evaluation.evaluate import SUMMARY_FILE
from exsearch.evaluation.groups import LINKS
from exsearch.evaluation.metrics import all_metrics, find_metric, with_todays_names
from exsearch.json_files import read_json
from exsearch.models.settings import BEST_FILE
from exsearch.runs import read_jsonl
from exsearch.show.tables import table
from exsearch.terminal import safe
from exsearch.training.stages import METRICS_FILE
from exsearch.trajectories import TRAJECTORIES_FILE


def percent(summary: Mapping[str, Any], name: str) -> str:
    """A figure as a percentage with its 95 % interval; a dash where there is none.

    Args:
        summary: The figures of an evaluation or a scoring.
        name: The name of the metric.
    """
    value = summary.get(name)
    if value is None:
        return "-"
    low, high = summary.get("ci95", {}).get(name, (None, None))
    interval = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{interval}"


def summary_text(summary: Mapping[str, Any]) -> str:
    """The figures of an evaluation or a scoring as text for a person, a line each."""
    lines = [f"{'questions':<16} {summary['n']}"]
    for metric in all_metrics():
        if metric.name in summary:
            counted = summary.get(f"{metric.name}_n")
            over = "" if counted is None else f" (over {counted})"
            lines.append(f"{metric.label + ' %':<16} {percent(summary, metric.name)}{over}")
    if groups := summary.get("groups"):
        lines += ["", _groups_table(groups), ""]
    if audited := summary.get("audit"):
        lines += [_audit_table(audited), ""]
    if summary.get("steps") is not None:
        lines.append(f"{'steps':<16} {summary['steps']:.2f}")
    for name in ("stop_reasons", "malformed"):
        if summary.get(name):
            counts = ", ".join(f"{key} {n}" for key, n in summary[name].items())
            lines.append(f"{name.replace('_', ' '):<16} {counts}")
    if summary.get("retries"):
        lines.append(
            f"{'retries':<16} {summary['retries']} (at temperature 1, after malformed ones)"
        )
    if summary.get("missing"):
        lines.append(f"{'no prediction':<16} {summary['missing']} (counted as wrong)")
    if summary.get("prompt_tokens"):  # none where the engine gives no token ids
        tokens = f"{summary['prompt_tokens']} read, {summary['output_tokens']} written"
        lines.append(f"{'tokens':<16} {tokens}")
    if "seconds" in summary:
        lines.append(f"{'seconds':<16} {summary['seconds']:.0f}")
    return "\n".join(lines)


def _groups_table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """How well questions are answered that may be guessed, and those that may not."""
    heads = ("questions by group", "n", "EM %", "F1 %", "guessing %")
    rows: list[tuple[str, ...]] = [(*heads, *LINKS)]
    for name, figures in groups.items():
        links = [figures["chain"][link] for link in LINKS]
        counts = ["-" if count is None else str(count) for count in links]
        if lucky := figures["chain"]["lucky"]:
            counts[-1] += f" + {lucky}"
        shares = (percent(figures, metric) for metric in ("em", "f1"))
        guessed = f"{100 * figures['guess']:.1f}"
        rows.append((safe(name), str(figures["n"]), *shares, guessed, *counts))
    return table(rows)


def _audit_table(audited: Mapping[str, Mapping[str, Any]]) -> str:
    """What the corpus holds for each group of questions."""
    heads = ("answer in a passage %", f"in the first {FIRST} of one search %", "support missing %")
    rows: list[tuple[str, ...]] = [("the corpus", "n", *heads)]
    for name, figures in audited.items():
        shares = (percent(figures, each) for each in FIGURES)
        rows.append((safe(name), str(figures["n"]), *shares))
    return table(rows)


def comparison_text(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """A comparison of two systems (`compare_predictions`) as a table, a metric a line."""
    rows = [("", "difference % [95 %]", "p", "better", "worse")]
    for name, found in compared.items():
        counts = str(found["better"]), str(found["worse"])
        rows.append((name, _difference(found), f"{found['p']:.3f}", *counts))
    return table(rows)


def systems_text(found: Mapping[str, Any]) -> str:
    """A comparison of several systems (`compare_systems`) as two tables."""
    name = found["metric"]
    heads = ("", f"{find_metric(name).label} %", "seeds, sd %", "tokens a question", "seconds")
    rows: list[tuple[str, ...]] = [heads]
    for one in found["systems"]:
        shown = percent({**one, "ci95": {name: one["ci95"]}}, name)
        spread = one["seeds_sd"]
        seeds = str(one["seeds"]) + ("" if spread is None else f", {100 * spread:.1f}")
        cost = f"{one['tokens']:.0f}", f"{one['seconds']:.1f}"
        rows.append((safe(one["name"]), shown, seeds, *cost))
    of = f" of the group {found['group']}" if found["group"] else ""
    lines = [f"{found['n']} questions{of} that all answered\n", table(rows), ""]
    rows = [(f"{safe(found['systems'][0]['name'])} against", "% [95 %]", "p", "p, Holm", "wins")]
    for one in found["against"]:
        ps = f"{one['p']:.4f}", f"{one['p_holm']:.4f}"
        rows.append((safe(one["name"]), _difference(one), *ps, f"{one['better']}-{one['worse']}"))
    return "\n".join([*lines, table(rows)])


def retrieval_text(summary: Mapping[str, Any], questions: Mapping[str, str]) -> str:
    """The figures of an evaluation of retrieval as tables, then the questions that flipped.

    Args:
        summary: What `jobs.evaluate_retrieval` gives.
        questions: The texts of questions by id, as far as they are known.
    """
    rows = [("", "% [95 %]", "over")]
    for name in summary["ci95"]:
        count = summary.get(f"{name}_n", summary["n"])
        rows.append((name, percent(summary, name), str(count)))
    lines = [table(rows), f"{summary['searches']} searches in {summary['seconds']:.1f} s"]
    if summary["failed"]:
        lines.append(f"{summary['failed']} questions had a search that failed: counted as missed")
    if against := summary.get("against"):
        compared = against["compared"]
        lines += ["\nagainst the other place, on the same questions\n", comparison_text(compared)]
        name = next((n for n in compared if "gained" in compared[n]), "")
        for mark, key in (("+", "gained"), ("-", "lost")) if name else ():
            flipped = compared[name][key]
            lines.append(f"\n{name} {key}: {len(flipped)}")
            lines += [f"  {mark} {id_}  {questions.get(id_, '')}".rstrip() for id_ in flipped]
    return "\n".join(lines)


_STAGE_METRICS = ("em", "f1", "union_recall")


def folder_object(folder: Path) -> dict[str, Any]:
    """A run or an evaluation as plain values.

    Args:
        folder: The folder of the run or the evaluation.

    Raises:
        RunError: the folder is neither.
    """
    if (folder / METRICS_FILE).is_file():
        best = folder / BEST_FILE
        return {
            "run": str(folder),
            "finished": best.is_file(),
            "best": read_json(best, RunError, stage=str)["stage"] if best.is_file() else None,
            "stages": list(_stages(folder).values()),
        }
    if (folder / SUMMARY_FILE).is_file():
        return with_todays_names(read_json(folder / SUMMARY_FILE, RunError, n=int))
    if (folder / TRAJECTORIES_FILE).is_file():
        raise RunError(f"{folder}: not finished; run the same command again to go on")
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    raise RunError(f"{folder}: neither a run (metrics.jsonl) nor an evaluation (summary.json)")


def folder_text(folder: Path) -> str:
    """A run's stages as a table, or an evaluation's figures, as text for a person.

    Args:
        folder: The folder of the run or the evaluation.

    Raises:
        RunError: the folder is neither.
    """
    shown = folder_object(folder)
    try:
        if "stages" in shown:
            return _stages_text(folder, shown)
        return retrieval_text(shown, {}) if "searches" in shown else summary_text(shown)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        file = folder / (SUMMARY_FILE if "stages" not in shown else METRICS_FILE)
        raise RunError(f"{file}: altered, it holds other figures ({error!r})") from error


def _stages_text(folder: Path, shown: Mapping[str, Any]) -> str:
    labels = [f"{find_metric(name).label} %" for name in _STAGE_METRICS]
    heads = (
        "stage",
        "dev n",
        *labels,
        "gain %",
        "objective",
        "its gain",
        "held out",
        "ESS",
        "no signal",
    )
    rows = [(*heads, "train loss", "optimizer steps", "seconds")]
    rows += [_stage_row(stage) for stage in shown["stages"]]
    state = f"best: {shown['best']}" if shown["finished"] else "not finished"
    return f"{safe(folder.name)}: {state}\n{table(rows)}"


def _stages(folder: Path) -> dict[str, dict[str, Any]]:
    """The events of each stage, by its name; of the many `step` events only the last."""
    stages: dict[str, dict[str, Any]] = {}
    for event in read_jsonl(folder / METRICS_FILE, stage=str, event=str):
        time = event.get("time")
        stage = stages.setdefault(event["stage"], {"stage": event["stage"], "began": time})
        stage[event["event"]] = with_todays_names(
            {k: v for k, v in event.items() if k not in ("stage", "event", "time")}
        )
        stage["ended"] = time
    return stages


def _stage_row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a stage in the table of a run, a dash for what was not measured."""
    dev, e_step = stage.get("dev", {}), stage.get("e_step", {})
    m_step, step = stage.get("m_step", {}), stage.get("step", {})
    objective = stage.get("objective", {})
    rise = objective.get("gain") or {}
    done, of = step.get("step"), step.get("optimizer_steps", step.get("steps"))  # older: steps
    return (
        safe(stage["stage"]),
        str(dev.get("n", "-")),
        *(percent(dev, name) for name in _STAGE_METRICS),
        _difference(dev.get("gain")),
        _number(objective.get("mean"), objective.get("standard_error")),
        _number(rise.get("difference"), rise.get("standard_error"), sign="+"),
        f"{objective['held_out']}/{objective['questions']}" if "held_out" in objective else "-",
        _number(e_step.get("effective_sample_size")),
        _number(e_step.get("share_without_signal")),
        _number(step.get("loss")),
        "-" if done is None else f"{done}/{of}",
        _number(_seconds(dev, e_step, m_step), digits=0),
    )


def _seconds(*events: Mapping[str, Any]) -> float | None:
    names = ("seconds", "sampling_seconds", "scoring_seconds")
    found = [event[name] for event in events for name in names if event.get(name) is not None]
    return sum(found) if found else None


def _difference(found: Mapping[str, Any] | None) -> str:
    """A paired difference (`compare_values`) as a percentage with its 95 % interval."""
    if not found:
        return "-"
    low, high = found["ci95"]
    return f"{100 * found['difference']:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _number(
    value: float | None, error: float | None = None, *, digits: int = 2, sign: str = ""
) -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
