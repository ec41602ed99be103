"""The format is how each action is put to the model and how its reply is read: both stand together.

    think    Search: <query>   or   Answer: <short answer>
    select   [2] [1]           or   None.
    record   [1] <facts>       or   Nothing found.
    answer    <short answer>   after the forced frame "Answer:"

A passage label 1…k is local to one prompt; records name passages by id, and `labels` maps both
ways. Text from outside is put on one line with its brackets defused, so that a passage can neither
forge a label nor close its frame. It runs no model.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

from exsearch.methods.base import Answer, Ask, Malformed, Solved
from exsearch.records import CallKind, Evidence, Passage, Step, StopReason

SEARCH_FRAME = "Search:"
ANSWER_FRAME = "Answer:"
NOTHING_FOUND = "Nothing found."
NONE_SELECTED = "None."

THINK_INSTRUCTION = (
    f'Look facts up one at a time, then answer. Reply "{SEARCH_FRAME} <query>" or '
    f'"{ANSWER_FRAME} <short answer>".'
)
RECORD_INSTRUCTION = (
    f'Copy the fact that answers the query after its label: "[n] <fact>", or "{NOTHING_FOUND}"'
)
WORDS_INSTRUCTION = (
    f'Copy the words that answer the query after the label of their passage: "[n] <words>", or '
    f'"{NOTHING_FOUND}"'
)
NOTE_INSTRUCTION = f'State the fact that answers the query, or "{NOTHING_FOUND}"'
ANSWER_INSTRUCTION = f'Reply "{ANSWER_FRAME} <short answer>": a name, a date, a number, yes or no.'
REASON_INSTRUCTION = (
    f'Reason in a sentence or two, then reply "{ANSWER_FRAME} <short answer>": a name, a date, a '
    "number, yes or no."
)
NEXT_INSTRUCTION = (
    "Write the next sentence of the reasoning: one fact from the passages. When it is complete, "
    f'reply "{ANSWER_FRAME} <short answer>".'
)
SELECT_INSTRUCTION = f'Name the passages that help, best first: "[n] [m]", or "{NONE_SELECTED}"'

_WORD = re.compile(r"\S+")
_LABEL = re.compile(r"\[(\d+)\]")
_LEADING_LABELS = re.compile(r"(?:\[\d+\]\s*)+")
# Control characters, what is invisible, and what turns the direction of writing.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """A thought that asks for a search.

    Attributes:
        query: The sub-query, on one line.
    """

    query: str


def one_line(text: str) -> str:
    """Text from outside as one line that holds no label: `[2]` becomes `(2)`."""
    flat = " ".join(_CONTROL.sub(" ", text).split())
    return _LABEL.sub(r"(\1)", flat)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of a text from outside begins and ends; `one_line` puts them together."""
    plain = _CONTROL.sub(lambda found: " " * len(found[0]), text)
    return [found.span() for found in _WORD.finditer(plain)]


def labels(passages: Sequence[Passage]) -> dict[str, str]:
    """Label (`"1"` to `"k"`) -> passage id; the one mapping between them."""
    return {str(n): passage.id for n, passage in enumerate(passages, start=1)}


def think_prompt(question: str, steps: Sequence[Step]) -> str:
    """The prompt of a thought: the question and a note for each step.

    Args:
        question: The text of the question.
        steps: The finished searches. A note is the sub-query with the evidence, or with
            `NOTHING_FOUND`.
    """
    notes = [f"{n}. {_note(step)}" for n, step in enumerate(steps, start=1)] or ["none"]
    return "\n".join([THINK_INSTRUCTION, f"Question: {one_line(question)}", "Notes:", *notes])


def _note(step: Step) -> str:
    evidence = one_line(step.evidence.text) if step.evidence else NOTHING_FOUND
    return f"{one_line(step.query)} {evidence}"


def record_prompt(query: str, passages: Sequence[Passage], *, words: bool = False) -> str:
    """The prompt of a record: a sub-query and what is shown of the passages found.

    Args:
        query: The sub-query.
        passages: What is shown of the passages.
        words: True asks for the words that answer the query, not for the whole fact.
    """
    instruction = WORDS_INSTRUCTION if words else RECORD_INSTRUCTION
    return "\n".join([instruction, f"Query: {one_line(query)}", *_frames(passages)])


def note_prompt(query: str) -> str:
    """The prompt of a record without passages: what the model knows by itself."""
    return f"{NOTE_INSTRUCTION}\nQuery: {one_line(query)}"


def select_prompt(query: str, passages: Sequence[Passage]) -> str:
    """The prompt of a choice: a sub-query and what is shown of the passages found."""
    return "\n".join([SELECT_INSTRUCTION, f"Query: {one_line(query)}", *_frames(passages)])


