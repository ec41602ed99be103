"""A dense index finds by meaning, goes on after a kill byte for byte, and refuses another model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.errors import ConfigError, DataError, IndexDamagedError, ModelError
from exsearch.records import Passage
from exsearch.retrievers import build_index, encoding, open_retriever
from exsearch.retrievers.dense import DenseRetriever
from exsearch.retrievers.encoder import Encoder, passage_text
from exsearch.retrievers.encoding import VECTORS_FILE
from exsearch.runs import MANIFEST
from tiny_encoders import save_tiny_encoder

PASSAGES = list(read_corpus([sample_path("corpus")]))[:40]
QUERIES = ["Who discovered polonium?", "the longest river", "an airport"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_encoder(folder, pooling="mean", similarity_fn_name="dot")
    return folder / "model"


def build(place: Path, model: Path, passages=PASSAGES, **settings) -> Path:
    settings = {"model": str(model), "device": "cpu"} | settings
    build_index(iter(passages), place, kind="dense", settings=settings, progress=False)
    return place


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    return build(tmp_path_factory.mktemp("dense") / "index", tiny)


def test_the_default_model_finds_by_meaning(tmp_path: Path):
    passages = [
        Passage("a", "Skin", "The dermis lies below the epidermis."),
        Passage("b", "Felines", "Cats purr when they are content."),
        Passage("c", "Rivers", "The Vistula flows into the Baltic Sea."),
    ]
    build_index(iter(passages), tmp_path / "index", kind="dense", progress=False)
    retriever = open_retriever(tmp_path / "index")
    found = retriever.search(["why do kittens make a humming noise", "a stream in Poland"], 3)
    assert [each[0].id for each in found] == ["b", "c"]
    assert len(found[0]) == 3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_equals_brute_force_over_the_model_s_vectors(tmp_path: Path, tiny: Path, dtype: str):
    retriever = DenseRetriever.open(build(tmp_path / "index", tiny, dtype=dtype))
    encoder = Encoder.open(str(tiny), device="cpu")
    rows = encoder.passages([passage_text(p) for p in PASSAGES]).astype(dtype)
    for query, found in zip(QUERIES, retriever.search(QUERIES, 10), strict=True):
        scores = rows.astype(np.float64) @ encoder.queries([query])[0].astype(np.float64)
        best = np.argsort(-scores, kind="stable")[:10]
        assert [p.id for p in found] == [PASSAGES[n].id for n in best]
        assert [p.score for p in found] == pytest.approx(list(scores[best]), rel=1e-4, abs=1e-5)


def test_a_blank_query_finds_nothing_and_any_other_finds_k(index: Path):
    retriever = DenseRetriever.open(index)
    found = retriever.search(["", " \n", "?!", "x", "x"], 5)
    assert [len(each) for each in found] == [0, 0, 5, 5, 5]
    assert retriever.search(["", "\t"], 5) == [[], []]


def test_the_identity_names_no_place(index: Path, tiny: Path, tmp_path: Path):
    identity = DenseRetriever.open(index).identity()
    other = shutil.copytree(tiny, tmp_path / "other place")
    assert DenseRetriever.open(build(tmp_path / "a", other)).identity() == identity
    half = build(tmp_path / "b", tiny, dtype="float16")
    assert DenseRetriever.open(half).identity() != identity


DYING = """
import os, signal, sys
from pathlib import Path
from exsearch.retrievers import encoder, encoding
sys.path[:0] = sys.argv[3:]
from test_dense import build
encoding.CHUNK = 8
whole, calls = encoder.Encoder.passages, []

def passages(self, texts):
    calls.append(texts)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, texts)

