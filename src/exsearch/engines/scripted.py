"""A scripted engine replies by a script, not a model, so that the other parts can be tried alone.

It stands in for a model in tests of other people's retrievers, recipes and servers: no torch, no
weights, the same reply every time. It can't be trained.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.engines.base import Generation, Message, Request, Sampling
from exsearch.errors import DataError, EngineError, ModelError

Replies = str | Sequence[str]
Script = Callable[[str], Replies] | Mapping[str, Replies] | Iterable[tuple[str, Replies]]

END, USER, ASSISTANT = 0, 1, 2  # ids that no text encodes to
_TURN_TEXT = {END: "\n", USER: "User: ", ASSISTANT: "Assistant: "}
_PIECE = re.compile(r" ?\w+| ?[^\w\s]+|\s")
_PIECE_BYTES = 7  # so that an id fits 63 bits
_LOG_BYTE = -math.log(257)


class ScriptedTokenizer:
    """`ChatTokenizer` without a vocabulary: an id is the bytes of a word, read as a number.

    So every text has ids and every id its text, and a reply takes about as many tokens as with a
    model's tokenizer. Turns are marked by ids that no text can spell.
    """

    end_id = END

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text: words with the space before them, cut to seven bytes."""
        ids: list[int] = []
        for piece in _PIECE.findall(text):
            data = piece.encode(errors="replace")
            for start in range(0, len(data), _PIECE_BYTES):
                ids.append(_pack(data[start : start + _PIECE_BYTES]))
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, the marks of turns left out."""
        return b"".join(_unpack(i) for i in ids).decode(errors="replace")

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the turns, each opened by its role and closed, up to the assistant's next one."""
        ids: list[int] = []
        for message in messages:
            role = USER if message["role"] == "user" else ASSISTANT
            ids += [role, *self.encode(message["content"]), END]
        return (*ids, ASSISTANT)

    def extend_chat(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], content: str
    ) -> tuple[int, ...]:
        """All ids so far, the turn's end where it is missing, and one more user turn."""
        end = () if output_ids and output_ids[-1] == END else (END,)
        turn = self.encode_chat([Message(role="user", content=content)])
        return (*prompt_ids, *output_ids, *end, *turn)

    def chat_text(self, ids: Sequence[int]) -> str:
        """The text of ids with the turns marked: `User: …`, `Assistant: …`, one a line."""
        parts = (_TURN_TEXT[i].encode() if i in _TURN_TEXT else _unpack(i) for i in ids)
        return b"".join(parts).decode(errors="replace")


def _pack(data: bytes) -> int:
    return int.from_bytes(b"\x01" + data, "big")  # the leading 1 keeps zero bytes


def _unpack(id_: int) -> bytes:
    return id_.to_bytes(_PIECE_BYTES + 1, "big").lstrip(b"\0")[1:]


class ScriptedEngine:
    """`Engine` that replies by a script.

    Args:
        script: What to reply. Either rules, a mapping or pairs of (text, reply): the first whose
            text occurs in the prompt's last user turn, or in what is forced after it, gives the
            reply. Or a function of the whole chat as text (`User: …`, `Assistant: …`, one turn a
            line). A reply that is a list stands for samples: greedy takes the first, sampling one
            of them by the request's key.
        answer_log_prob: A function (chat, continuation) -> log p, both as text; it sets a_k. By
            default every byte and the end are equally likely (-ln 257 each).

    Example:
        >>> engine = ScriptedEngine({"Notes:": "Search: Brno", "Query:": "Nothing found."})
    """

    def __init__(
        self, script: Script, answer_log_prob: Callable[[str, str], float] | None = None
    ) -> None:
        self.tokenizer = ScriptedTokenizer()
        self._function = script if callable(script) else None
        pairs = script.items() if isinstance(script, Mapping) else script
        self._rules = [] if callable(pairs) else list(pairs)
        self._answer_log_prob = answer_log_prob

    @classmethod
    def from_file(cls, path: Path) -> ScriptedEngine:
        """Rules from JSON lines `{"contains": "…", "reply": "…"}`; a reply may be a list.

        Raises:
            DataError: no such file, or a line that is not such a rule.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise DataError(f"can't read the engine's script: {reason}", file=path) from None
        rules = [_rule(line, path, n) for n, line in enumerate(lines, start=1) if line.strip()]
        if not rules:
            raise DataError('no rule in it; expected lines of {"contains", "reply"}', file=path)
        return cls(rules)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One scripted reply a request; log p and log q are those of `answer_log_prob`'s default.

        Raises:
            EngineError: the script has no reply for a prompt; the message names it.
        """
        return [self._reply(request, sampling) for request in requests]

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token; a scripted sum stands on the last of them."""
        if self._answer_log_prob is None:
            return [_uniform(ids) for ids in continuations]
        scores: list[tuple[float, ...]] = []
        for prompt, ids in zip(prompts, continuations, strict=True):
            total = self._answer_log_prob(
                self.tokenizer.chat_text(prompt), self.tokenizer.decode(ids)
            )
            scores.append((*[0.0] * (len(ids) - 1), float(total))[: len(ids)])
        return scores

    def load_weights(self, folder: Path) -> None:
        """Refused: there are no weights.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"a scripted engine has no weights to take from {folder}")

    def _reply(self, request: Request, sampling: Sampling) -> Generation:
        replies = self._replies(request.prompt_ids)
        if isinstance(replies, str):
            replies = [replies]
        text = replies[0 if sampling.temperature == 0 else request.key % len(replies)]
        ids = (*self.tokenizer.encode(text), END)
        cut = ids[: request.max_tokens]
        log_probs = _uniform(cut)
        return Generation(cut, log_probs, log_probs, "stop" if cut == ids else "length")

    def _replies(self, prompt_ids: tuple[int, ...]) -> Replies:
        if self._function is not None:
            return self._function(self.tokenizer.chat_text(prompt_ids))
        turns = [n for n, id_ in enumerate(prompt_ids) if id_ == USER]
        turn = self.tokenizer.chat_text(prompt_ids[turns[-1] + 1 if turns else 0 :])
        for part, replies in self._rules:
            if part in turn:
                return replies
        raise EngineError(f"the engine's script has no reply for the prompt {turn!r}")


def _uniform(ids: Sequence[int]) -> tuple[float, ...]:
    return tuple(_LOG_BYTE * max(1, len(_unpack(i))) for i in ids)


def _rule(line: str, path: Path, number: int) -> tuple[str, Replies]:
    try:
        rule: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", file=path, line=number) from None
    match rule:
        case {"contains": str(contains), "reply": str(reply)}:
            return contains, reply
        case {"contains": str(contains), "reply": [*replies]} if replies and all(
            isinstance(reply, str) for reply in replies
        ):
            return contains, replies
    message = 'expected {"contains": text, "reply": text or list of texts}'
    raise DataError(f"{message}, got {line.strip()[:200]}", file=path, line=number)
