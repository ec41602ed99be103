"""A runner runs episodes side by side: calls share the engine's passes, and searches a batch.

Episodes come at any time (`add`), go on together (`step`) and can be taken back (`cancel`). A bad
generation or a failed search ends its own episode and leaves the others alone. A runner belongs to
one thread; it neither weighs nor trains.

Glossary:
    episode  One trajectory under way. A runner gives each a number of its own.
    ticket   The number that the engine's session gives a request while the request is under way.
    row      One of the sequences that an engine writes side by side; `Engine.rows` of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from exsearch.agent.episode import Episode
from exsearch.agent.events import Event, EventKind, OnEvent
from exsearch.engines.base import (
    Engine,
    Generation,
    Request,
    Sampling,
    TooLongError,
    random_key,
)
from exsearch.errors import EngineError, RetrieverError
from exsearch.records import Call, StopReason, Trajectory
from exsearch.retrievers.base import Retriever
from exsearch.retrievers.guarded import Found, guarded


@dataclasses.dataclass(eq=False)
class _Entry:
    """An episode in the runner's hands, and where it stands.

    Attributes:
        number: The number that `add` gave.
        episode: The episode itself.
        sampling: The distribution that its tokens are drawn from.
        added: When it was added, in seconds of `time.perf_counter`.
        ticket: The call under way in the engine's session; None where none is.
        prompt_ids: The prompt of the call under way, as it will be recorded.
        hinted: Whether the call under way sees more than its recorded prompt.
        written: How many tokens of the call under way events have told of.
        steps: How many finished steps events have told of.
    """

    number: int
    episode: Episode
    sampling: Sampling
    added: float
    ticket: int | None = None
    prompt_ids: tuple[int, ...] = ()
    hinted: bool = False
    written: int = 0
    steps: int = 0


class Runner:
    """Runs episodes over one engine and one retriever; leave it with `close`, or as a context.

    A search runs beside one pass of the engine and is waited for after that pass. So it never
    depends on who was faster which sequences share a batch, nor do the last bits of their floats.

    Args:
        engine: The engine that writes the tokens. It may do other work between two steps, but must
            not open another session.
        retriever: The retriever that answers the queries, in batches, on a thread beside. Whatever
            it does wrong fails the episode of that query alone (`retrievers.guarded`).
        sampling: The distribution of tokens, where `add` names none; by default the model's own.
        seed: Decides all randomness, with `iteration`, the question's id and the sample's number.
        iteration: The number of the iteration that samples, from 1; 0 outside of training. It is
            kept in the trajectories.
        retry_malformed: Sample a malformed generation once more. Never in an E-step: a retry
            changes the proposal, and the weights would no longer be right.
        on_event: A function that is called with each event, from within `step` and `cancel`. It
            must not call the runner. It may be replaced between two steps.
    """

    def __init__(
        self,
        engine: Engine,
        retriever: Retriever,
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        iteration: int = 0,
        retry_malformed: bool = False,
        on_event: OnEvent | None = None,
    ):
        self._engine, self._session = engine, engine.open()
        self._retriever = guarded(retriever)
        self._searching: tuple[Callable[[], list[Found]], list[_Entry]] | None = None
        self._sampling = sampling or Sampling()
        self._stream, self._iteration = (seed, iteration), iteration
        self._retry_malformed, self.on_event = retry_malformed, on_event
        # A clock that is set back during the work sets no event back.
        self._numbers, self._epoch = itertools.count(), time.time() - time.perf_counter()
        self._waiting: dict[int, _Entry] = {}
        self._open: dict[int, _Entry] = {}
        self._asked: dict[int, _Entry] = {}  # the calls under way, by ticket
        self._to_search: list[_Entry] = []

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take back what is under way, and let go of the retriever."""
        self.on_event = None
        for number in [*self._waiting, *self._open]:
            self.cancel(number)
        self._retriever.close()

    def __len__(self) -> int:
        """Episodes that were added and have neither ended nor been cancelled."""
        return len(self._waiting) + len(self._open)

    def add(self, episode: Episode, sampling: Sampling | None = None) -> int:
        """Take in an episode at its first move and return its number.

        The episode waits until a `step` finds a free row: only as many are open as the engine can
        write, so that more of their prefixes stay in its cache.

        Args:
            episode: The episode, as `begin` made it.
            sampling: The distribution of its tokens; by default the runner's.
        """
        entry = _Entry(
            next(self._numbers), episode, sampling or self._sampling, time.perf_counter()
        )
        self._waiting[entry.number] = entry
        return entry.number

    def cancel(self, number: int) -> bool:
        """Take an episode back; returns false where it has ended already.

        The engine is free of it at once, the search thread after the next step at the latest.

        Args:
            number: The number that `add` returned.
        """
        entry = self._waiting.pop(number, None) or self._open.pop(number, None)
        if entry is None:
            return False
        if entry.ticket is not None:
            self._session.cancel(entry.ticket)
            del self._asked[entry.ticket]
        if entry in self._to_search:
            self._to_search.remove(entry)
        entry.episode.close()
        self._tell(entry, EventKind.END, text="cancelled")
        return True

    def step(self) -> dict[int, Trajectory]:
        """Go on by one pass of the engine.

        Returns:
            The trajectories that ended, by the numbers of their episodes.

        Raises:
            EngineError: the engine could not be run, for any episode; the runner is over then.
            ModelServerError: the model's server can't be used at all; the runner is over then.
        """
        room = max(0, self._engine.rows - len(self._open))
        for number in list(itertools.islice(self._waiting, room)):
            self._open[number] = self._waiting.pop(number)
            self._go_on(self._open[number])
        if not self._open:
            return {}
        self._write()
        self._search()
        ended = [e for e in self._open.values() if e.episode.stop_reason is not None]
        return {entry.number: self._end(entry) for entry in ended}

    def _go_on(self, entry: _Entry) -> None:
        """Hand in the episode's next move, unless it has ended."""
        episode = entry.episode
        for step in episode.steps[entry.steps :]:
            entry.steps += 1
            self._tell(entry, EventKind.EVIDENCE, step=step)
        if episode.stop_reason is not None:
            return
        if episode.look is not None:
            self._to_search.append(entry)
            self._tell(entry, EventKind.SEARCH, text=episode.look.query)
            return
        assert episode.ask is not None
        entry.prompt_ids, entry.written = episode.prompt_ids(), 0
        entry.hinted = bool(episode.ask.hint)
        seen = episode.prompt_ids(hinted=True) if entry.hinted else entry.prompt_ids
        place = (episode.question.id, episode.sample, len(episode.calls), episode.retries)
        request = Request(seen, episode.ask.max_tokens, random_key(*self._stream, *place))
        # A retry is drawn at temperature 1: a greedy one would be the same again.
        sampling = Sampling() if episode.retrying else entry.sampling
        entry.ticket = self._session.submit(request, sampling)
        self._asked[entry.ticket] = entry
        self._tell(entry, EventKind.BEGUN)

    def _write(self) -> None:
        """Run one pass of the engine and take in the replies that it completed."""
        if not self._session.busy:
            return
        replies = self._session.step()
        if self.on_event and self._engine.streams:
            for ticket, entry in self._asked.items():
                ids = self._session.written(ticket)
                if len(ids) > entry.written:
                    entry.written = len(ids)
                    text = entry.episode.tokenizer.decode(ids)
                    self._tell(entry, EventKind.TEXT, text=text)
        for ticket, reply in self._unhinted(replies):
            entry = self._asked.pop(ticket)
            entry.ticket = None
            self._take_reply(entry, reply)
            self._go_on(entry)

    def _search(self) -> None:
        """Wait for the searches that were begun, take in what they found, and begin the next.

        A search thread only looks up: it changes no episode.
        """
        if self._searching is not None:
            (finish, entries), self._searching = self._searching, None
            for entry, found in zip(entries, finish(), strict=True):
                if entry.number in self._open:  # not cancelled meanwhile
                    self._take_found(entry, found)
        looks = [(look.query, look.k) for e in self._to_search if (look := e.episode.look)]
        if looks:
            finish = self._retriever.begin(looks)
            self._searching, self._to_search = (finish, self._to_search), []

    def _unhinted(
        self, replies: Sequence[tuple[int, Generation | EngineError]]
    ) -> Sequence[tuple[int, Generation | EngineError]]:
        """The replies, those drawn with a hint in view with log p under the plain prompt.

        `method.md`, "Around the method".
        """
        done = list(replies)
        hinted = [
            (n, self._asked[ticket].prompt_ids, reply)
            for n, (ticket, reply) in enumerate(done)
            if isinstance(reply, Generation) and self._asked[ticket].hinted
        ]
        if hinted and not self._engine.scores:  # log p can't be had: nothing can be weighed by it
            for n, _, reply in hinted:
                done[n] = done[n][0], dataclasses.replace(reply, log_probs=())
        elif hinted:
            scores = self._engine.log_prob(
                [prompt for _, prompt, _ in hinted], [reply.output_ids for _, _, reply in hinted]
            )
            for (n, _, reply), log_probs in zip(hinted, scores, strict=True):
                done[n] = done[n][0], dataclasses.replace(reply, log_probs=log_probs)
        return done

    def _take_reply(self, entry: _Entry, reply: Generation | EngineError) -> None:
        """Hand a reply to its episode; a malformed one is taken back once, where wanted."""
        episode = entry.episode
        assert episode.ask is not None
        if isinstance(reply, EngineError):
            # What it wrote itself made it too long: no failure then, but a sample out of tokens.
            outgrown = isinstance(reply, TooLongError) and episode.calls
            reason = StopReason.MAX_TOKENS if outgrown else StopReason.ENGINE_ERROR
            episode.fail(reason, str(reply))
            return
        if self.on_event:
            text = episode.tokenizer.decode(reply.output_ids)
            self._tell(entry, EventKind.TEXT, text=text)
        call = Call(
            episode.ask.kind,
            entry.prompt_ids,
            reply.output_ids,
            reply.log_probs,
            reply.proposal_log_probs,
        )
        episode.take(call, finished=reply.finish_reason == "stop")
        malformed = episode.stop_reason is StopReason.MALFORMED
        if malformed and self._retry_malformed and not episode.retries:
            episode.retract()

    def _take_found(self, entry: _Entry, found: Found) -> None:
        if isinstance(found, RetrieverError):
            entry.episode.fail(StopReason.RETRIEVER_ERROR, str(found))
        else:
            self._tell(entry, EventKind.PASSAGES, passages=tuple(found))
            entry.episode.found(found)
        self._go_on(entry)

    def _end(self, entry: _Entry) -> Trajectory:
        """Give up an episode that has ended, and tell of its end; returns its trajectory."""
        del self._open[entry.number]
        trajectory = entry.episode.trajectory(
            iteration=self._iteration,
            seconds=round(time.perf_counter() - entry.added, 3),
            truncated=entry.sampling.truncates,
        )
        if trajectory.stop_reason.has_answer:
            self._tell(entry, EventKind.ANSWER, text=trajectory.answer)
        wrong = trajectory.error or trajectory.malformed or ""
        self._tell(entry, EventKind.END, text=wrong, stop_reason=trajectory.stop_reason)
        return trajectory

    def _tell(self, entry: _Entry, kind: EventKind, **facts: Any) -> None:
        if not self.on_event:
            return
        episode = entry.episode
        if kind in (EventKind.BEGUN, EventKind.TEXT) and episode.ask is not None:
            facts |= {"call": len(episode.calls), "action": episode.ask.kind}
        id_ = f"{episode.question.id}#{episode.sample}"
        self.on_event(Event(kind, entry.number, id_, self._epoch + time.perf_counter(), **facts))
