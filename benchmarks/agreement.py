"""Agreement: an engine and plain transformers must write the same tokens and give the same scores.

Greedy outputs are compared token for token. Where they part, the gap between the two tokens' logits
says whether it was a tie that rounding decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch

from benchmarks.baselines import PlainTransformers
from exsearch.engines.base import GREEDY, Request
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Call, CallKind, Trajectory


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where two greedy outputs part: which call, which position, the tokens, their logits' gap."""

    trajectory: str
    call: int
    position: int
    ours: int | None
    plain: int | None
    logit_gap: float | None  # of plain transformers: its own token's less ours


def greedy_differences(
    trajectories: Sequence[Trajectory],
    engine: Any,
    plain: PlainTransformers,
    method: SearcherMethod,
) -> tuple[int, list[Difference]]:
    """The calls compared, and the differences.

    Each distinct prompt of the trajectories is continued by both; turn after turn, as in a rollout.
    """
    seen: set[tuple[int, ...]] = set()
    found: list[Difference] = []
    for turn in range(max(len(t.calls) for t in trajectories)):
        asked: list[tuple[Trajectory, Request]] = []
        for t in trajectories:
            if turn < len(t.calls) and t.calls[turn].prompt_ids not in seen:
                call = t.calls[turn]
                seen.add(call.prompt_ids)
                asked.append((t, Request(call.prompt_ids, _limit(call, method))))
        requests = [request for _, request in asked]
        if not requests:
            continue
        ours = engine.generate(requests, GREEDY)
        theirs = plain.generate(requests, GREEDY)
        for (t, request), a, b in zip(asked, ours, theirs, strict=True):
            if a.output_ids != b.output_ids:
                found.append(_difference(t.id, turn, request, a.output_ids, b.output_ids, plain))
    return len(seen), found


def _limit(call: Call, method: SearcherMethod) -> int:
    """Output tokens that the call might have taken."""
    limits = {CallKind.SELECT: method.select_tokens, CallKind.RECORD: method.record_tokens}
    return limits.get(call.kind, method.thought_tokens)


def _difference(
    name: str,
    turn: int,
    request: Request,
    ours: tuple[int, ...],
    theirs: tuple[int, ...],
    plain: PlainTransformers,
) -> Difference:
    pairs = enumerate(zip_longest(ours, theirs))
    at, (a, b) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    if a is None or b is None:  # one ended where the other went on: no tie explains that
        return Difference(name, turn, at, a, b, None)
    logits = plain.logits_after((*request.prompt_ids, *ours[:at]))
    return Difference(name, turn, at, a, b, float(logits[b] - logits[a]))


def log_prob_gap(trajectories: Sequence[Trajectory], plain: PlainTransformers, calls: int) -> float:
    """The largest difference between kept log-probabilities and those of one plain pass each.

    Over `calls` calls, spread over all of them.
    """
    all_calls = [c for t in trajectories for c in t.calls]
    chosen = all_calls[:: max(1, len(all_calls) // calls)]
    return max(_gap(call, plain) for call in chosen)


@torch.inference_mode()
def _gap(call: Call, plain: PlainTransformers) -> float:
    ids = torch.tensor([(*call.prompt_ids, *call.output_ids)])
    count = len(call.output_ids)
    logits = plain.model(ids, use_cache=False, logits_to_keep=count + 1).logits[0, :-1]  # (N, V)
    log_probs = torch.log_softmax(logits.float(), -1).gather(-1, ids[0, -count:, None])[:, 0]
    return float((log_probs - torch.tensor(call.log_probs)).abs().max())
