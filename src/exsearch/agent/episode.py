"""An episode is the token side of a plan: one trajectory under way, whatever the method.

It turns what the plan asks into prompt ids, takes in sampled ids, and knows where the answer
begins, what was malformed and what ran out. It holds no model and no retriever, so the same code
serves sampling, replay and training data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from exsearch.agent.examples import WorkedExamples
from exsearch.agent.shown import shown_passages, shown_question
from exsearch.engines.base import ChatTokenizer
from exsearch.errors import ModelError
from exsearch.methods.base import Answer, Ask, Look, Malformed, Method, Plan
from exsearch.methods.format import ANSWER_FRAME, render_answer
from exsearch.records import Call, Passage, Question, Spans, Step, StopReason, Trajectory


def begin(
    question: Question,
    method: Method,
    tokenizer: ChatTokenizer,
    *,
    sample: int = 0,
    examples: WorkedExamples | None = None,
) -> Episode:
    """A method's episode for one question, at its first move.

    Args:
        question: The question to answer.
        method: The method that makes the plan.
        tokenizer: The tokenizer of the model that is asked.
        sample: The episode's number among the samples of its question, from 0.
        examples: Solved questions, shown before each new chat; None shows none.

    Returns:
        The episode. What its plan does first stands in `ask`, in `look`, or, where the plan ended
        at once, in `stop_reason`.
    """
    steps: list[Step] = []
    plan = method.plan(shown_question(question, tokenizer), steps)
    return Episode(question, sample, method.name, plan, steps, tokenizer, examples)


class Episode:
    """One trajectory while it grows; `begin` makes it.

    Until `stop_reason` is set, either `ask` is, and the reply goes to `take`, or `look` is, and the
    passages go to `found`.

    Attributes:
        question: The question that is answered.
        sample: The episode's number among the samples of its question, from 0.
        method: The name of the method.
        tokenizer: The tokenizer of the model that is asked.
        examples: Solved questions, shown before each new chat.
        calls: The model calls so far, a malformed last one included until it is retracted.
        ask: The call of the model that the plan waits for; None where it waits for none.
        look: The search that the plan waits for; None where it waits for none.
        stop_reason: Why the episode ended; None while it goes on.
        answer: The answer; empty until there is one.
        answer_start: The index in the last call's `output_ids` at which the answer begins; None
            where there is no answer.
        malformed: What was wrong with a malformed reply; None where none was.
        error: The message of a failed search or call; None where none failed.
        retries: The number of malformed replies that were taken back.
        retrying: True where the next call repeats a malformed one.
    """

    def __init__(
        self,
        question: Question,
        sample: int,
        method: str,
        plan: Plan,
        steps: list[Step],
        tokenizer: ChatTokenizer,
        examples: WorkedExamples | None,
    ):
        self.question, self.sample, self.method = question, sample, method
        self.tokenizer = tokenizer
        self.examples = examples or WorkedExamples()
        self.calls: list[Call] = []
        self.ask: Ask | None = None
        self.look: Look | None = None
        self.stop_reason: StopReason | None = None
        self.answer = ""
        self.answer_start: int | None = None
        self.malformed: str | None = None
        self.error: str | None = None
        self.retries = 0
        self.retrying = False  # the next call repeats a malformed one
        self._plan, self._steps = plan, steps
        # What the plan was shown of each passage -> the passage, and where it stands there.
        self._whole: dict[Passage, tuple[Passage, Spans]] = {}
        self._go_on(None)

    @property
    def steps(self) -> list[Step]:
        """The finished searches, which the plan appends, with the passages as they were found."""
        return [self._whole_step(step) for step in self._steps]

    def _whole_step(self, step: Step) -> Step:
        found = [self._whole.get(p, (p, ())) for p in step.passages]
        passages, spans = (tuple(part) for part in zip(*found, strict=True)) if found else ((), ())
        return dataclasses.replace(step, passages=passages, spans=spans)

    def prompt_ids(self, *, hinted: bool = False) -> tuple[int, ...]:
        """The token ids of the next call's prompt; what is forced is part of them, without loss.

        Args:
            hinted: True gives the prompt that is sampled from, with its hint; False gives the
                prompt that is recorded.
        """
        assert self.ask is not None
        content = self.ask.prompt
        if hinted and self.ask.hint:
            content = f"{content}\n{self.ask.hint}"
        if self.ask.goes_on and self.calls:
            last = self.calls[-1]
            ids = self.tokenizer.extend_chat(last.prompt_ids, last.output_ids, content)
        else:
            ids = self.tokenizer.encode_chat(self.examples.before(self.ask.kind, content))
        return (*ids, *self.tokenizer.encode(self.ask.forced)) if self.ask.forced else ids

    def take(self, call: Call, finished: bool) -> None:
        """Take in a reply, and go on to the plan's next move.

        Args:
            call: The prompt as it is recorded, and the reply.
            finished: False where the token limit cut the reply off, which ends the episode.
        """
        assert self.ask is not None
        self.calls.append(call)
        self.retrying = False
        if not finished:
            self.stop_reason = StopReason.MAX_TOKENS
            return
        text = self.tokenizer.decode(call.output_ids)
        reply = self.ask.parse(text)
        start = None
        if isinstance(reply, Answer):
            start = _tokens_of(text[: reply.start], call.output_ids, self.tokenizer)
            if start is None:
                reply = Malformed("straddling_token")
        if isinstance(reply, Malformed):
            self.malformed, self.stop_reason = reply.kind, StopReason.MALFORMED
            return
        self.answer_start = start
        self._go_on(reply)

    def found(self, passages: Sequence[Passage]) -> None:
        """Take in the passages that the search found, best first, and go on to the next move.

        The plan gets what may be shown of them (`shown_passages`); `steps` has them whole.
        """
        assert self.look is not None
        shown = shown_passages(passages, self.look, self.tokenizer)
        for whole, (part, spans) in zip(passages, shown, strict=True):
            self._whole[part] = whole, spans
        self._go_on(tuple(part for part, _ in shown))

    def _go_on(self, value: object) -> None:
        """Hand the plan what it waits for, up to its next move or its end."""
        self.ask = self.look = None
        try:
            move = self._plan.send(value)
        except StopIteration as end:
            answer: Answer = end.value
            self.answer, self.stop_reason = answer.text, answer.stop_reason
            return
        if isinstance(move, Look):
            self.look = move
        else:
            self.ask = move
        # Only the last call's answer is the trajectory's: this one's was not the end.
        self.answer_start = None

    def retract(self) -> None:
        """Take a malformed reply back, so that the same call can be made once more."""
        self.calls.pop()
        self.stop_reason = self.malformed = None
        self.retries += 1
        self.retrying = True

    def fail(self, reason: StopReason, error: str) -> None:
        """End the episode because a search or an engine call failed.

        Args:
            reason: The stop reason that is recorded.
            error: The message of what failed.
        """
        self.stop_reason, self.error = reason, error
        self.close()

    def close(self) -> None:
        """Let go of the plan; nothing more is asked."""
        self.ask = self.look = None
        self._plan.close()

    def trajectory(
        self, *, iteration: int = 0, seconds: float = 0.0, truncated: bool = False
    ) -> Trajectory:
        """The finished trajectory; its calls carry no ids where the tokenizer is no model's.

        Args:
            iteration: The number of the iteration that sampled it, from 1; 0 outside of training.
            seconds: Seconds from the start of the rollout to the end of this trajectory.
            truncated: Whether tokens were drawn from a distribution that leaves some out.
        """
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
            method=self.method,
            truncated_sampling=truncated,
        )


def _tokens_of(head: str, output_ids: Sequence[int], tokenizer: ChatTokenizer) -> int | None:
    """How many of the ids spell `head`; None where a token straddles its end."""
    if not head:
        return 0
    for n in range(1, len(output_ids)):
        text = tokenizer.decode(output_ids[:n])
        # At the same length a last character may not be whole yet.
        if text == head or len(text) > len(head):
            return n if text == head else None
    return None


def answer_ids(answer: str, tokenizer: ChatTokenizer) -> tuple[int, ...]:
    """The ids of an answer as it follows the frame, with the end token.

    a_k scores these ids, and the M-step learns them (`method.md`, E-step and M-step).

    Args:
        answer: The answer as text.
        tokenizer: The tokenizer of the model that scores and learns.

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
