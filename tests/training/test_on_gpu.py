"""On a GPU the same comes out as on a CPU, within bfloat16.

`EXSEARCH_TEST_DEVICE=cpu` runs these tests without a GPU, to test the tests.
"""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from small_world import SECTIONS, annotate, save_files
from transformers import AutoModelForCausalLM

from exsearch.engines.base import GREEDY, Request, Sampling
from exsearch.engines.local.engine import TransformersEngine
from exsearch.jobs.train import train
from exsearch.progress import Bars
from exsearch.records import Question
from exsearch.training.m_step import m_step
from exsearch.training.recipe import MStepConfig
from exsearch.trajectories import read_trajectories

pytestmark = pytest.mark.gpu

DEVICE: Literal["cpu", "cuda"] = "cpu" if os.environ.get("EXSEARCH_TEST_DEVICE") else "cuda"
NEAR = 0.1  # nats a token: 8 bits of mantissa over two layers, and a wide initialisation
RECIPE = f"""
name = "small"
[model]
device = "{DEVICE}"
{SECTIONS}[e_step]
questions = 12
samples = 4
chunk = 4
[m_step]
learning_rate = 1e-4
questions_per_step = 4
[gem]
iterations = 1
dev_questions = 8
"""


@pytest.fixture(scope="module")
def engines(tiny_model_folder: Path) -> tuple[TransformersEngine, TransformersEngine]:
    """The tiny model on the CPU, and on the device."""
    return (
        TransformersEngine(tiny_model_folder, device="cpu"),
        TransformersEngine(tiny_model_folder, device=DEVICE),
    )


def prompts(n: int) -> list[tuple[int, ...]]:
    draw = random.Random(0)
    return [tuple(draw.randrange(3, 800) for _ in range(draw.randint(1, 40))) for _ in range(n)]


def test_scores_are_those_of_a_cpu(
    engines: tuple[TransformersEngine, TransformersEngine],
) -> None:
    cpu, device = engines
    asked, said = prompts(24)[:12], prompts(24)[12:]
    for want, got in zip(cpu.log_prob(asked, said), device.log_prob(asked, said), strict=True):
        assert got == pytest.approx(want, abs=NEAR)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), GREEDY])
def test_what_is_sampled_is_scored_alike_and_again(
    engines: tuple[TransformersEngine, TransformersEngine], sampling: Sampling
) -> None:
    """The weights of the E-step rest on this."""
    _, device = engines
    asked = [Request(p, 12, key=n) for n, p in enumerate(prompts(16))]
    got = device.generate(asked, sampling)
    scores = device.log_prob([r.prompt_ids for r in asked], [g.output_ids for g in got])
    for generation, score in zip(got, scores, strict=True):
        assert generation.log_probs == pytest.approx(score, abs=NEAR)
    again = device.generate(asked, sampling)
    assert [g.output_ids for g in again] == [g.output_ids for g in got]


def test_an_optimizer_step_is_that_of_a_cpu(tiny_model_folder: Path, weighted: Any) -> None:
    draw = random.Random(0)

    def ids(n: int) -> list[int]:
        return [draw.randrange(3, 700) for _ in range(n)]

    items = [
        weighted(
            *[(ids(12), ids(6)) for _ in range(3)],
            weight=draw.random(),
            answers=[ids(3), ids(2)],
            question=Question(f"q{n}", "?", ("a",)),
            sample=sample,
        )
        for n in range(6)
        for sample in range(2)
    ]
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    config = MStepConfig(learning_rate=1.0, questions_per_step=6, max_grad_norm=1e9, min_weight=0)
    changes, losses = [], []
    for device in ("cpu", DEVICE):
        model = copy.deepcopy(plain).to(device)
        steps: list[dict[str, float]] = []
        m_step(
            model, torch.optim.SGD(model.parameters(), lr=1.0), items, config, on_step=steps.append
        )
        losses.append(steps[0]["loss"])
        pairs = zip(model.parameters(), plain.parameters(), strict=True)
        changes.append(torch.cat([(a.detach().cpu() - b.detach()).flatten() for a, b in pairs]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    alike = torch.nn.functional.cosine_similarity(changes[0], changes[1], dim=0)
    assert alike > 0.99
    assert float(changes[1].norm()) == pytest.approx(float(changes[0].norm()), rel=0.05)


def test_a_round_runs_to_its_end(world: Any, fluent_folder: Path, tmp_path: Path) -> None:
    save_files(world, annotate(world, random.Random(0)), tmp_path, train=40)
    (tmp_path / "small.toml").write_text(RECIPE)
    overrides = (f"model.name={fluent_folder}",)
    out = tmp_path / "run"
    train(tmp_path / "small.toml", overrides=overrides, out=out, bars=Bars(False))
    sampled = list(read_trajectories(out / "iteration-01" / "trajectories.jsonl"))
    assert len(sampled) == 48 and sum(t.answer is not None for t in sampled) > 24
    # A model of the device is a model of the CPU.
    TransformersEngine(out / "iteration-01" / "model", device="cpu")
