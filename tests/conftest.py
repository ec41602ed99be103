"""Fixtures are real parts made small: a random two-layer model, its tokenizer, a sample index."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import search_servers
from chat_server import FakeServer
from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.data.questions import load_questions
from exsearch.records import Question
from exsearch.retrievers.bm25 import Bm25Retriever, build_bm25

# Before torch is loaded, and for what tests start: tiny models are slower on more threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# A runner in the background ignores Ctrl-C and hands that down; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure.
settings.register_profile("exsearch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("exsearch")

TINY_VOCABULARY = 800
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_sessionfinish() -> None:
    search_servers.stop_all()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A chat server that replies by a script."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def sample_questions() -> list[Question]:
    """The packaged sample's training questions."""
    return load_questions(sample_path("train"))


@pytest.fixture(scope="session")
def sample_retriever(tmp_path_factory: pytest.TempPathFactory) -> Bm25Retriever:
    """BM25 over the packaged sample, without a cache."""
    folder = tmp_path_factory.mktemp("sample") / "index"
    build_bm25(read_corpus([sample_path("corpus")]), folder)
    return Bm25Retriever.open(folder)


def sample_texts() -> list[str]:
    """What the tiny tokenizer learns its words from: the sample and the methods' own frames."""
    from exsearch.methods import format as method_format

    instructions = [v for n, v in vars(method_format).items() if n.endswith("_INSTRUCTION")]
    frames = ["Search: Who? Answer: yes", "Question: Notes: none\nQuery: Nothing found. None."]
    passages = [f"[1] {p.title}: {p.text}" for p in read_corpus([sample_path("corpus")])]
    questions = [q.question for q in load_questions(sample_path("train"))]
    return [*instructions * 20, *frames * 20, *passages, *questions]


def save_tiny_tokenizer(folder: Path, *, digits: bool = True, template: bool = True) -> int:
    """A byte-level BPE tokenizer with ChatML turns; gives the size of its vocabulary."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if digits
        else byte_level
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sample_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE if template else None
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def save_tiny_model(folder: Path, vocabulary: int, *, seed: int = 0) -> None:
    """A random two-layer Llama with grouped-query attention, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.2,  # wide, so that the random model is far from indifferent
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of some 80 thousand weights with its tokenizer."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_model(folder, save_tiny_tokenizer(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_engine(tiny_model_folder: Path):
    """The transformers engine on the tiny model, on the CPU. Don't change its weights."""
    from exsearch.engines.local.engine import TransformersEngine

    return TransformersEngine(tiny_model_folder, device="cpu")
