"""Compare all places on the questions of four data sets: the table of docs/retrieval.md.

    python -m benchmarks.places --data DIR --work DIR [--reranker MODEL]... [--json]
    python -m benchmarks.places --data DIR --work DIR --limit 20      # a trial of minutes

DIR of `--data` holds hotpotqa, nq, musique and 2wikimultihopqa, each with corpus.jsonl.gz and
dev|test.jsonl.gz. One index of all four corpora stands behind every place; ids that clash get the
data set before them. Of each family the variant with all support in the first 5 for most dev
questions is searched with the test questions, once. Train is not read.

`--work` keeps indexes in `indexes/<variant>` and a result in `results/<variant>.json`, so that a
run that was stopped goes on, and an index that stands there is taken as it is, without a time of
building unless this command built it. Every place is built, and searched, in a process of its own:
the seconds of its first answer count from its start, imports included; memory is the most that this
process held, mapped pages that it touched included, and of a server's place the client's alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.place_kinds import Variant, variants
from benchmarks.report import launch, parser
from benchmarks.retrieval import _peak_mb, fresh
from exsearch.config import user_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.evaluation.retrieval import Asked, compare, judge
from exsearch.evaluation.significance import mean_figures
from exsearch.records import Passage, Question
from exsearch.retrievers import open_retriever
from exsearch.runs import write_atomic

ENDING = "jsonl.gz"
SETS = ("hotpotqa", "nq", "musique", "2wikimultihopqa")
TEST, ANSWERED = 300, 300  # questions of a test part: with supporting passages, and all
KS = (5, 20)
BATCH = 32  # queries a call of `search`
CHOSEN_BY = "all_support@5"
SHOWN = ("recall@5", "recall@20", "all_support@5", "all_support@20", "mrr@20", "answer_recall@20")


class Data:
    """The passages and questions of the four data sets.

    Args:
        folder: The folder with the data sets.
        limit: The most questions of a part; 0 takes all that are asked for.
    """

    def __init__(self, folder: Path, limit: int = 0):
        self.folder, self.limit = folder, limit

    def passages(self) -> Iterator[Passage]:
        """The passages of all, with distinct ids."""
        clashing = self._clashing()
        for name in SETS:
            for p in read_corpus([self.folder / name / f"corpus.{ENDING}"]):
                yield Passage(_own(p.id, name, clashing), p.title, p.text)

    def questions(self, part: str, *, supporting: bool) -> list[Question]:
        """The questions of a part of every data set, with ids of the data set.

        Args:
            part: `dev` or `test`.
            supporting: True takes those that name their support, False any that have an answer.
        """
        clashing, chosen = self._clashing(), []
        for name in SETS:
            found = load_questions(self.folder / name / f"{part}.{ENDING}")
            own = [q for q in found if (q.supporting if supporting else q.distinct_answers)]
            most = self.limit or (TEST if supporting else ANSWERED)
            for q in own if part == "dev" and not self.limit else own[:most]:
                support = tuple(_own(id_, name, clashing) for id_ in q.supporting)
                chosen.append(Question(f"{name}/{q.id}", q.question, q.answers, support, (), name))
        return chosen

    def _clashing(self) -> set[str]:
        if not hasattr(self, "_found"):
            seen: set[str] = set()
            self._found: set[str] = set()
            for name in SETS:
                ids = {p.id for p in read_corpus([self.folder / name / f"corpus.{ENDING}"])}
                self._found |= seen & ids
                seen |= ids
        return self._found


def _own(id_: str, name: str, clashing: set[str]) -> str:
    return f"{name}/{id_}" if id_ in clashing else id_


def build(name: str, rerankers: list[str], data: Data, indexes: Path) -> dict[str, float]:
    """Build a variant; seconds and peak memory."""
    start = time.perf_counter()
    variants(rerankers)[name].build(data.passages, indexes)
    return {"build_s": time.perf_counter() - start, "build_peak_mb": _peak_mb()}


def search(place: str, data: Data, part: str) -> dict[str, Any]:
    """Open a place and search it for the questions of a part; rows and figures of speed."""
    start = time.perf_counter()
    retriever = open_retriever(place, cache=0)
    retriever.search(["Who wrote the play about Peter Pan?"], KS[-1])
    opened = time.perf_counter() - start
    judged = data.questions(part, supporting=True)
    asked = {q.id: q for q in judged}
    if part == "test":
        asked |= {q.id: q for q in data.questions(part, supporting=False)}
    questions = list(asked.values())
    found: list[list[Passage]] = []
    begun = time.perf_counter()
    for at in range(0, len(questions), BATCH):
        texts = [q.question for q in questions[at : at + BATCH]]
        found += retriever.search(texts, KS[-1])
    seconds = time.perf_counter() - begun
    peak = _peak_mb()
    figures = judge([Asked(q) for q in questions], [[[f]] for f in found], KS)
    answered = {q.id for q in data.questions(part, supporting=False)}
    supported = {q.id for q in judged}
    rows = []
    for q, values in zip(questions, figures, strict=True):
        of_answers = {n: v for n, v in values.items() if n.startswith("answer")}
        of_support = {n: v for n, v in values.items() if not n.startswith("answer")}
        kept = {**(of_support if q.id in supported else dict.fromkeys(of_support))}
        kept |= of_answers if q.id in answered else dict.fromkeys(of_answers)
        rows.append({"id": q.id, "dataset": q.dataset, "values": kept})
    speed = {"open_s": opened, "queries_per_s": len(questions) / seconds, "peak_mb": peak}
    return {"identity": retriever.identity(), "rows": rows, **speed}


def measure(variant: Variant, part: str, args: Any, data: Data) -> dict[str, Any]:
    """What `build` and `search` give for a variant, from a file where it was measured before."""
    indexes, file = args.work / "indexes", args.work / "results" / f"{variant.name}.{part}.json"
    built_file = args.work / "results" / f"{variant.name}.build.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    indexes.mkdir(parents=True, exist_ok=True)
    asked = [data.questions(part, supporting=s) for s in (True, False)]
    content = json.dumps([[q.id, q.question] for each in asked for q in each])
    questions = hashlib.sha256(content.encode()).hexdigest()
    if not variant.is_built(indexes) and not built_file.exists():
        print(f"{variant.name}: building", flush=True)
        figures = fresh(build, variant.name, args.rerankers, data, indexes)
        write_atomic(built_file, json.dumps(figures))
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if before["questions"] == questions:
            return before
    print(f"{variant.name}: searching for {part}", flush=True)
    with variant.place(indexes) as place:
        result = {**fresh(search, place, data, part), "questions": questions}
    folder = indexes / variant.name
    files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    result["size_mb"] = sum(p.stat().st_size for p in files) / 1e6 or None
    if built_file.exists():
        result |= json.loads(built_file.read_text(encoding="utf-8"))
    write_atomic(file, json.dumps(result))
    return result


def means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over the questions that it speaks of, with intervals."""
    names = list(rows[0]["values"])
    return mean_figures({name: [row["values"][name] for row in rows] for name in names})


