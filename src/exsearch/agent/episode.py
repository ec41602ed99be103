"""An episode is one trajectory under way: it says what to ask next and takes in what came back.

It holds no model and no retriever, so the same code serves sampling, replay and warm-up data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from exsearch.agent.format import (
    ANSWER_FRAME,
    Answer,
    Malformed,
    Search,
    WorkedExamples,
    parse_forced_answer,
    parse_record,
    parse_select,
    parse_thought,
    record_prompt,
    render_answer,
    select_prompt,
    think_prompt,
)
from exsearch.config import check_least
from exsearch.engines.base import ChatTokenizer
from exsearch.errors import ModelError
from exsearch.records import (
    Call,
    CallKind,
    Evidence,
    Passage,
    Question,
    Step,
    StopReason,
    Trajectory,
)


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """How an agent searches.

    Attributes:
        max_steps: T, searches at most; at the limit the answer frame is forced.
        passages: Passages a search returns.
        passage_words: Words of a passage that the model is shown.
        context: What a prompt holds: `notes` (a thought sees question and evidence pool, a record
            its sub-query and passages) or `transcript` (all that came before, one growing
            sequence).
        select: Whether the model picks passages between search and record.
        thought_tokens, select_tokens, record_tokens: Limits of one call's output.
    """

    max_steps: int = 5
    passages: int = 5
    passage_words: int = 100
    context: Literal["notes", "transcript"] = "notes"
    select: bool = False
    thought_tokens: int = 64
    select_tokens: int = 24
    record_tokens: int = 96

    def __post_init__(self) -> None:
        check_least(self, max_steps=0, passages=1, passage_words=1)
        check_least(self, thought_tokens=1, select_tokens=1, record_tokens=1)

    def max_tokens(self, kind: CallKind) -> int:
        """Output tokens that a call of this kind may take."""
        if kind is CallKind.SELECT:
            return self.select_tokens
        return self.record_tokens if kind is CallKind.RECORD else self.thought_tokens


class Episode:
    """One trajectory while it grows.

    Ask for `kind` and `prompt_ids()`, hand the reply to `take`; where `query` is then set, hand the
    passages to `found`. `stop_reason` is set at the end.
    """

    def __init__(
        self,
        question: Question,
        sample: int,
        config: AgentConfig,
        tokenizer: ChatTokenizer,
        examples: WorkedExamples | None = None,
    ):
        self.question = question
        self.sample = sample
        self.config = config
        self.tokenizer = tokenizer
        self.examples = examples or WorkedExamples()
        self.steps: list[Step] = []
        self.calls: list[Call] = []
        self.stop_reason: StopReason | None = None
        self.answer = ""
        self.answer_start: int | None = None
        self.malformed: str | None = None
        self.error: str | None = None
        self.retries = 0
        self.retrying = False  # the next call repeats a malformed one
        self.query: str | None = None  # set while a search is due
        self.query_in_progress = ""
        self._passages: tuple[Passage, ...] = ()
        self._selected: tuple[str, ...] | None = None
        self._think()

    def _think(self) -> None:
        limit = len(self.steps) >= self.config.max_steps
        self.kind = CallKind.ANSWER if limit else CallKind.THINK

    @property
    def shown(self) -> tuple[Passage, ...]:
        """The passages that a record sees: all that were found, or the selected ones in order."""
        if self._selected is None:
            return self._passages
        by_id = {p.id: p for p in self._passages}
        return tuple(by_id[id_] for id_ in self._selected)

    def prompt(self) -> str:
        """The user turn of the next call."""
        words = self.config.passage_words
        if self.kind is CallKind.RECORD:
            return record_prompt(self.query_in_progress, self.shown, words)
        if self.kind is CallKind.SELECT:
            return select_prompt(self.query_in_progress, self._passages, words)
        transcript = self.config.context == "transcript" and self.calls
        return "Go on." if transcript else think_prompt(self.question.question, self.steps)

    def prompt_ids(self) -> tuple[int, ...]:
        """The next call's prompt; a forced answer frame is part of it and so carries no loss."""
        content = self.prompt()
        if self.config.context == "transcript" and self.calls:
            last = self.calls[-1]
            ids = self.tokenizer.extend_chat(last.prompt_ids, last.output_ids, content)
        else:
            ids = self.tokenizer.encode_chat(self.examples.before(self.kind, content))
        if self.kind is CallKind.ANSWER:
            ids = (*ids, *self.tokenizer.encode(ANSWER_FRAME))
        return ids

    def take(self, call: Call, finished: bool) -> None:
        """Take in a reply; `finished` is false where the token limit cut it off."""
        self.calls.append(call)
        self.retrying = False
        text = self.tokenizer.decode(call.output_ids)
        if not finished:
            self.stop_reason = StopReason.MAX_TOKENS
        elif call.kind is CallKind.RECORD:
            self._take_record(parse_record(text, self.shown))
        elif call.kind is CallKind.SELECT:
            self._take_select(parse_select(text, self._passages))
        elif call.kind is CallKind.ANSWER:
            self._take_thought(parse_forced_answer(text), call)
        else:
            self._take_thought(parse_thought(text), call)

    def _take_thought(self, action: Search | Answer | Malformed, call: Call) -> None:
        match action:
            case Malformed(kind):
                self._fail(kind)
            case Search(query):
                self.query = self.query_in_progress = query
            case Answer(text):
                forced = call.kind is CallKind.ANSWER
                start = 0 if forced else answer_start(call.output_ids, self.tokenizer)
                if start is None:
                    self._fail("straddling_token")
                    return
                self.answer, self.answer_start = text, start
                self.stop_reason = StopReason.MAX_STEPS if forced else StopReason.ANSWERED

    def found(self, passages: Sequence[Passage]) -> None:
        """Take in what the search returned."""
        self.query = None
        self._passages, self._selected = tuple(passages), None
        self.kind = CallKind.SELECT if self.config.select and passages else CallKind.RECORD

    def _take_select(self, selected: tuple[str, ...] | Malformed) -> None:
        if isinstance(selected, Malformed):
            self._fail(selected.kind)
            return
        self._selected = selected
        if selected:
            self.kind = CallKind.RECORD
        else:
            self._end_step(None)

    def _take_record(self, evidence: Evidence | Malformed | None) -> None:
        if isinstance(evidence, Malformed):
            self._fail(evidence.kind)
        else:
            self._end_step(evidence)

    def _end_step(self, evidence: Evidence | None) -> None:
        self.steps.append(Step(self.query_in_progress, self._passages, self._selected, evidence))
        self._think()

    def _fail(self, kind: str) -> None:
        self.malformed = kind
        self.stop_reason = StopReason.MALFORMED

    def retract(self) -> None:
        """Take a malformed reply back, so that the same call can be made once more."""
        self.calls.pop()
        self.stop_reason = self.malformed = None
        self.retries += 1
        self.retrying = True

    def fail(self, reason: StopReason, error: str) -> None:
        """End the episode because a search or an engine call failed."""
        self.stop_reason, self.error, self.query = reason, error, None

    def trajectory(self, *, iteration: int = 0, seconds: float = 0.0) -> Trajectory:
        """The finished trajectory; its calls carry no ids where those are no model's."""
        assert self.stop_reason is not None
        recorded = self.tokenizer.model_ids
        calls = self.calls if recorded else [Call(call.kind, (), ()) for call in self.calls]
        return Trajectory(
            question=self.question,
            steps=tuple(self.steps),
            calls=tuple(calls),
            answer=self.answer,
            stop_reason=self.stop_reason,
            iteration=iteration,
            sample=self.sample,
            answer_start=self.answer_start if recorded else None,
            malformed=self.malformed,
            retries=self.retries,
            error=self.error,
            seconds=seconds,
        )


def answer_start(output_ids: Sequence[int], tokenizer: ChatTokenizer) -> int | None:
    """How many ids spell the answer frame; None where a token straddles frame and answer."""
    for n in range(1, len(output_ids)):
        head = tokenizer.decode(output_ids[:n]).lstrip()
        if head == ANSWER_FRAME:
            return n
        if len(head) > len(ANSWER_FRAME):
            return None
    return None


def answer_ids(answer: str, tokenizer: ChatTokenizer) -> tuple[int, ...]:
    """The target of L_A and of a_k: the answer as it follows the frame, with the end token.

    Raises:
        ModelError: this tokenizer joins frame and answer, so the answer has no ids of its own.
    """
    text = render_answer(answer)
    ids = tokenizer.encode(text)
    frame = tokenizer.encode(ANSWER_FRAME)
    if tokenizer.encode(ANSWER_FRAME + text) != (*frame, *ids):
        raise ModelError(
            f"the model's tokenizer joins {ANSWER_FRAME!r} with {text!r}, so the answer can't be "
            "scored by itself; take another model"
        )
    return (*ids, tokenizer.end_id)
