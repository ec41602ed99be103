"""A chat tokenizer renders turns through the model's own template, safe from forged control tokens.

Text never becomes a control token: where a content spells one (`<|im_end|>`), it is broken up
before the template sees it. It does not know what the turns are about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from exsearch.engines.base import Message
from exsearch.engines.deadline import refuse_powers, within
from exsearch.errors import ModelError

# For tokenizers without a template: a line for the role, then the turn. (A line break that follows
# a block tag would be trimmed away, so they stand in expressions.)
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ (m['role'] | capitalize) + ':\n' + m['content'] }}"
    "{{ (eos_token if m['role'] == 'assistant' else '') + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
_PROBE = "\u2581probe\u2581"
TEMPLATE_SECONDS = 5.0  # a template is a stranger's program; a sound one takes a millisecond


class HuggingFaceChat:
    """`ChatTokenizer` over a transformers tokenizer.

    Args:
        tokenizer: A fast transformers tokenizer.
        template_kwargs: Variables for the chat template; `enable_thinking` is False unless set
            here.
        system_prompt: A system turn before every chat; None leaves it to the template, and an
            empty one saves the tokens of a template's default.

    Attributes:
        hf: The transformers tokenizer.
        end_id: The id that ends an assistant turn.

    Raises:
        ModelError: the tokenizer has no end token, or its template can't hold a user turn.
    """

    model_ids = True

    def __init__(
        self,
        tokenizer: Any,
        template_kwargs: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
    ):
        self.hf = tokenizer
        self._system = system_prompt
        self._kwargs = {"enable_thinking": False, **(template_kwargs or {})}
        self._template = None if tokenizer.chat_template else self._plain_template()
        refuse_powers(tokenizer.chat_template)
        added = tokenizer.added_tokens_decoder
        # Added tokens that no template marks as special (<tool_call>) count: text could forge them.
        # One of a single character can't be broken up, and controls nothing.
        controls = {t.content for t in added.values() if len(t.content.strip()) > 1}
        longest_first = sorted(controls, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Turns may be closed by a token that the tokenizer's config does not name as special.
        self._special_ids = {
            *tokenizer.all_special_ids,
            *(i for i, t in added.items() if t.special),
        }
        self._turn_end = self._render([_user("a"), _assistant(_PROBE)], False).split(_PROBE)[-1]
        self.end_id = self._find_end()

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text, with no special token added or recognised."""
        return tuple(self.hf.encode(self._defuse(text), add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self.hf.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the turns up to where the assistant's next one begins."""
        safe = [Message(role=m["role"], content=self._defuse(m["content"])) for m in messages]
        return tuple(self.hf.encode(self._render(safe, True), add_special_tokens=False))

    def extend_chat(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], content: str
    ) -> tuple[int, ...]:
        """All ids so far, kept as they are, then the turn's end and one user turn.

        Args:
            prompt_ids: The prompt of the call before.
            output_ids: The reply of the call before.
            content: The text of the new user turn.
        """
        turns = [_user("a"), _assistant(_PROBE), _user(self._defuse(content))]
        glue = self._render(turns, True).split(_PROBE, 1)[1]  # the content may hold it, too
        ids = self.hf.encode(glue, add_special_tokens=False)
        if output_ids and output_ids[-1] == self.end_id and ids[:1] == [self.end_id]:
            ids = ids[1:]
        return (*prompt_ids, *output_ids, *ids)

    def _render(self, messages: list[Message], generation: bool) -> str:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        try:
            return within(
                TEMPLATE_SECONDS,
                self.hf.apply_chat_template,
                [*system, *messages],
                chat_template=self._template,
                add_generation_prompt=generation,
                tokenize=False,
                **self._kwargs,
            )
        except Exception as error:  # jinja2 raises whatever a template's author chose
            raise ModelError(f"the model's chat template failed on a user turn: {error}") from error

    def _find_end(self) -> int:
        """The id that ends an assistant turn in the template, or else the end of a sequence."""
        ids = self.hf.encode(self._turn_end, add_special_tokens=False)
        if ids and ids[0] in self._special_ids:
            return ids[0]
        if self.hf.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token; set eos_token in its config"
            )
        return self.hf.eos_token_id

    def _plain_template(self) -> str:
        bos = self.hf.bos_token_id
        starts = bos is not None and self.hf.encode("")[:1] == [bos]
        return ("{{ bos_token }}" if starts else "") + PLAIN_TEMPLATE

    def _defuse(self, text: str) -> str:
        """Break up whatever spells a control token; what can't be broken up is taken out."""
        text = self._control.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)
        while self._control.search(text):
            text = self._control.sub("", text)
        return text


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _assistant(content: str) -> Message:
    return Message(role="assistant", content=content)