def choose(found: dict[str, dict[str, Any]], known: dict[str, Variant]) -> dict[str, str]:
    """The variant of each family that is best on dev; of equal ones the first."""
    chosen: dict[str, str] = {}
    value = {name: means(result["rows"])[CHOSEN_BY] for name, result in found.items()}
    for name in found:
        family = known[name].family
        if family not in chosen or value[name] > value[chosen[family]]:
            chosen[family] = name
    return chosen


def tables(dev: dict[str, Any], test: dict[str, Any], chosen: dict[str, str]) -> list[str]:
    """Markdown: figures on test with intervals, cost, the data sets apart, the choices on dev."""
    base = test.get("bm25")
    heads = [
        "place",
        *(f"{name} %" for name in SHOWN),
        f"{CHOSEN_BY} over BM25",
        "p",
        "better, worse",
    ]
    rows, costs, apart = [], [], []
    for family, name in chosen.items():
        result = test[name]
        figures = means(result["rows"])
        cells = [_percent(figures, each) for each in SHOWN]
        differs = ["", "", ""]
        if base and name != "bm25":
            one = compare(result["rows"], base["rows"])[CHOSEN_BY]
            low, high = one["ci95"]
            gain = f"{100 * one['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            differs = [gain, f"{one['p']:.4f}", f"{one['better']}, {one['worse']}"]
        rows.append([family, *cells, *differs])
        names = ("queries_per_s", "build_s", "size_mb", "build_peak_mb", "peak_mb", "open_s")
        costs.append([family, *(_number(result.get(each)) for each in names)])
        sets = [[r for r in result["rows"] if r["dataset"] == name] for name in SETS]
        each = [means(own) for own in sets]
        apart.append([family, *(_percent(f, CHOSEN_BY) for f in each)])
    cost_heads = ["place", "queries/s", "build s", "size MB", "building, MB", "searching, MB"]
    lines = [*_markdown(heads, rows), "", *_markdown([*cost_heads, "first answer s"], costs)]
    lines += ["", f"{CHOSEN_BY} % of each data set:", ""]
    lines += _markdown(["place", *SETS], apart)
    lines += ["", f"On dev ({CHOSEN_BY} %), by which a variant of a family was chosen:", ""]
    taken = set(chosen.values())
    choices = [
        [name, _percent(means(result["rows"]), CHOSEN_BY), "yes" if name in taken else ""]
        for name, result in dev.items()
    ]
    return lines + _markdown(["variant", "dev", "taken"], choices)


def _percent(figures: dict[str, Any], name: str) -> str:
    if figures.get(name) is None:
        return "-"
    low, high = figures["ci95"][name]
    return f"{100 * figures[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]


def main() -> None:
    """Measure all places and print the tables."""
    options = parser(__doc__)
    options.add_argument("--data", type=user_path, required=True, help="folder of the data sets")
    options.add_argument("--work", type=user_path, required=True, help="folder for what is made")
    options.add_argument("--reranker", dest="rerankers", action="append", default=[])
    options.add_argument("--only", action="append", help="a variant; may be repeated")
    options.add_argument("--limit", type=int, default=0, help="questions of a part, for a trial")
    args = options.parse_args()
    data = Data(args.data, args.limit)
    known = variants(args.rerankers)
    dev, left_out = {}, []
    for name, variant in known.items():
        absent = [need for need in variant.after if need not in dev]
        why = variant.missing() or (f"{', '.join(absent)} left out" if absent else "")
        if why or (args.only and name not in args.only):
            left_out.append(f"{name}: left out ({why or 'not asked for'})")
            continue
        dev[name] = measure(variant, "dev", args, data)
    chosen = choose(dev, known)
    test = {name: measure(known[name], "test", args, data) for name in chosen.values()}
    lines = tables(dev, test, chosen)
    counts = {"dev": next(iter(dev.values())), "test": next(iter(test.values()))}
    counts = {part: len(result["rows"]) for part, result in counts.items()}
    from benchmarks.machine import facts

    machine = facts()
    print("\n" + "\n".join([*lines, "", *left_out, "", f"Searches: {counts}", str(machine)]))
    if args.json:
        print(json.dumps({"machine": machine, "chosen": chosen, "dev": dev, "test": test}))


if __name__ == "__main__":
    launch(main)
