"""A template writes turns as the text that a model was trained on; it is tried before it is used.

Each kind of turn is rendered once. A template that needs another form of turns gets it, and one
that loses a text is refused. It knows no tokens.
"""

from __future__ import annotations

import datetime
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
TEMPLATE_SECONDS = 5.0  # a template is a stranger's program; a sound one takes a millisecond

# A template that writes today's date would give a model other prompts than it was trained on. This
# is the day that Llama's own templates take where they have no clock.
_TODAY = datetime.datetime(2024, 7, 26)
_DATE_CODES = [f"%{flag}{code}" for code in "aAbBcdDeFHIjmMpSTuUVwWxXyYzZ" for flag in ("", "-")]
_PINNED_CLOCK = (
    "{% macro strftime_now(format) %}{% set said = namespace(text=format) %}"
    "{% for code, text in pinned_date.items() %}"
    "{% set said.text = said.text | replace(code, text) %}{% endfor %}{{ said.text }}"
    "{% endmacro +%}"
)
_ASKED, _SAID, _ASKED_AGAIN, _TOLD = (f"\u2581probe{n}\u2581" for n in range(4))
_THOUGHT = re.compile(r"<(/?)((?:\w+:)?think\w*)>")


class ChatTemplate:
    """The chat template of a transformers tokenizer, in the form of turns that it takes.

    Args:
        tokenizer: The transformers tokenizer.
        variables: Variables for the template.
        system_prompt: A system turn before every chat; None leaves it to the template. An empty one
            and none stand in for each other where the template takes only one of them.

    Attributes:
        source: The template itself.
        written: What it writes around turns, for looking up marks.
        between: What it writes between an assistant's reply and the next user's text.

    Raises:
        ModelError: the template fails, or loses the text of a turn; one line says which.
    """

    def __init__(
        self, tokenizer: Any, variables: Mapping[str, Any] | None, system_prompt: str | None
    ):
        self._hf = tokenizer
        self._variables = {"enable_thinking": False, **(variables or {})}
        refuse_powers(tokenizer.chat_template)
        self.source = _source(tokenizer)
        if "strftime_now" in self.source:
            self.source = _PINNED_CLOCK + self.source
            self._variables["pinned_date"] = {code: _TODAY.strftime(code) for code in _DATE_CODES}
        self._close_thoughts = ""
        self._settle(system_prompt)
        chat, told = self._probe_chat(), self._system and _TOLD
        self.written = self.render(chat, True, told) + self.render(chat[:2], False, told)
        self.between = self.after_reply(_ASKED_AGAIN).split(_ASKED_AGAIN)[0]
        for probe in (_ASKED, _SAID, _ASKED_AGAIN, _TOLD):
            self.written = self.written.replace(probe, "\n")

    def render(
        self, turns: Sequence[Message], generation: bool, system: str | bool | None = True
    ) -> str:
        """The text of a chat.

        Args:
            turns: The turns, as texts in which no control token is spelled.
            generation: Whether the assistant's next turn is opened.
            system: The system prompt; True takes the template's own setting.

        Raises:
            ModelError: the template fails, or does not end.
        """
        told = self._system if system is True else system
        chat = [*([] if told is None else [{"role": "system", "content": told}]), *turns]
        if self._parts:
            chat = [
                {**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in chat
            ]
        try:
            text = within(
                TEMPLATE_SECONDS,
                self._hf.apply_chat_template,
                chat,
                chat_template=self.source,
                add_generation_prompt=generation,
                tokenize=False,
                **self._variables,
            )
        except Exception as error:  # jinja2 raises whatever a template's author chose
            raise ModelError(f"the model's chat template failed on a user turn: {error}") from error
        return text + self._close_thoughts if generation else text

    def after_reply(self, content: str | None) -> str:
        """What follows an assistant's reply: the end of its turn, and the next user turn.

        Args:
            content: The text of the user turn; None ends the chat with the reply.
        """
        chat = self._probe_chat()[:2]
        if content is None:
            return self.render(chat, False).split(_SAID)[-1]
        # The content may hold the probe, too.
        return self.render([*chat, _turn("user", content)], True).split(_SAID, 1)[1]

    def _settle(self, system_prompt: str | None) -> None:
        """Find the form of turns in which no text is lost: texts or lists of parts."""
        systems = (
            [system_prompt]
            if system_prompt
            else [system_prompt, "" if system_prompt is None else None]
        )
        failures: list[ModelError] = []
        for self._system in systems:
            for self._parts in (False, True):
                try:
                    return self._probe()
                except ModelError as error:
                    failures.append(error)
                    if isinstance(error.__cause__, TimeoutError):
                        raise
        raise failures[0]

    def _probe(self) -> None:
        """Render each kind of turn, and make sure that its text is there and in its place."""
        self._close_thoughts = ""
        chat, told = self._probe_chat(), self._system and _TOLD
        once = self.render(chat[:1], True, told)
        self._keeps([*([told] if told else []), _ASKED], once, "a first turn")
        self._keeps([_ASKED, _SAID, _ASKED_AGAIN], self.render(chat, True, told), "several turns")
        self._keeps([_SAID], self.render(chat[:2], False, told), "an assistant's turn")
        if once != self.render(chat[:1], True, told):
            raise ModelError("the model's chat template writes another prompt each time; mend it")
        thoughts = _THOUGHT.findall(once.split(_ASKED)[-1])
        wanted = self._variables["enable_thinking"] or self._variables.get("thinking")
        if thoughts and not thoughts[-1][0] and not wanted:  # opened: no room for an action
            self._close_thoughts = f"\n</{thoughts[-1][1]}>\n\n"

    def _keeps(self, texts: Sequence[str], rendered: str, where: str) -> None:
        place = 0
        for text in texts:
            place = rendered.find(text, place)
            if place < 0:
                whose = {_TOLD: "the system prompt", _SAID: "the assistant's text"}
                lost = whose.get(text, "the user's text")
                remedy = (
                    "leave model.system_prompt empty"
                    if text == _TOLD
                    else "set another chat_template in its tokenizer_config.json"
                )
                raise ModelError(
                    f"the model's chat template leaves out {lost} in {where}: {remedy}"
                )

    def _probe_chat(self) -> list[Message]:
        return [_turn("user", _ASKED), _turn("assistant", _SAID), _turn("user", _ASKED_AGAIN)]


def _source(tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        bos = tokenizer.bos_token_id
        starts = bos is not None and tokenizer.encode("")[:1] == [bos]
        return ("{{ bos_token }}" if starts else "") + PLAIN_TEMPLATE
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:  # several by name, and no default
        reason = " ".join(str(error).split())
        raise ModelError(f"the model's chat template can't be chosen: {reason[:200]}") from None


def _turn(role: Any, content: str) -> Message:
    return Message(role=role, content=content)
