"""The baselines are what one writes first with plain transformers: `AutoModelForCausalLM.generate`.

Same episodes, same prompts, same index as ours. Each call encodes its whole prompt, keeps its own
KV cache and throws it away. They keep no log-probabilities, so they do a little less than ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

from benchmarks.workload import Workload, call_key
from exsearch.agent.episode import Episode, begin
from exsearch.engines.base import ChatTokenizer, Generation, Request, Sampling
from exsearch.records import Call, Question, Trajectory
from exsearch.retrievers.base import Retriever


class PlainTransformers:
    """`generate` of transformers behind `Engine.generate`, in left-padded batches of like length.

    Args:
        folder: The model's folder.
        tokenizer: Of the same model.
        batch_size: Prompts in one call of `generate`; 1 needs no padding.
    """

    def __init__(self, folder: str, tokenizer: ChatTokenizer, batch_size: int):
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One generation a request, in their order, without log-probabilities."""
        done: dict[int, Generation] = {}
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            outputs = self._batch([requests[i] for i in batch], sampling)
            done.update(zip(batch, outputs, strict=True))
        return [done[i] for i in range(len(requests))]

    @torch.inference_mode()
    def _batch(self, requests: list[Request], sampling: Sampling) -> list[Generation]:
        width = max(len(r.prompt_ids) for r in requests)
        pad = self.tokenizer.end_id
        missing = [width - len(r.prompt_ids) for r in requests]
        rows = [[pad] * n + list(r.prompt_ids) for n, r in zip(missing, requests, strict=True)]
        mask = [[0] * n + [1] * (width - n) for n in missing]
        draw = sampling.temperature > 0
        own = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        forced = any(r.forced_ids for r in requests)
        ids = self.model.generate(
            input_ids=torch.tensor(rows),  # (B, T)
            attention_mask=torch.tensor(mask),
            max_new_tokens=max(r.max_tokens for r in requests),
            do_sample=draw,
            eos_token_id=self.tokenizer.end_id,
            pad_token_id=pad,
            logits_processor=LogitsProcessorList([_Forced(requests, width)] if forced else []),
            **(own if draw else {}),
        )[:, width:]
        return [
            self._generation(row, request)
            for row, request in zip(ids.tolist(), requests, strict=True)
        ]

    def _generation(self, ids: list[int], request: Request) -> Generation:
        end = self.tokenizer.end_id
        cut = ids[: ids.index(end) + 1] if end in ids else ids
        cut = cut[: request.max_tokens]
        return Generation(tuple(cut), (), (), "stop" if cut[-1] == end else "length")

    @torch.inference_mode()
    def logits_after(self, ids: Sequence[int]) -> torch.Tensor:
        """Logits (V,) after some tokens, from one pass over all of them."""
        return self.model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1]


class _Forced(LogitsProcessor):
    """Leaves each row no choice but its next forced id, while it has any."""

    def __init__(self, requests: Sequence[Request], width: int):
        self.forced = [r.forced_ids for r in requests]
        self.width = width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        position = input_ids.shape[1] - self.width
        for row, forced in enumerate(self.forced):
            if position < len(forced):
                scores[row] = float("-inf")
                scores[row, forced[position]] = 0.0
        return scores


def sequential(
    work: Workload, engine: Any, sampling: Sampling, retriever: Retriever
) -> list[Trajectory]:
    """One trajectory after the other, one call after the other."""
    return [
        trajectory
        for question in work.questions
        for sample in _samples(work, question)
        for trajectory in _drive(
            [begin(question, work.method, engine.tokenizer, sample=sample)],
            engine,
            sampling,
            retriever,
        )
    ]


def turn_by_turn(
    work: Workload, engine: Any, sampling: Sampling, retriever: Retriever
) -> list[Trajectory]:
    """All trajectories side by side; none begins its next call before all have done this one."""
    episodes = [
        begin(question, work.method, engine.tokenizer, sample=sample)
        for question in work.questions
        for sample in _samples(work, question)
    ]
    return _drive(episodes, engine, sampling, retriever)


def _samples(work: Workload, question: Question) -> list[int]:
    return [t.sample for t in work.trajectories if t.question.id == question.id]


def _drive(
    episodes: list[Episode], engine: Any, sampling: Sampling, retriever: Retriever
) -> list[Trajectory]:
    while live := [e for e in episodes if e.stop_reason is None]:
        asking = [(e, e.ask) for e in live if e.ask]
        requests = [
            Request(e.prompt_ids(), ask.max_tokens, call_key(e.question.id, e.sample, len(e.calls)))
            for e, ask in asking
        ]
        replies = engine.generate(requests, sampling)
        for (e, ask), request, reply in zip(asking, requests, replies, strict=True):
            call = Call(ask.kind, request.prompt_ids, reply.output_ids)
            e.take(call, finished=reply.finish_reason == "stop")
        looking = [(e, e.look) for e in live if e.look]
        if looking:
            found = retriever.search([look.query for _, look in looking], looking[0][1].k)
            for (e, _), passages in zip(looking, found, strict=True):
                e.found(passages)
    return [e.trajectory() for e in episodes]
