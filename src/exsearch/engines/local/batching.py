"""Continuous batching: every pass writes one token for all live rows and encodes waiting prompts.

A row that ends is refilled at once, and each prompt token is encoded once: what a new prompt shares
with an earlier one, or with another of the same pass, is taken from the cache while that has it.
What a request samples depends on its own key and position alone. It trains nothing.

Glossary:
    pass    One call of the model, over new tokens of many sequences.
    row     One of the sequences that are written side by side, by its number in the cache.
    place   Where the cache's pool holds the key and the value of one token.
    span    The new tokens of one prompt in a pass, with the places of the whole prompt.
    ticket  The number of a request, from `submit` to its reply.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exsearch.engines.base import Generation, Request, Sampling
from exsearch.engines.local.cache import KeyValueCache
from exsearch.engines.local.sampling import sample
from exsearch.errors import EngineError
from exsearch.models.attention import packed_logits
from exsearch.models.prefixes import Span


@dataclasses.dataclass
class _Row:
    """One sequence while it is being written.

    Attributes:
        ticket: The ticket of its request.
        request: The prompt to continue.
        sampling: The distribution that its tokens are drawn from.
        ids: The tokens written so far.
        log_p: log p of each of them.
        log_q: log q of each of them.
    """

    ticket: int
    request: Request
    sampling: Sampling
    ids: list[int] = dataclasses.field(default_factory=list)
    log_p: list[float] = dataclasses.field(default_factory=list)
    log_q: list[float] = dataclasses.field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens whose keys and values are known: all but the one written last."""
        return len(self.request.prompt_ids) + len(self.ids) - 1


