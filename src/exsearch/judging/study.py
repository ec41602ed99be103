"""A study is a file of judgements with the items that they are of.

The file is JSON lines: the first says what is judged, each other is one judgement. It only grows,
by whole lines that are on the disk, and the last that a judge said of an item counts.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from exsearch.diagnosis import parts as kinds
from exsearch.diagnosis.parts import Part, read_parts
from exsearch.errors import ConfigError, DataError, RunError
from exsearch.evaluation.metrics import exact_match, f1
from exsearch.json_files import check_shape
from exsearch.judging.items import Item, Use, in_order, items_of, sampled
from exsearch.records import Trajectory
from exsearch.runs import append_jsonl, make_folder, read_jsonl, sha256_file
from exsearch.terminal import safe

FORM = 1  # of the file
MAX_NAME = 64


class Verdict(StrEnum):
    """What a judge may say."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"  # counts neither way


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What one judge said of one item.

    Attributes:
        judge: The judge's name.
        item: The item's id.
        verdict: What was said.
        at: When, in UTC.
    """

    judge: str
    item: str
    verdict: Verdict
    at: str


class Study:
    """The items of some places, and the judgements of them in a file.

    Args:
        file: The file of judgements, which the first judgement begins where it is missing.
        places: The folders of runs and evaluations, or files of trajectories. Of a run its stages'
            dev answers are judged. None takes those that the file names.
        sample: How many trajectories of each part are judged; None takes the number in the file,
            and in a new one all.
        seed: Decides which these are and the order of the items; None takes the file's.

    Attributes:
        file: The file of judgements.
        parts: What is judged.
        items: The items by their ids, in the order in which they are judged.
        uses: Where each item stands, by its id.
        seed: Decides the sample and the order.

    Raises:
        ConfigError: a new file without places, or other settings than those of the file.
        RunError: the file is damaged, a place is no run or evaluation, or one has changed since it
            was first judged.
        DataError: nothing to judge, or a damaged file of trajectories.
    """

    def __init__(
        self,
        file: Path,
        places: Sequence[Path] = (),
        *,
        sample: int | None = None,
        seed: int | None = None,
    ):
        self.file = file
        head = _head(file)
        if head is None and not places:
            raise ConfigError(f"{file}: no such file; name the runs or evaluations to judge")
        places = places or [Path(part["place"]) for part in (head or {})["parts"]]
        read = [part for place in dict.fromkeys(places) for part in read_parts(place)]
        self.parts = [part for part in read if part.kind is not kinds.Kind.SAMPLED]
        if not self.parts:
            raise DataError("no answer to judge: it has no dev answers", file=places[0])
        own = {"form": FORM, "seed": seed or 0, "sample": sample, "parts": _named(self.parts)}
        if head is not None:
            _check_same(file, head, own, sample, seed)
            own = head
        self.seed: int = own["seed"]
        self.uses: dict[str, list[Use]] = {}
        items: dict[str, Item] = {}
        for part in self.parts:
            for trajectory in sampled(part, own["sample"], self.seed):
                for item, step in items_of(trajectory):
                    items[item.id] = item
                    self.uses.setdefault(item.id, []).append(Use(part, trajectory, step))
        self.items = {item.id: item for item in in_order([*items.values()], self.seed)}
        self._new = None if head is not None else own

    def judgements(self) -> list[Judgement]:
        """What counts: the last that each judge said of each item.

        Raises:
            RunError: the file is damaged.
        """
        found: dict[tuple[str, str], Judgement] = {}
        for number, line in enumerate(read_jsonl(self.file), start=1):
            if number == 1:
                continue
            try:
                values = check_shape(line, {"judge": str, "item": str, "verdict": str, "at": str})
                verdict = Verdict(values["verdict"])
                self.items[values["item"]]
            except (ValueError, KeyError) as error:
                place = f"{self.file}:{number}"
                raise RunError(f"{place}: damaged ({error}); put the file back as it was") from None
            judge, item = values["judge"], values["item"]
            found[judge, item] = Judgement(judge, item, verdict, values["at"])
        return [*found.values()]

    def add(self, judge: str, item: str, verdict: Verdict) -> None:
        """Keep a judgement; it is on the disk once this returns.

        Raises:
            ValueError: a name that is none, or no such item.
        """
        if item not in self.items:
            raise ValueError("no such item is judged here")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lines = [dataclasses.asdict(Judgement(checked_name(judge), item, verdict, now))]
        if self._new is not None:
            make_folder(self.file.absolute().parent)
            lines.insert(0, self._new)
        append_jsonl(self.file, map(json.dumps, lines))
        self._new = None

    def exported(self) -> Iterator[dict[str, Any]]:
        """Each judgement with its item, and the names and ids of where that stands."""
        for judgement in self.judgements():
            item = self.items[judgement.item]
            yield {
                **dataclasses.asdict(judgement),
                "kind": item.kind.value,
                **item.content,
                "uses": [
                    {
                        **_name(use.part),
                        "question_id": use.trajectory.question.id,
                        "trajectory": use.trajectory.id,
                        "step": use.step,
                        **metrics_of(use.trajectory),
                    }
                    for use in self.uses[item.id]
                ],
            }


def checked_name(judge: str) -> str:
    """The name of a judge, without blanks around it.

    Raises:
        ValueError: it is empty, too long, or has signs that can't be seen.
    """
    name = judge.strip()
    if not name or len(name) > MAX_NAME or safe(name) != name:
        raise ValueError(f"a judge's name has 1 to {MAX_NAME} signs that can be seen, on one line")
    return name


def metrics_of(trajectory: Trajectory) -> dict[str, float]:
    """EM and F1 of an answer; nothing where no accepted answer is known."""
    answers = trajectory.question.answers
    if not trajectory.question.distinct_answers:
        return {}
    answer = trajectory.answer
    return {"em": exact_match(answer, answers), "f1": f1(answer, answers)}


def _head(file: Path) -> dict[str, Any] | None:
    """What a file says that it judges; None where there is no file, or nothing in it."""
    for line in read_jsonl(file):
        try:
            head = check_shape(line, {"form": int, "seed": int, "parts": list})
            for part in head["parts"]:
                check_shape(part, {"place": str, "stage": str, "method": str, "sha256": str})
            if head["form"] != FORM:
                raise ValueError(f"form {head['form']}, of another version")
            if not isinstance(head.get("sample"), int | None):
                raise ValueError("its 'sample' is no number")
        except ValueError as error:
            said = f"{file}: no file of judgements ({error}); name another one"
            raise RunError(said) from None
        return head
    return None


def _check_same(
    file: Path, head: dict[str, Any], own: dict[str, Any], sample: int | None, seed: int | None
) -> None:
    """Make sure that a file is gone on with as it was begun."""
    for name, value in (("sample", sample), ("seed", seed)):
        if value not in (None, head[name]):
            raise ConfigError(
                f"{file}: was begun with {name} {head[name]}; leave out --{name}, or name another "
                "file with --judgements"
            )
    signs = [[_sign(part) for part in each["parts"]] for each in (head, own)]
    if signs[0] != signs[1]:
        raise RunError(
            f"{file}: judges other trajectories: a run has changed since, or others were named; "
            "put them back, or name another file with --judgements"
        )


def _sign(part: dict[str, str]) -> tuple[str, ...]:
    return part["stage"], part["method"], part["sha256"]


def _named(parts: Sequence[Part]) -> list[dict[str, str]]:
    hashes = {file: sha256_file(file) for file in {part.file for part in parts}}
    return [{**_name(part), "sha256": hashes[part.file]} for part in parts]


def _name(part: Part) -> dict[str, str]:
    return {"place": str(part.place), "stage": part.stage, "method": part.method}
