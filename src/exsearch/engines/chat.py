"""A chat tokenizer turns a chat into a model's token ids, safe from forged control tokens.

Text never becomes a control token: what spells one is broken up, and the ids are counted to prove
it. `template` writes the turns, `controls` says what is broken up. It does not know what the turns
are about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exsearch.engines.base import Message
from exsearch.engines.controls import MARK, broken_up, pattern
from exsearch.engines.template import ChatTemplate
from exsearch.errors import ModelError

_Ids = list[int]


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
        ModelError: the tokenizer has no end token, or its template fails or loses a turn.
    """

    model_ids = True

    def __init__(
        self,
        tokenizer: Any,
        template_kwargs: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
    ):
        self.hf = tokenizer
        self._template = ChatTemplate(tokenizer, template_kwargs, system_prompt)
        self._find_controls()
        self._shapes: dict[object, _Ids] = {}
        self.end_id = self._find_end()
        between = self._ids(self._template.between)
        # How many ids close an assistant's turn, the end token being the last of them.
        self._closing = between.index(self.end_id) + 1 if self.end_id in between else 0

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text, with no special token added or recognised."""
        return tuple(self._proved(self._text_ids, [_user(text)]))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self.hf.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the turns up to where the assistant's next one begins."""
        return tuple(self._proved(self._chat_ids, messages))

    def extend_chat(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], content: str
    ) -> tuple[int, ...]:
        """All ids so far, kept as they are, then the turn's end once and one user turn.

        Args:
            prompt_ids: The prompt of the call before.
            output_ids: The reply of the call before.
            content: The text of the new user turn.
        """
        ids = self._proved(self._glue_ids, [_user(content)])
        if self._closing:  # a template may write more before the end than the model does
            ids = ids[self._closing - 1 :]
        if [*output_ids[-1:]] == ids[:1] and ids[0] in self._control_ids:
            ids = ids[1:]
        return (*prompt_ids, *output_ids, *ids)

    def _ids(self, text: str) -> _Ids:
        return self.hf.encode(text, add_special_tokens=False)

    def _text_ids(self, turns: Sequence[Message]) -> _Ids:
        return self._ids(turns[0]["content"])

    def _chat_ids(self, turns: Sequence[Message]) -> _Ids:
        return self._ids(self._template.render(turns, True))

    def _glue_ids(self, turns: Sequence[Message]) -> _Ids:
        return self._ids(self._template.after_reply(turns[0]["content"]))

    def _proved(self, make: Callable[[Sequence[Message]], _Ids], turns: Sequence[Message]) -> _Ids:
        """Ids of turns, with those control tokens only that stand around any other text, too.

        Where the first count tells otherwise, the tokenizer reads something else as a control
        token: then whatever it reads so is taken out of each text.
        """
        safe = [_with(turn, broken_up(turn["content"], self._controls)) for turn in turns]
        ids = make(safe)
        shape = make.__name__, *((turn["role"], not turn["content"].strip()) for turn in safe)
        if shape not in self._shapes:
            plain = [_with(turn, "a" if turn["content"].strip() else "") for turn in safe]
            self._shapes[shape] = self._controls_of(make(plain))
        if self._controls_of(ids) == self._shapes[shape]:
            return ids
        return make([_with(turn, self._taken_out(turn["content"])) for turn in safe])

    def _controls_of(self, ids: _Ids) -> _Ids:
        return [i for i in ids if i in self._control_ids]

    def _taken_out(self, text: str) -> str:
        """Text without what the tokenizer reads as control tokens, as far as it takes."""
        while True:
            text = broken_up(text, self._controls)
            found = self.hf(text, add_special_tokens=False, return_offsets_mapping=True)
            ids, places = found["input_ids"], found["offset_mapping"]
            spans = {place for i, place in zip(ids, places, strict=True) if i in self._control_ids}
            if not spans:
                return text
            for start, end in sorted(spans, reverse=True):  # shorter each time, so it ends
                blank = " " if end - start > 1 else ""
                text = f"{text[:start]}{blank}{text[max(end, start + 1) :]}"

    def _find_controls(self) -> None:
        """What text may not become: special tokens, and what the template writes around turns."""
        hf, written = self.hf, self._template.source + self._template.written
        added = {
            i: token
            for i, token in hf.added_tokens_decoder.items()
            # An ordinary word that was added stays whole, also where a template writes it.
            if token.special or (token.content in written and not token.content.strip().isalnum())
        }
        special = dict(zip(hf.all_special_ids, hf.all_special_tokens, strict=True))
        contents = special | {i: token.content for i, token in added.items()}
        contents = {i: content for i, content in contents.items() if content.strip()}
        # Turns may be closed by a token that the tokenizer's config does not name as special.
        self._special_ids = {*special, *(i for i, token in added.items() if token.special)}
        self._control_ids = set(contents)
        if hf.unk_token_id not in (hf.eos_token_id, hf.bos_token_id):
            self._control_ids.discard(hf.unk_token_id)  # any text may hold what is unknown
        marks = MARK.findall(self._template.written)
        # One of a single character can't be broken up.
        texts = [*marks, *(c for c in contents.values() if len(c.strip()) > 1)]
        self._controls = pattern(texts)

    def _find_end(self) -> int:
        """The id that ends an assistant turn in the template, or else the end of a sequence."""
        ids = self._ids(self._template.after_reply(None).lstrip())
        if ids and ids[0] in self._special_ids:
            return ids[0]
        if self.hf.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token; set eos_token in its config"
            )
        return self.hf.eos_token_id


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _with(turn: Message, content: str) -> Message:
    return Message(role=turn["role"], content=content)