encoder.Encoder.passages = passages
build(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def hashes(index: Path) -> dict[str, str]:
    files = json.loads((index / MANIFEST).read_text())["files"]
    return {name: file["sha256"] for name, file in files.items()}


def test_a_killed_build_goes_on_byte_for_byte(tmp_path: Path, tiny: Path, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 8)
    whole = hashes(build(tmp_path / "whole", tiny))
    tests = Path(__file__).parent
    command = [sys.executable, "-c", DYING, str(tmp_path / "index"), str(tiny)]
    path = os.pathsep.join([str(tests), str(tests.parent), *sys.path])
    died = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    kept = tmp_path / ".index.vectors"
    assert len(list(kept.glob("*.chunk"))) == 3
    other = tmp_path / "other"
    shutil.copytree(kept, tmp_path / ".other.vectors")

    calls, encode = [], Encoder.passages
    monkeypatch.setattr(Encoder, "passages", lambda e, t: calls.append(len(t)) or encode(e, t))
    assert hashes(build(tmp_path / "index", tiny)) == whole
    assert calls == [8, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.vectors", "index", "whole"]

    save_tiny_encoder(tmp_path / "model", pooling="mean", similarity_fn_name="dot", seed=1)
    calls.clear()
    build(other, tmp_path / "model" / "model")  # another model takes over none of it
    assert calls == [8] * 5 and hashes(other)[VECTORS_FILE] != whole[VECTORS_FILE]
    assert not (tmp_path / ".other.vectors").exists()


def test_a_chunk_that_is_cut_off_is_encoded_again(tmp_path: Path, tiny: Path, monkeypatch, index):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("exsearch.retrievers.dense._vectors", stop)
        build(tmp_path / "index", tiny)
    (chunk,) = (tmp_path / ".index.vectors").glob("*.chunk")
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert hashes(build(tmp_path / "index", tiny)) == hashes(index)


def test_a_failed_build_leaves_nothing(tmp_path: Path, tiny: Path):
    for passages, said in (([], "the corpus is empty"), ([*PASSAGES, PASSAGES[0]], "comes twice")):
        with pytest.raises(DataError, match=said):
            build(tmp_path / "index", tiny, passages)
    with pytest.raises(ModelError, match="no such model folder"):
        build(tmp_path / "index", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"index": "tree"}, "index='tree': expected exact or ivf"),
        ({"dtype": "int8"}, "dtype='int8': expected float32 or float16"),
        ({"batch_size": -1}, "batch_size=-1: expected a whole number"),
        ({"effort": "much"}, "effort='much': expected a whole number"),
        ({"effort": 3}, "effort=3: a setting of index=ivf"),
        ({"bacth_size": 1}, "did you mean batch_size"),
    ],
)
def test_a_setting_that_is_none_is_refused(tmp_path: Path, tiny: Path, settings, said):
    with pytest.raises(ConfigError, match=said):
        build(tmp_path / "index", tiny, **settings)


def test_values_beyond_float16_are_refused(tmp_path: Path, tiny: Path, monkeypatch):
    encode = Encoder.passages
    monkeypatch.setattr(Encoder, "passages", lambda e, texts: encode(e, texts) * 1e6)
    with pytest.raises(ConfigError, match="beyond float16; build with dtype=float32"):
        build(tmp_path / "index", tiny, dtype="float16")


def test_another_model_is_refused(tmp_path: Path, tiny: Path):
    model = shutil.copytree(tiny, tmp_path / "model")
    index = build(tmp_path / "index", model)
    config = model / "1_Pooling" / "config.json"
    content = config.read_text()
    config.write_text(content.replace('"mean"', '"max"'))
    assert config.read_text() != content
    said = r"is not the one that .*index was built with: 1_Pooling/config\.json differs"
    with pytest.raises(ModelError, match=said):
        DenseRetriever.open(index)
    config.write_text(content)
    assert DenseRetriever.open(index)
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="no such model folder"):
        DenseRetriever.open(index)


@pytest.mark.parametrize(
    "change", [{"version": 99}, {"kind": "bm25"}, {"passages": 5}, {"encoder": {}}, {"dtype": "x"}]
)
def test_an_index_of_another_version_is_refused(index: Path, tmp_path: Path, change):
    copy = shutil.copytree(index, tmp_path / "index")
    facts = json.loads((copy / "retriever.json").read_text()) | change
    (copy / "retriever.json").write_text(json.dumps(facts))
    (copy / MANIFEST).write_text('{"files": {}}')
    with pytest.raises(IndexDamagedError, match="not an index that this exsearch can read"):
        DenseRetriever.open(copy)


def test_a_build_never_replaces_what_is_no_index(tmp_path: Path, tiny: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is no index"):
        build(tmp_path, tiny)