class ContinuousBatch:
    """A `Session` over a transformers model.

    Args:
        model: A causal language model for which `check_packable` holds.
        cache: An empty cache; afterwards it holds what was encoded and written.
        stop_ids: The ids that end a sequence.
        token_budget: The most prompt tokens encoded in one pass; a prompt with more has a pass of
            its own.
        check: A function that raises EngineError where a sequence of so many tokens can't be run.
        count: A function that is called after each pass with the numbers of prompt tokens and of
            written tokens that went through the model.
    """

    def __init__(
        self,
        model: Any,
        cache: KeyValueCache,
        stop_ids: Collection[int],
        token_budget: int,
        check: Callable[[int], None],
        count: Callable[[int, int], None],
    ):
        self.model, self.cache, self.token_budget = model, cache, token_budget
        self.stop_ids = np.array(sorted(stop_ids), np.int64)
        self._check, self._count = check, count
        self._waiting: deque[_Row] = deque()
        self._rows: dict[int, _Row] = {}  # the live rows, by their number in the cache
        self._refused: list[tuple[int, EngineError]] = []
        self._tickets = 0

    def submit(self, request: Request, sampling: Sampling) -> int:
        """Hand in a request and return its ticket (`Session.submit`); it waits for a row.

        Raises:
            ValueError: the prompt is empty.
        """
        if not request.prompt_ids:
            raise ValueError("an empty prompt: there is nothing to go on from")
        self._tickets += 1
        try:
            self._check(len(request.prompt_ids) + request.max_tokens)
            self._waiting.append(_Row(self._tickets, request, sampling))
        except EngineError as error:
            self._refused.append((self._tickets, error))
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Take the request with this ticket back, and free its row."""
        self._waiting = deque(row for row in self._waiting if row.ticket != ticket)
        self._refused = [(number, error) for number, error in self._refused if number != ticket]
        self._rows = {n: row for n, row in self._rows.items() if row.ticket != ticket}

    def written(self, ticket: int) -> Sequence[int]:
        """The ids written so far for a ticket; empty where it has no row yet."""
        return next((row.ids for row in self._rows.values() if row.ticket == ticket), ())

    @property
    def busy(self) -> bool:
        """True while a request has no reply."""
        return bool(self._waiting or self._refused or self._rows)

    def step(self) -> list[tuple[int, Generation | EngineError]]:
        """Run one pass: a token for each row that writes, and the prompts that fit beside them.

        Returns:
            The tickets and replies of the requests that ended, or that the check has refused.

        Raises:
            EngineError: the model's scores are not finite.
        """
        done: list[tuple[int, Generation | EngineError]] = list(self._refused)
        self._refused = []
        self.cache.tree.tick()
        self._close_gaps()
        writing = sorted(self._rows)
        admitted = self._admit()
        numbers = [*writing, *(number for number, _ in admitted)]
        if not numbers:
            return done
        logits = self._run(writing, admitted)
        self._draw([self._rows[number] for number in numbers], logits)
        for number in numbers:
            row = self._rows[number]
            stopped = row.ids[-1] in self.stop_ids
            if stopped or len(row.ids) >= row.request.max_tokens:
                done.append((row.ticket, _generation(row, stopped)))
                self._keep(number, row)
                del self._rows[number]
        return done

    def _close_gaps(self) -> None:
        """Move the highest rows down where many below them are empty: attention covers all."""
        live = sorted(self._rows)
        spare = len(self._waiting)  # these gaps are filled in the same step
        if not live or live[-1] + 1 <= 1.25 * (len(live) + spare) + 2:
            return
        for target in range(len(live)):
            if target not in self._rows:
                source = live.pop()
                self._rows[target] = self._rows.pop(source)
                self.cache.move(source, target, self._rows[target].length)

    def _admit(self) -> list[tuple[int, _Prompt]]:
        """Give waiting requests a row and places for their new tokens; returns the new rows."""
        admitted: list[tuple[int, _Prompt]] = []
        new, state_of = 0, {}  # place -> token of this pass, whose state is therefore at hand
        free = [n for n in range(self.cache.row_count) if n not in self._rows]
        while self._waiting and len(admitted) < len(free):
            row = self._waiting[0]
            ids = row.request.prompt_ids
            found = self.cache.tree.find(ids)
            if new and new + len(ids) - len(found) > self.token_budget:
                break
            if len(found) == len(ids) and found[-1] not in state_of:
                found = found[:-1]  # known, but its last state is not: once more, beside the tree
                places = self.cache.take(1)
                prompt = _Prompt(new, np.concatenate([found, places]), 1, places)
            else:
                places = self.cache.take(len(ids) - len(found))
                all_places = np.concatenate([found, places])
                self.cache.tree.add(ids, all_places)
                prompt = _Prompt(new, all_places, len(places))
                state_of.update(zip(places.tolist(), range(new, new + len(places)), strict=True))
            prompt.state = state_of.get(int(prompt.all_places[-1]), new)
            new += prompt.new
            self.cache.widen(len(ids) + row.request.max_tokens)
            number = free[len(admitted)]
            self._rows[number] = self._waiting.popleft()
            admitted.append((number, prompt))
        return admitted

    def _run(self, writing: list[int], admitted: list[tuple[int, _Prompt]]) -> Tensor:
        """Run a pass and return the logits (B, V) of the writing rows, then the admitted ones."""
        live = [self._rows[n] for n in writing]
        lengths = np.array([row.length for row in live], np.int64)
        ids = [row.ids[-1] for row in live]
        positions = [lengths]
        states = list(range(len(live)))
        spans: list[Span] = []
        for number, prompt in admitted:
            length = len(prompt.all_places)
            ids += self._rows[number].request.prompt_ids[length - prompt.new :]
            positions.append(np.arange(length - prompt.new, length))
            states.append(len(live) + prompt.state)
            spans.append(Span(prompt.start, prompt.new, prompt.all_places))
        owners = [number for number, _ in admitted]
        self.cache.begin(np.array(writing, np.int64), lengths, spans, owners)
        device = self.cache.device
        logits = packed_logits(
            self.model,
            torch.tensor(ids, device=device),
            torch.from_numpy(np.concatenate(positions)).to(device),
            self.cache,
            torch.tensor(states, device=device),
        )
        for _, prompt in admitted:
            self.cache.tree.give_back(prompt.spare)
        self._count(len(ids) - len(live), len(live))
        return logits

    def _draw(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """Append a token to each of these rows, from its logits, (B, V)."""
        for sampling in dict.fromkeys(row.sampling for row in rows):
            members = [i for i, row in enumerate(rows) if row.sampling == sampling]
            chosen = [rows[i] for i in members]
            part = logits if len(chosen) == len(rows) else logits[members]
            drawn = sample(
                part,
                np.array([row.request.key for row in chosen], np.uint64),
                np.array([len(row.ids) for row in chosen], np.uint64),
                sampling,
                _forced(chosen),
            )
            for row, token, p, q in zip(chosen, *(d.tolist() for d in drawn), strict=True):
                row.ids.append(token)
                row.log_p.append(p)
                row.log_q.append(q)

    def _keep(self, number: int, row: _Row) -> None:
        """Add what a row wrote to the pool: a transcript goes on from it, scoring looks it up."""
        ids = (*row.request.prompt_ids, *row.ids[:-1])
        found = self.cache.tree.find(ids)
        places = self.cache.take(len(ids) - len(found))
        self.cache.keep(number, len(found), places)
        self.cache.tree.add(ids, np.concatenate([found, places]))


@dataclasses.dataclass
class _Prompt:
    """A prompt in a pass.

    Attributes:
        start: The prompt's first new token, counted in the prompt tokens of the pass.
        all_places: The places of the whole prompt, (L,).
        new: How many of its tokens, the last ones, are new in this pass.
        spare: Places of tokens that are not kept, free again after the pass.
        state: The token after which the first output is drawn, counted like `start`.
    """

    start: int
    all_places: np.ndarray
    new: int
    spare: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    state: int = 0


def _forced(rows: Sequence[_Row]) -> np.ndarray | None:
    """The ids that requests prescribe, (B,), -1 where one is drawn; None where all are drawn."""
    at = [(row.request.forced_ids, len(row.ids)) for row in rows]
    values = np.array([ids[n] if n < len(ids) else -1 for ids, n in at], np.int64)
    return None if (values < 0).all() else values


def _generation(row: _Row, stopped: bool) -> Generation:
    return Generation(
        tuple(row.ids), tuple(row.log_p), tuple(row.log_q), "stop" if stopped else "length"
    )
