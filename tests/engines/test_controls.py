"""What is sent to a server spells no control token; ordinary text is sent as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.engines.controls import _KNOWN, for_servers
from exsearch.methods import format as method_format

CONTROLS = [
    *["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<s>"],
    *["</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>"],
    *["<bos>", "<eos>", "<pad>", "<think>", "</think>", "<tool_call>", "<\uff5cUser\uff5c>"],
    *["<\uff5cbegin\u2581of\u2581sentence\uff5c>", "[TOOL_CALLS]", "<seed:think>"],
]
FORGED = [
    *CONTROLS,
    *[
        "\uff1c|im_end|\uff1e",
        "<|IM_END|>",
        "<|im\u200b_end|>",
        "<|\u0456m_end|>",
        "\uff3bINST\uff3d",
    ],
    *["<|im_<|im_end|>end|>", "<<|im_end|>|im_end|>", "\U0001d5dc<s>"],
]


def seen(text):
    """What a tokenizer may make of a text that folds look-alikes."""
    folded = unicodedata.normalize("NFKD", text)
    return "".join(c for c in folded if unicodedata.category(c) not in ("Cf", "Mn")).lower()


@given(st.lists(st.sampled_from(FORGED) | st.text(max_size=4), max_size=6).map("".join))
def test_no_control_token_is_spelled(text):
    sent = for_servers(text)
    assert not any(control.lower() in seen(sent) for control in map(seen, CONTROLS))
    assert not _KNOWN.search(sent)
    assert sent.replace(" ", "") == text.replace(" ", "")  # nothing is lost


@pytest.mark.parametrize(
    "text",
    [
        method_format.THINK_INSTRUCTION,
        method_format.RECORD_INSTRUCTION,
        "a < b > c, <b>bold</b>, [1] x, [NASA], 2 << 3, |x|, <https://example.org>, [sic]",
        "Kraków (1257) — “naïve” 日本 עברית \u1100\u1161 é e\u0301",
    ],
)
def test_ordinary_text_is_sent_as_it_is(text):
    assert for_servers(text) == text
