"""A scorer's numbers equal those that are worked out by hand from the same model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from exsearch.errors import ModelError
from exsearch.retrievers.scorers import Scorer, kind_of, sum_of_maxima
from tiny_encoders import save_tiny_bert, save_tiny_encoder
from tiny_rerankers import save_stanford_colbert, save_tiny_colbert, save_tiny_cross_encoder

PAIRS = [
    ("Who discovered radium?", "Marie Curie discovered polonium and radium, with Pierre."),
    ("Who discovered radium?", "The Vistula is the longest river in Poland."),
    ("Which river is long?", "The Vistula is the longest river in Poland."),
    ("Which river is long?", "River. " * 100),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_cross_encoder(folder / "cross")
    save_tiny_encoder(folder / "bi")
    save_tiny_colbert(folder / "late")
    save_stanford_colbert(folder / "stanford" / "model")
    save_tiny_bert(folder / "plain" / "model")
    return folder


def test_a_model_says_what_it_is(models: Path):
    kinds = {name: kind_of(models / name / "model") for name in ("cross", "bi", "late", "stanford")}
    assert kinds == {
        "cross": "cross-encoder",
        "bi": "bi-encoder",
        "late": "late-interaction",
        "stanford": "late-interaction",
    }
    with pytest.raises(ModelError, match="does not say how it scores; name one of bi-encoder"):
        Scorer.open(str(models / "plain" / "model"))


def test_a_cross_encoder_reads_the_pair(models: Path):
    folder = str(models / "cross" / "model")
    scores = Scorer.open(folder, batch_size=2).scores(PAIRS)
    model = CrossEncoder(folder, device="cpu")
    tokenizer, bert = model.tokenizer, model.transformers_model
    for (query, passage), score in zip(PAIRS, scores, strict=True):  # one by one, unpadded
        ids = tokenizer(query, passage, truncation=True, max_length=64, return_tensors="pt")
        logit = bert(**ids).logits.item()
        assert score == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    assert len(set(scores)) == len(scores)


def test_a_cross_encoder_has_its_own_prompt_and_activation(models: Path, tmp_path: Path):
    more = {"prompts": {"p": "about this: "}, "default_prompt_name": "p"}
    save_tiny_cross_encoder(tmp_path, activation_fn=torch.nn.Identity(), **more)
    scores = Scorer.open(str(tmp_path / "model")).scores(PAIRS)
    model = CrossEncoder(str(tmp_path / "model"), device="cpu")
    tokenizer, bert = model.tokenizer, model.transformers_model
    query, passage = PAIRS[0]
    ids = tokenizer(f"about this: {query}", passage, return_tensors="pt")
    assert scores[0] == pytest.approx(bert(**ids).logits.item(), rel=1e-4)


def test_a_bi_encoder_compares_two_vectors(models: Path):
    folder = str(models / "bi" / "model")
    scores = Scorer.open(folder).scores(PAIRS)
    model = SentenceTransformer(folder, device="cpu")
    for (query, passage), score in zip(PAIRS, scores, strict=True):
        left, right = model.encode_query(query), model.encode_document(passage)
        expected = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
        assert score == pytest.approx(float(expected), rel=1e-5)


def by_hand(query: np.ndarray, passage: np.ndarray) -> float:
    """The sum of maxima, one dot product after another."""
    total = 0.0
    for one in query:
        total += max(sum(a * b for a, b in zip(one, other, strict=True)) for other in passage)
    return total


def test_the_sum_of_maxima_by_hand():
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    passage = np.array([[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]], np.float32)
    assert sum_of_maxima(query, passage) == pytest.approx(1.0 + 0.8)
    assert sum_of_maxima(query, passage[2:]) == pytest.approx(-1.0 + 0.0)
    assert sum_of_maxima(query, passage[:0]) == sum_of_maxima(query[:0], passage) == 0.0


@pytest.mark.parametrize("name", ["late", "stanford"])
def test_late_interaction_equals_a_loop(models: Path, name: str):
    folder = str(models / name / "model")
    scores = Scorer.open(folder, batch_size=2).scores(PAIRS)
    model = MultiVectorEncoder(folder, device="cpu")
    for (query, passage), score in zip(PAIRS, scores, strict=True):
        left = model.encode_query(query, convert_to_numpy=True)
        right = model.encode_document(passage, convert_to_numpy=True)
        assert score == pytest.approx(by_hand(left, right), rel=1e-4)


def test_late_interaction_from_the_tensors_alone(models: Path):
    """Markers, mask tokens and skipped signs, without sentence-transformers."""
    folder = models / "late" / "model"
    scores = Scorer.open(str(folder)).scores(PAIRS)
    bert = AutoModel.from_pretrained(models / "late" / "bert").eval()
    tokenizer = AutoTokenizer.from_pretrained(models / "late" / "bert")
    from safetensors.torch import load_file

    projection = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    skipped = tokenizer.convert_tokens_to_ids([".", ",", "?"])

    def vectors(ids: list[int], attended: int) -> np.ndarray:
        mask = [1] * attended + [0] * (len(ids) - attended)
        with torch.inference_mode():
            hidden = bert(torch.tensor([ids]), torch.tensor([mask])).last_hidden_state[0]
            return torch.nn.functional.normalize(hidden @ projection.T, dim=-1).numpy()

    for (query, passage), score in zip(PAIRS, scores, strict=True):
        ids = tokenizer(f"q {query}").input_ids
        left = vectors([*ids, *[tokenizer.mask_token_id] * (16 - len(ids))], len(ids))
        ids = tokenizer(f"d {passage}", truncation=True, max_length=48).input_ids
        kept = [n for n, id_ in enumerate(ids) if id_ not in skipped]
        assert len(kept) < len(ids)
        assert score == pytest.approx(by_hand(left, vectors(ids, len(ids))[kept]), rel=1e-4)


def test_the_token_vectors_of_a_bi_encoder(models: Path):
    folder = str(models / "bi" / "model")
    scorer = Scorer.open(folder, "late-interaction")
    model = SentenceTransformer(folder, device="cpu")
    for (query, passage), score in zip(PAIRS, scorer.scores(PAIRS), strict=True):
        prompts = f"find this: {query}", f"a text: {passage}"
        left, right = (
            torch.nn.functional.normalize(model.encode(t, output_value="token_embeddings"), dim=-1)
            for t in prompts
        )
        assert score == pytest.approx(by_hand(left.numpy(), right.numpy()), rel=1e-4)
    assert scorer.score_by == "late-interaction"


def test_a_text_goes_through_the_model_once(models: Path, monkeypatch: pytest.MonkeyPatch):
    scorer = Scorer.open(str(models / "late" / "model"))
    seen: list[str] = []
    encode = MultiVectorEncoder.encode

    def counted(self, inputs, **options):
        seen.extend(inputs)
        return encode(self, inputs, **options)

    monkeypatch.setattr(MultiVectorEncoder, "encode", counted)
    scorer.scores([*PAIRS, *PAIRS])
    assert sorted(seen) == sorted({text for pair in PAIRS for text in pair})


def test_odd_texts_are_scored(models: Path):
    odd = ["", "?.,", "\ud83d", "x" * 300_000, "a\x00b", "word " * 100_000, "蜜蜂"]
    for name in ("cross", "bi", "late", "stanford"):
        scorer = Scorer.open(str(models / name / "model"))
        assert len(scorer.scores([(one, other) for one in odd for other in odd[:4]])) == 28
        assert scorer.scores([]) == []


def test_models_that_do_not_score_pairs(models: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"a bi-encoder, which scores no pair; .*train-reranker"):
        Scorer.open(str(models / "bi" / "model"), "cross-encoder")
    save_tiny_cross_encoder(tmp_path / "three", labels=3)
    with pytest.raises(ModelError, match="gives 3 scores a pair, a re-ranker gives one"):
        Scorer.open(str(tmp_path / "three" / "model"))
    config = tmp_path / "three" / "bert" / "config.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps({**facts, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(ModelError, match="in none of its files"):
        Scorer.open(str(config.parent))


@pytest.mark.parametrize("path", ["torch.hub.list", "os.abort", "torch.nn.modules.Module"])
def test_a_model_chooses_no_code_as_its_activation(tmp_path: Path, path: str):
    save_tiny_cross_encoder(tmp_path)
    for name in ("config_sentence_transformers.json", "config.json"):
        file = tmp_path / "model" / name
        whole = file.read_text()
        facts = json.loads(whole)
        inner = facts if "activation_fn" in facts else facts.setdefault("sentence_transformers", {})
        inner["activation_fn"] = path
        file.write_text(json.dumps(facts))
        with pytest.raises(ModelError, match="activation_fn"):
            Scorer.open(str(tmp_path / "model"))
        file.write_text(whole)
    assert Scorer.open(str(tmp_path / "model"))