def answer_prompt(
    question: str,
    passages: Sequence[Passage] | None = None,
    *,
    instruction: str = ANSWER_INSTRUCTION,
    thoughts: Sequence[str] | None = None,
) -> str:
    """The prompt of an answer, with passages or without.

    Args:
        question: The question to answer.
        passages: What is shown of the passages that a search found, which may be none; None
            without a search.
        instruction: What is to be replied.
        thoughts: The sentences of the reasoning so far, which may be none; None shows no place for
            them.
    """
    frames = [] if passages is None else _frames(passages)
    lines = [instruction, *frames, f"Question: {one_line(question)}"]
    if thoughts is not None:
        lines.append(f"Reasoning: {' '.join(map(one_line, thoughts)) or 'none'}")
    return "\n".join(lines)


def ask_thought(
    prompt: str,
    max_tokens: int,
    *,
    goes_on: bool = False,
    forced: str = "",
    done: int | None = None,
) -> Ask:
    """Ask for a sub-query or the answer.

    Args:
        prompt: The user turn.
        max_tokens: The most tokens that the reply may take.
        goes_on: True continues the chat of the call before.
        forced: The frame that the reply is made to begin with; empty leaves it free.
        done: The number of searches so far, for examples; None where they are made otherwise.
    """

    def reply(solved: Solved) -> str:
        assert done is not None
        if done < len(solved.facts):
            return render_thought(Search(solved.facts[done][0]))
        return render_thought(Answer(solved.answer))

    return Ask(
        CallKind.THINK,
        prompt,
        lambda text: parse_thought(forced + text),
        max_tokens,
        forced,
        goes_on=goes_on,
        reply=None if done is None else reply,
    )


def ask_answer(
    prompt: str,
    max_tokens: int,
    stop_reason: StopReason = StopReason.ANSWERED,
    *,
    goes_on: bool = False,
) -> Ask:
    """Ask for the answer, with its frame forced.

    Args:
        prompt: The user turn.
        max_tokens: The most tokens that the answer may take.
        stop_reason: Why the trajectory ends with this answer.
        goes_on: True continues the chat of the call before.
    """
    parse = functools.partial(parse_forced_answer, stop_reason=stop_reason)
    return Ask(
        CallKind.ANSWER,
        prompt,
        parse,
        max_tokens,
        ANSWER_FRAME,
        goes_on=goes_on,
        reply=lambda solved: render_answer(solved.answer),
    )


def ask_reasons(prompt: str, max_tokens: int) -> Ask:
    """Ask for reasons and the answer after them, in one reply.

    Args:
        prompt: The user turn.
        max_tokens: The most tokens that the reply may take.
    """

    def reply(solved: Solved) -> str:
        facts = [one_line(fact) for _, fact in solved.facts]
        return " ".join([*facts, render_thought(Answer(solved.answer))])

    return Ask(CallKind.THINK, prompt, parse_reasons, max_tokens, reply=reply)


def ask_sentence(prompt: str, max_tokens: int, done: int) -> Ask:
    """Ask for the next sentence of the reasoning, or the answer.

    Args:
        prompt: The user turn.
        max_tokens: The most tokens that the reply may take.
        done: The number of sentences so far.
    """

    def reply(solved: Solved) -> str:
        if done < len(solved.facts):
            return one_line(solved.facts[done][1])
        return render_thought(Answer(solved.answer))

    return Ask(CallKind.THINK, prompt, parse_sentence, max_tokens, reply=reply)


def pooled(passages: Sequence[Passage]) -> Evidence | None:
    """All that is shown of passages, as one piece of evidence; None where there are none."""
    texts = (one_line(f"{p.title}: {p.text}" if p.title else p.text) for p in passages)
    ids = tuple(passage.id for passage in passages)
    return Evidence(" ".join(texts), ids) if ids else None


def noted(query: str, found: Sequence[Passage]) -> Step:
    """A step whose evidence is what is shown of the best passage.

    Args:
        query: The query of the search.
        found: The passages that it found, best first; where there are none, there is no evidence.
    """
    evidence = [Evidence(one_line(p.text), (p.id,)) for p in found[:1]]
    return Step(query, tuple(found), evidence=evidence[0] if evidence else None)


def _frames(passages: Sequence[Passage]) -> list[str]:
    frames = []
    for n, passage in enumerate(passages, start=1):
        title, text = one_line(passage.title), one_line(passage.text)
        frames.append(f"[{n}] {title}: {text}" if title else f"[{n}] {text}")
    return frames or ["(no passages)"]


def render_thought(action: Search | Answer) -> str:
    """The text that the model writes for an action, frame first."""
    if isinstance(action, Search):
        return f"{SEARCH_FRAME} {one_line(action.query)}"
    return f"{ANSWER_FRAME}{render_answer(action.text)}"


def render_answer(answer: str) -> str:
    """What follows the answer frame, with its leading space: the text whose likelihood is a_k."""
    return f" {' '.join(answer.split())}"


