"""A scripted engine replies by a script, not a model, so that the other parts can be tried alone.

It stands in for a model in tests of other people's retrievers, recipes and servers: no torch, no
weights, the same reply every time. It can't be trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from exsearch.data.json_lines import read_objects
from exsearch.engines.base import Generation, Request, Sampling
from exsearch.engines.config import ModelConfig
from exsearch.engines.session import InTurns
from exsearch.engines.text import ASSISTANT, END, USER, TextTokenizer, id_bytes
from exsearch.errors import DataError, EngineError

Replies = str | Sequence[str]
Script = Callable[[str], Replies] | Mapping[str, Replies] | Iterable[tuple[str, Replies]]

_TURN_TEXT = {END: "\n", USER: "User: ", ASSISTANT: "Assistant: "}
_LOG_BYTE = -math.log(257)


class ScriptedTokenizer(TextTokenizer):
    """`TextTokenizer` whose ids count as the model's, since the script stands in for the model."""

    model_ids = True

    def chat_text(self, ids: Sequence[int]) -> str:
        """The text of ids with the turns marked: `User: …`, `Assistant: …`, one a line."""
        parts = (_TURN_TEXT[i].encode() if i in _TURN_TEXT else id_bytes(i) for i in ids)
        return b"".join(parts).decode(errors="replace")


class ScriptedEngine(InTurns):
    """`Engine` that replies by a script.

    Args:
        script: The replies. Either rules, a mapping or pairs of (text, reply): the first whose
            text occurs in the prompt's last user turn, or in what is forced after it, gives the
            reply. Or a function of the whole chat as text (`User: …`, `Assistant: …`, one turn a
            line). A reply that is a list stands for samples: greedy takes the first, sampling one
            of them by the request's key.
        answer_log_prob: A function (chat, continuation) -> log p, both as text; it sets a_k. By
            default every byte and the end are equally likely (-ln 257 each).

    Example:
        >>> engine = ScriptedEngine({"Notes:": "Search: Brno", "Query:": "Nothing found."})
    """

    scores, has_server = True, False
    options: ClassVar[tuple[str, ...] | None] = ()

    def __init__(
        self, script: Script, answer_log_prob: Callable[[str, str], float] | None = None
    ) -> None:
        self.tokenizer = ScriptedTokenizer()
        self._function = script if callable(script) else None
        pairs = script.items() if isinstance(script, Mapping) else script
        self._rules = [] if callable(pairs) else list(pairs)
        self._answer_log_prob = answer_log_prob

    @classmethod
    def from_config(cls, config: ModelConfig) -> ScriptedEngine:
        """Open the engine that a recipe's `[model]` describes; `name` is the script file's path.

        Raises:
            DataError: no such file, or a line that is no rule.
        """
        return cls.from_file(Path(config.name))

    @classmethod
    def from_file(cls, path: Path) -> ScriptedEngine:
        """Rules from JSON lines `{"contains": "…", "reply": "…"}`; a reply may be a list.

        Raises:
            DataError: no such file, or a line that is not such a rule.
        """
        rules = [_rule(rule, path, n) for n, rule in read_objects(path, "script of the engine")]
        if not rules:
            raise DataError('no rule in it; expected lines of {"contains", "reply"}', file=path)
        return cls(rules)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """One scripted reply a request (`Engine.generate`).

        log p and log q of a token are -ln 257 for each byte of it; for the end token, for one byte.

        Raises:
            EngineError: the script has no reply for a prompt; the message names it.
        """
        return [self._reply(request, sampling) for request in requests]

    def log_prob(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log p of each continuation token (`Engine.log_prob`); a scripted sum is on the last."""
        if self._answer_log_prob is None:
            return [_uniform(ids) for ids in continuations]
        scores: list[tuple[float, ...]] = []
        for prompt, ids in zip(prompts, continuations, strict=True):
            total = self._answer_log_prob(
                self.tokenizer.chat_text(prompt), self.tokenizer.decode(ids)
            )
            scores.append((*[0.0] * (len(ids) - 1), float(total))[: len(ids)])
        return scores

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
        """The reply, or replies, that the function or the first fitting rule gives for a prompt."""
        if self._function is not None:
            return self._function(self.tokenizer.chat_text(prompt_ids))
        turns = [n for n, id_ in enumerate(prompt_ids) if id_ == USER]
        turn = self.tokenizer.chat_text(prompt_ids[turns[-1] + 1 if turns else 0 :])
        for part, replies in self._rules:
            if part in turn:
                return replies
        raise EngineError(f"the engine's script has no reply for the prompt {turn!r}")


def _uniform(ids: Sequence[int]) -> tuple[float, ...]:
    return tuple(_LOG_BYTE * max(1, len(id_bytes(i))) for i in ids)


def _rule(rule: dict[str, Any], path: Path, number: int) -> tuple[str, Replies]:
    match rule:
        case {"contains": str(contains), "reply": str(reply)}:
            return contains, reply
        case {"contains": str(contains), "reply": [*replies]} if replies and all(
            isinstance(reply, str) for reply in replies
        ):
            return contains, replies
    message = 'expected {"contains": text, "reply": text or list of texts}'
    raise DataError(f"{message}, got {str(rule)[:200]}", file=path, line=number)
