"""A small world is facts about people, and a model that learns to search them in seconds.

Every person is born in one city and dies in another, each told by one passage; a search returns one
passage. So a trajectory that looks up the other fact can't know the answer. It is no test.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from exsearch.methods.format import (
    ANSWER_FRAME,
    ANSWER_INSTRUCTION,
    NOTHING_FOUND,
    RECORD_INSTRUCTION,
    SEARCH_FRAME,
    THINK_INSTRUCTION,
)
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import Hop, Passage, Question, WeightedTrajectory, to_json
from exsearch.retrievers.bm25 import Bm25Retriever, build_bm25
from exsearch.training.warm_up import warm_up_data

PEOPLE, CITIES, FACTS = 40, 30, ("born", "died")
METHOD = SearcherMethod(
    max_steps=1, passages=1, passage_words=20, thought_tokens=12, record_tokens=16
)
# Of a recipe over the files that `save_files` writes.
SECTIONS = f"""\
[data]
corpus = ["corpus.jsonl"]
train = "train.jsonl"
dev = "dev.jsonl"
[method]
max_steps = {METHOD.max_steps}
passages = {METHOD.passages}
passage_words = {METHOD.passage_words}
thought_tokens = {METHOD.thought_tokens}
record_tokens = {METHOD.record_tokens}
"""
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclasses.dataclass
class World:
    """Passages that tell where people were born and died, and the questions they answer."""

    passages: list[Passage]
    questions: list[Question]


def make_world(draw: random.Random) -> World:
    """A world of its own: the same people and cities, other facts."""
    passages, questions = [], []
    for person in range(PEOPLE):
        for fact, city in zip(FACTS, draw.sample(range(CITIES), 2), strict=True):
            id_, text = f"{fact}-{person}", f"Person{person} {fact} in City{city}"
            passages.append(Passage(id_, "", text))
            questions.append(
                Question(id_, f"where {fact} Person{person}", (f"City{city}",), (id_,))
            )
    draw.shuffle(questions)
    return World(passages, questions)


def annotate(world: World, draw: random.Random, careless: float = 0.0) -> list[Question]:
    """The questions with decompositions, by one who looks up the other fact in so many of them."""
    texts = {p.id: p.text for p in world.passages}
    annotated = []
    for question in world.questions:
        fact, person = question.id.split("-")
        if draw.random() < careless:
            fact = FACTS[1 - FACTS.index(fact)]
        text = texts[f"{fact}-{person}"]
        city = text.split()[-1]
        hop = Hop(f"{fact} Person{person}", text, city, f"{fact}-{person}")
        annotated.append(dataclasses.replace(question, answers=(city,), decomposition=(hop,)))
    return annotated


def search(world: World, folder: Path) -> Bm25Retriever:
    """BM25 over a world's passages."""
    build_bm25(world.passages, folder, progress=False)
    return Bm25Retriever.open(folder)


def warm_up_items(
    tokenizer: Any, folder: Path, draw: random.Random, *, worlds: int, careless: float
) -> list[WeightedTrajectory]:
    """Examples from so many other worlds: this one's facts can't be known by heart from them."""
    items: list[WeightedTrajectory] = []
    for n in range(worlds):
        world = make_world(draw)
        questions = annotate(world, draw, careless)
        questions = [dataclasses.replace(q, id=f"{n}-{q.id}") for q in questions]
        retriever = search(world, folder / f"index-{n}")
        data = warm_up_data(questions, retriever, tokenizer, METHOD, examples=len(questions))
        assert not data.left_out
        items += data.items
    return items


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One id a word of the small worlds, its leading space included; any other is <unk>."""
    # Not all prompts that there are: with each new word the random weights would be others.
    prompts = [THINK_INSTRUCTION, RECORD_INSTRUCTION, ANSWER_INSTRUCTION]
    frames = [*prompts, SEARCH_FRAME, ANSWER_FRAME, NOTHING_FOUND]
    roles = ["where born died Person user\nQuestion: Query:\nNotes:\nnone\n[1] 1.", "assistant\n"]
    names = [*(f"Person{n} in" for n in range(PEOPLE)), *(f"City{n}" for n in range(CITIES))]
    texts = [*frames, *roles, *names, *(f" {name}" for name in names), "born died (no passages)"]
    split = pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), "isolated")
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    specials = ["<unk>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {word: n for n, word in enumerate([*specials, *sorted(words)])}
    model = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = split
    model.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="<|im_end|>", pad_token="<unk>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def save_small_model(folder: Path, seed: int) -> None:
    """A random two-layer model of 95 thousand weights, with its tokenizer."""
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)


def save_files(world: World, questions: list[Question], folder: Path, *, train: int) -> None:
    """`corpus.jsonl`, `train.jsonl` and `dev.jsonl`, as a recipe names them."""
    folder.mkdir(parents=True, exist_ok=True)
    passages = [{"id": p.id, "title": p.title, "text": p.text} for p in world.passages]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(p) + "\n" for p in passages))
    for name, part in (("train", questions[:train]), ("dev", questions[train:])):
        (folder / f"{name}.jsonl").write_text("".join(to_json(q) + "\n" for q in part))