def parse_thought(text: str) -> Search | Answer | Malformed:
    """Read a thought; anything but one action on one line, frame first, is malformed."""
    blanks = len(text) - len(text.lstrip())
    text = text.strip()
    if not text:
        return Malformed("empty_thought")
    if "\n" in text:
        return Malformed("several_lines")
    if text.startswith(SEARCH_FRAME):
        query = one_line(text.removeprefix(SEARCH_FRAME))
        return Search(query) if query else Malformed("empty_query")
    if text.startswith(ANSWER_FRAME):
        answer = " ".join(text.removeprefix(ANSWER_FRAME).split())
        start = blanks + len(ANSWER_FRAME)
        return Answer(answer, start) if answer else Malformed("empty_answer")
    return Malformed("no_action")


def parse_reasons(text: str) -> Answer | Malformed:
    """Read reasons that end with an answer on one line, after its frame."""
    before, frame, after = text.rpartition(ANSWER_FRAME)
    answer = after.strip()
    if not frame:
        return Malformed("no_answer")
    if not answer or "\n" in answer:
        return Malformed("several_lines" if answer else "empty_answer")
    thought = one_line(before)
    return Answer(" ".join(answer.split()), len(before) + len(frame), thought=thought)


def parse_sentence(text: str) -> str | Answer | Malformed:
    """Read a sentence on one line, or the answer after its frame."""
    if text.strip().startswith(ANSWER_FRAME):
        return parse_reasons(text)
    sentence = one_line(text)
    if not sentence or "\n" in text.strip():
        return Malformed("several_lines" if sentence else "empty_thought")
    return sentence


def parse_forced_answer(
    text: str, stop_reason: StopReason = StopReason.ANSWERED
) -> Answer | Malformed:
    """Read what followed a forced answer frame; more than one line is malformed.

    Args:
        text: The reply, without the frame.
        stop_reason: Why the trajectory ends with this answer.
    """
    text = text.strip()
    if not text or "\n" in text:
        return Malformed("several_lines" if text else "empty_answer")
    return Answer(" ".join(text.split()), stop_reason=stop_reason)


def render_record(evidence: Evidence | None, passages: Sequence[Passage]) -> str:
    """The text that the model writes for a piece of evidence; None is `NOTHING_FOUND`.

    Args:
        evidence: A fact, with the ids of its passages.
        passages: The passages that the prompt shows, in their order.
    """
    if evidence is None:
        return NOTHING_FOUND
    label_of = {id_: label for label, id_ in labels(passages).items()}
    marks = " ".join(f"[{label_of[id_]}]" for id_ in evidence.passage_ids)
    return f"{marks} {one_line(evidence.text)}".lstrip()


def parse_record(text: str, passages: Sequence[Passage]) -> Evidence | Malformed | None:
    """Read a record.

    Args:
        text: The reply.
        passages: The passages that the prompt shows, in their order.

    Returns:
        The evidence; None where nothing helped. A record without a label, or with one that names no
        passage, is malformed.
    """
    text = text.strip()
    if not text:
        return Malformed("empty_record")
    if text == NOTHING_FOUND:
        return None
    if "\n" in text:
        return Malformed("several_lines")
    head = _LEADING_LABELS.match(text)
    if not head:
        return Malformed("no_label")
    ids = _ids(head[0], passages)
    fact = one_line(text[head.end() :])
    if ids is None:
        return Malformed("unknown_label")
    return Evidence(fact, ids) if fact else Malformed("empty_record")


def parse_note(text: str) -> Evidence | Malformed | None:
    """Read a record without passages: a fact on one line, which names none."""
    text = text.strip()
    if not text or "\n" in text:
        return Malformed("several_lines" if text else "empty_record")
    return None if text == NOTHING_FOUND else Evidence(one_line(text), ())


def render_select(selected_ids: Sequence[str], passages: Sequence[Passage]) -> str:
    """The text that the model writes for a choice of passages.

    Args:
        selected_ids: The ids of the chosen passages, best first.
        passages: The passages that the prompt shows, in their order.
    """
    label_of = {id_: label for label, id_ in labels(passages).items()}
    return " ".join(f"[{label_of[id_]}]" for id_ in selected_ids) or NONE_SELECTED


def parse_select(text: str, passages: Sequence[Passage]) -> tuple[str, ...] | Malformed:
    """Read a choice of passages.

    Args:
        text: The reply.
        passages: The passages that the prompt shows, in their order.

    Returns:
        The ids of the chosen passages, best first, empty where none helps. A label that names no
        passage is malformed.
    """
    text = text.strip()
    if text == NONE_SELECTED:
        return ()
    if not _LEADING_LABELS.fullmatch(text):
        return Malformed("no_label")
    ids = _ids(text, passages)
    return Malformed("unknown_label") if ids is None else ids


def _ids(text: str, passages: Sequence[Passage]) -> tuple[str, ...] | None:
    by_label = labels(passages)
    found = _LABEL.findall(text)
    if any(label not in by_label for label in found):
        return None
    return tuple(dict.fromkeys(by_label[label] for label in found))
