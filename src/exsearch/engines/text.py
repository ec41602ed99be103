"""A text tokenizer needs no model: it gives every text ids of its own, from which it reads back.

It is for engines that have no tokenizer at hand. It knows no chat template: ids mark the turns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from exsearch.engines.base import Message

END, USER, ASSISTANT = 0, 1, 2  # ids that no text encodes to
# Words, and signs one by one: the colon of a frame is never one id with the quote that follows it.
_PIECE = re.compile(r" ?\w+| ?[^\w\s]|\s")
_PIECE_BYTES = 7  # so that an id fits 63 bits


class TextTokenizer:
    """`ChatTokenizer` without a vocabulary: an id is the bytes of a word, read as a number.

    So every text has ids and every id its text, and a reply takes about as many tokens as with a
    model's tokenizer. Turns are marked by ids that no text can spell. No model reads these ids.
    """

    end_id = END
    model_ids = False

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
        return b"".join(id_bytes(i) for i in ids).decode(errors="replace")

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
        """All ids so far, the turn's end where it is missing, and one more user turn.

        Args:
            prompt_ids: The prompt of the call before.
            output_ids: The reply of the call before.
            content: The text of the new user turn.
        """
        end = () if output_ids and output_ids[-1] == END else (END,)
        turn = self.encode_chat([Message(role="user", content=content)])
        return (*prompt_ids, *output_ids, *end, *turn)

    def messages(self, ids: Sequence[int]) -> tuple[list[Message], str]:
        """The chat that a prompt's ids stand for, and what is forced at the start of the reply."""
        starts = [n for n, id_ in enumerate(ids) if id_ in (USER, ASSISTANT)]
        turns = [
            Message(
                role="user" if ids[start] == USER else "assistant",
                content=self.decode(ids[start + 1 : end]),
            )
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)
        ]
        return turns[:-1], turns[-1]["content"]


def _pack(data: bytes) -> int:
    return int.from_bytes(b"\x01" + data, "big")  # the leading 1 keeps zero bytes


def id_bytes(id_: int) -> bytes:
    """The bytes that an id stands for; none for the mark of a turn."""
    return id_.to_bytes(_PIECE_BYTES + 1, "big").lstrip(b"\0")[1:]
